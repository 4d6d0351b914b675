#include "worker/engine/host_memory.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <new>

#include "common/thread_name.h"
#include "worker/engine/tensor_types.h"

namespace coxswain::worker {
namespace {

/// Lives until the process ends: pieces may be given back after any destructor of ours.
class HostPool {
 public:
  void* take(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    in_use_ += static_cast<std::int64_t>(bytes);
    peak_ = std::max(peak_, in_use_);
    auto& free = free_[bytes];
    if (!free.empty()) {
      void* data = free.back();
      free.pop_back();
      return data;
    }
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
      in_use_ -= static_cast<std::int64_t>(bytes);
      throw std::bad_alloc();
    }
    return data;
  }
  void give_back(void* data, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    in_use_ -= static_cast<std::int64_t>(bytes);
    free_[bytes].push_back(data);
  }
  Bytes in_use() {
    const std::lock_guard lock(mutex_);
    return Bytes(in_use_);
  }
  Bytes peak() {
    const std::lock_guard lock(mutex_);
    return Bytes(peak_);
  }

 private:
  std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;  // by bytes
  std::int64_t in_use_ = 0, peak_ = 0;
};

HostPool& pool() {
  static auto* instance = new HostPool;
  return *instance;
}

void copy_out(MovedStorages& moved) {
  for (const c10::Storage& storage : moved.storages) {
    c10::StorageImpl* inside = storage.unsafeGetStorageImpl();
    moved.pieces.push_back(take_host_memory(inside->nbytes()));
    std::memcpy(moved.pieces.back().get(), inside->data(), inside->nbytes());
    inside->set_data_ptr_noswap(c10::DataPtr(nullptr, inside->device()));
  }
}

void copy_back(MovedStorages& moved) {
  for (std::size_t i = 0; i < moved.storages.size(); ++i) {
    c10::StorageImpl* inside = moved.storages[i].unsafeGetStorageImpl();
    c10::DataPtr data = c10::GetCPUAllocator()->allocate(inside->nbytes());
    std::memcpy(data.get(), moved.pieces[i].get(), inside->nbytes());
    inside->set_data_ptr_noswap(std::move(data));
    moved.pieces[i].reset();
  }
}

}  // namespace

std::shared_ptr<void> take_host_memory(std::size_t bytes) {
  return {pool().take(bytes), [bytes](void* data) { pool().give_back(data, bytes); }};
}
Bytes host_memory_in_use() { return pool().in_use(); }
Bytes host_memory_peak() { return pool().peak(); }

at::Tensor make_state(std::int64_t count, bool on_host) {
  const auto options = options_of(DType::Float32);
  if (!on_host || count == 0) return at::zeros({count}, options);
  const std::shared_ptr<void> piece =
      take_host_memory(static_cast<std::size_t>((size_of(DType::Float32) * count).value));
  return at::from_blob(piece.get(), {count}, [piece](void*) {}, options).zero_();
}

HostMover::HostMover() : thread_([this](const std::stop_token& stop) { run(stop); }) {}

HostMover::~HostMover() {
  thread_.request_stop();
  changed_.notify_all();
  thread_.join();
}

std::shared_ptr<MovedStorages> HostMover::move_out(std::vector<c10::Storage> storages) {
  auto moved = std::make_shared<MovedStorages>();
  moved->storages = std::move(storages);
  moved->leaving = true;
  {
    const std::lock_guard lock(mutex_);
    jobs_.emplace_back(moved, true);
  }
  changed_.notify_all();
  return moved;
}

void HostMover::move_back(const std::shared_ptr<MovedStorages>& moved) {
  {
    const std::lock_guard lock(mutex_);
    if (moved->coming || moved->here) return;
    moved->coming = true;
    jobs_.emplace_back(moved, false);
  }
  changed_.notify_all();
}

void HostMover::wait(const std::shared_ptr<MovedStorages>& moved) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !moved->leaving && !moved->coming; });
  if (moved->failure) std::rethrow_exception(moved->failure);
  if (moved->here) moved->storages.clear();
}

void HostMover::run(const std::stop_token& stop) {
  name_thread("host memory");
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [&] { return !jobs_.empty(); })) {
    const auto [moved, out] = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    std::exception_ptr failure;
    try {
      (out ? copy_out : copy_back)(*moved);
    } catch (const std::bad_alloc&) {
      failure = std::current_exception();
    }
    lock.lock();
    moved->failure = failure;
    (out ? moved->leaving : moved->coming) = false;
    moved->here = !out;
    changed_.notify_all();
  }
}

}  // namespace coxswain::worker
