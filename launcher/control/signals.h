#pragma once
// SIGINT, SIGTERM, SIGHUP and SIGUSR1 (a scheduler's notice, as of `sbatch --signal=USR1`) as calls on an ordinary
// thread. Make one before any other thread starts, so that all inherit the blocked mask. Used by run_train, coordinator
// and agent.
#include <csignal>
#include <ctime>
#include <functional>
#include <thread>

namespace coxswain::launcher {

class SignalWatcher {
 public:
  explicit SignalWatcher(std::function<void(int)> on_signal) {
    sigemptyset(&set_);
    for (int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) sigaddset(&set_, number);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
    thread_ = std::jthread([this, on_signal = std::move(on_signal)](const std::stop_token& stop) {
      const timespec wait{0, 100'000'000};  // how long the destructor may take
      while (!stop.stop_requested()) {
        if (const int number = sigtimedwait(&set_, nullptr, &wait); number > 0) on_signal(number);
      }
    });
  }
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;
  ~SignalWatcher() {
    thread_.request_stop();
    thread_.join();
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t set_{}, before_{};
  std::jthread thread_;
};

}  // namespace coxswain::launcher
