#pragma once
// Host memory beside the device's own, for what is offloaded: on a CPU device a pool of mapped pages that the allocator
// does not count. A side thread copies storages of autograd graphs there and back, and empties and fills them in place.
// Called by stage_runner (activations), parameter_store and sharded_storage (state of the optimizer). Threads: the
// functions any; HostMover one, beside its own thread. Private to worker/engine. Source: DESIGN 3.3, docs/adr/0016.
#include <ATen/core/TensorBody.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "common/units.h"

namespace coxswain::worker {

/// A piece of host memory with anything in it; given back for another piece of its size. Throws std::bad_alloc.
[[nodiscard]] std::shared_ptr<void> take_host_memory(std::size_t bytes);
/// In pieces that are taken now; and the most that ever was.
[[nodiscard]] Bytes host_memory_in_use();
[[nodiscard]] Bytes host_memory_peak();

/// Zeros in float32 for what the optimizer keeps, on the device or in host memory. There it is updated where it is: the
/// host's threads read gradients and write values over the link, which on a CPU device is the memory bus.
[[nodiscard]] at::Tensor make_state(std::int64_t count, bool on_host);

/// Storages of one block and micro-batch.
struct MovedStorages {
  std::vector<c10::Storage> storages;
  std::vector<std::shared_ptr<void>> pieces;           // by storage, while it is on the host
  bool leaving = false, coming = false, here = false;  // under the mover's lock
  std::exception_ptr failure;
};

class HostMover {
 public:
  HostMover();
  ~HostMover();
  HostMover(const HostMover&) = delete;
  HostMover& operator=(const HostMover&) = delete;

  /// Starts the way out. Nobody reads `storages` until they are back. What is started is done in order.
  [[nodiscard]] std::shared_ptr<MovedStorages> move_out(std::vector<c10::Storage> storages);
  /// Starts the way back, once.
  void move_back(const std::shared_ptr<MovedStorages>& moved);
  /// Until what was started last is done: a copy in memory, which ends by itself. What is back is forgotten here.
  /// Throws what the copy threw.
  void wait(const std::shared_ptr<MovedStorages>& moved);

 private:
  void run(const std::stop_token& stop);
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::pair<std::shared_ptr<MovedStorages>, bool>> jobs_;  // true: out
  std::jthread thread_;
};

}  // namespace coxswain::worker
