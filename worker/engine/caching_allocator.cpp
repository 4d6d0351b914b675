#include "worker/engine/caching_allocator.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

namespace coxswain::worker {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kLinearLimit = 512;  // below: multiples of kAlignment
constexpr int kClassesPerDoubling = 8;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

int class_index(std::size_t request) {
  if (request <= kLinearLimit) return static_cast<int>((request + kAlignment - 1) / kAlignment);
  // 512 * 2^d * (1 + k/8) for k = 1..8: d doublings above the linear range, k-th step inside.
  const int doubling = std::bit_width(request - 1) - std::bit_width(kLinearLimit - 1) - 1;
  const std::size_t base = kLinearLimit << doubling;
  const std::size_t step = base / kClassesPerDoubling;
  const int within = static_cast<int>((request - base + step - 1) / step);
  return static_cast<int>(kLinearLimit / kAlignment) + doubling * kClassesPerDoubling + within;
}

std::size_t class_bytes(int index) {
  constexpr int kLinearClasses = static_cast<int>(kLinearLimit / kAlignment);
  if (index <= kLinearClasses) return static_cast<std::size_t>(index) * kAlignment;
  const int doubling = (index - kLinearClasses - 1) / kClassesPerDoubling;
  const int within = (index - kLinearClasses - 1) % kClassesPerDoubling + 1;
  const std::size_t base = kLinearLimit << doubling;
  return base + static_cast<std::size_t>(within) * (base / kClassesPerDoubling);
}

/// Of blocks outside the classes.
constexpr int kExact = -1;

/// Stands just before the elements; as large as the alignment, so that these stay aligned.
struct alignas(kAlignment) BlockHeader {
  int index = 0;
  std::size_t bytes = 0;
};
static_assert(sizeof(BlockHeader) == kAlignment);

thread_local bool exact_sizes = false;

/// Lives until the process ends: tensors in static storage may be freed after any destructor of ours.
class CachingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t request) override {
    const c10::Device device(c10::DeviceType::CPU);
    if (request == 0) return {nullptr, nullptr, &CachingAllocator::free_block, device};
    void* data = exact_sizes ? take_exact(request) : take(class_index(request));
    return {data, data, &CachingAllocator::free_block, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &CachingAllocator::free_block; }
  void copy_data(void* target, const void* source, std::size_t count) const override {
    std::memcpy(target, source, count);
  }

  void count(std::int64_t change) {
    const std::lock_guard lock(mutex_);
    add_in_use(change);
  }
  std::int64_t in_use() {
    const std::lock_guard lock(mutex_);
    return in_use_;
  }
  std::int64_t peak() {
    const std::lock_guard lock(mutex_);
    return peak_;
  }
  void reset_peak() {
    const std::lock_guard lock(mutex_);
    peak_ = in_use_;
  }
  void release() {
    const std::lock_guard lock(mutex_);
    release_locked();
  }

 private:
  void* take(int index) {
    const std::lock_guard lock(mutex_);
    add_in_use(static_cast<std::int64_t>(class_bytes(index)));
    if (static_cast<std::size_t>(index) < free_.size() && !free_[index].empty()) {
      void* data = free_[index].back();
      free_[index].pop_back();
      return data;
    }
    return make_block(index, class_bytes(index));
  }

  void* take_exact(std::size_t request) {
    const std::lock_guard lock(mutex_);
    const std::size_t payload = (request + kAlignment - 1) / kAlignment * kAlignment;
    add_in_use(static_cast<std::int64_t>(payload));
    return make_block(kExact, payload);
  }

  void* make_block(int index, std::size_t payload) {
    const std::size_t bytes = sizeof(BlockHeader) + payload;
    const std::size_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
    void* base = nullptr;
    if (posix_memalign(&base, alignment, bytes) != 0) {
      // What is cached in other classes may be what is missing.
      release_locked();
      if (posix_memalign(&base, alignment, bytes) != 0) {
        add_in_use(-static_cast<std::int64_t>(payload));
        throw std::bad_alloc();
      }
    }
    if (alignment == kHugePage) madvise(base, bytes, MADV_HUGEPAGE);  // a refusal costs speed only
    auto* header = new (base) BlockHeader{index, payload};
    return header + 1;
  }

  static void free_block(void* data);

  void give_back(void* data) {
    BlockHeader* header = static_cast<BlockHeader*>(data) - 1;
    const int index = header->index;
    const std::lock_guard lock(mutex_);
    add_in_use(-static_cast<std::int64_t>(header->bytes));
    if (index == kExact) {
      std::free(header);
      return;
    }
    if (free_.size() <= static_cast<std::size_t>(index)) free_.resize(index + 1);
    free_[index].push_back(data);
  }

  void release_locked() {
    for (auto& blocks : free_) {
      for (void* data : blocks) std::free(static_cast<BlockHeader*>(data) - 1);
      blocks.clear();
    }
  }

  void add_in_use(std::int64_t change) {
    in_use_ += change;
    if (in_use_ > peak_) peak_ = in_use_;
  }

  std::mutex mutex_;
  std::vector<std::vector<void*>> free_;  // by class
  std::int64_t in_use_ = 0, peak_ = 0;
};

CachingAllocator& allocator() {
  static auto* instance = new CachingAllocator;
  return *instance;
}

void CachingAllocator::free_block(void* data) {
  if (data) allocator().give_back(data);
}

}  // namespace

void install_caching_allocator() {
  static const bool installed = [] {
    // Above libtorch's own priorities, so that no later registration of theirs wins.
    c10::SetCPUAllocator(&allocator(), 100);
    return true;
  }();
  static_cast<void>(installed);
}

ExactSizes::ExactSizes() : before_(exact_sizes) { exact_sizes = true; }
ExactSizes::~ExactSizes() { exact_sizes = before_; }

std::size_t size_class_bytes(std::size_t request) { return class_bytes(class_index(request)); }
Bytes memory_in_use() { return Bytes(allocator().in_use()); }
Bytes memory_peak() { return Bytes(allocator().peak()); }
void reset_memory_peak() { allocator().reset_peak(); }
void count_foreign_memory(Bytes change) { allocator().count(change.value); }
void release_cached_memory() { allocator().release(); }

}  // namespace coxswain::worker
