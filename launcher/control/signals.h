#pragma once
// SIGINT, SIGTERM, SIGHUP and SIGUSR1 (a scheduler's notice, as of `sbatch --signal=USR1`) as calls on an ordinary
// thread. Make one before any other thread starts, so that all inherit the blocked mask. Used by run_train, coordinator
// and agent.
#include <csignal>
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
      while (!stop.stop_requested()) {
        const int number = sigwaitinfo(&set_, nullptr);
        if (number > 0 && !stop.stop_requested()) on_signal(number);
      }
    });
  }
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;
  ~SignalWatcher() {
    thread_.request_stop();
    pthread_kill(thread_.native_handle(), SIGUSR1);  // to that thread alone, which does not pass it on any more
    thread_.join();
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t set_{}, before_{};
  std::jthread thread_;
};

}  // namespace coxswain::launcher
