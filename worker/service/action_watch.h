#pragma once
// A compute action that makes no progress: told once it has run longer than a limit, by a thread of its own, since the
// one that computes cannot. An action that takes processor time spins and is the cause; one that takes none waits,
// inside a mesh for a peer. Called by train_mode, between executor and engine. Threads: `hung` runs on the watch's own.
#include <pthread.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "executor/executor.h"

namespace coxswain::worker {

struct HungAction {
  plan::Action action;
  Seconds running{0};
  bool spins = false;
};

class ActionWatch final : public executor::Compute {
 public:
  /// `compute` is borrowed and does the work. `hung` is called at most once.
  ActionWatch(executor::Compute& compute, Seconds limit, std::function<void(const HungAction&)> hung);
  ~ActionWatch() override;

  Result<void> start(const plan::Action& action) override;
  Result<bool> finished() override;
  Result<executor::Communication> prepare(const plan::Action& action) override { return compute_.prepare(action); }
  Result<void> finish(const plan::Action& action) override { return compute_.finish(action); }

 private:
  struct Running {
    plan::Action action;
    TimePoint since;
    pthread_t thread{};  // that computes
  };
  void watch();

  executor::Compute& compute_;
  const Seconds limit_;
  const std::function<void(const HungAction&)> hung_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Running> running_;
  bool ends_ = false;
  std::jthread thread_;
};

}  // namespace coxswain::worker
