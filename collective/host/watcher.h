#pragma once
// One thread that waits on every control connection of a communicator and of those split from it, so that a lost peer
// or an abort is noticed while the progress threads compute, sleep on a futex or have nothing to do. Threads: watch and
// forget from any; callbacks run on the watcher's thread.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "collective/host/fd.h"

namespace coxswain::collective {

class Watcher {
 public:
  /// Errors: ResourceExhausted (descriptors).
  [[nodiscard]] static Result<std::shared_ptr<Watcher>> start();
  ~Watcher();
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  /// `readable` returns false when it wants no more calls. Borrows `fd` until forget.
  [[nodiscard]] std::uint64_t watch(int fd, std::function<bool()> readable);
  /// After it returns the callback does not run (unless called from a callback, which then is the last).
  void forget(std::uint64_t id);

 private:
  struct Entry {
    int fd = -1;
    std::function<bool()> readable;
  };
  Watcher(UniqueFd poller, UniqueFd stop) : poller_(std::move(poller)), stop_(std::move(stop)) {}
  void run();
  void dispatch(std::uint64_t id);

  UniqueFd poller_;
  UniqueFd stop_;
  std::recursive_mutex running_;  // held while a callback runs
  std::mutex mutex_;
  std::map<std::uint64_t, Entry> entries_;
  std::uint64_t next_id_ = 1;
  std::jthread thread_;
};

}  // namespace coxswain::collective
