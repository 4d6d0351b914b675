#pragma once
// Operations of one communicator, run in order by a thread that starts with the first of them. Used by the backends
// whose operations block their thread. Threads: any; stop once.
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "collective/operation.h"

namespace coxswain::collective {

class OperationQueue {
 public:
  using Body = std::function<Result<void>()>;
  /// `perform` runs on the queue's thread for every operation in turn and gives the result to complete it with.
  explicit OperationQueue(std::function<Result<void>(const std::string& name, const Body& body)> perform)
      : perform_(std::move(perform)) {}
  ~OperationQueue() { stop(); }
  OperationQueue(const OperationQueue&) = delete;
  OperationQueue& operator=(const OperationQueue&) = delete;

  void push(std::shared_ptr<Operation> operation, Body body);
  /// Whether an operation is queued or running; one that is complete counts no more.
  [[nodiscard]] bool pending() const;
  /// Performs what is queued and ends the thread.
  void stop();

 private:
  struct Queued {
    std::shared_ptr<Operation> operation;
    Body body;
  };
  void run();

  const std::function<Result<void>(const std::string&, const Body&)> perform_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Queued> queue_;
  bool stopping_ = false;
  bool busy_ = false;
  std::thread thread_;
};

}  // namespace coxswain::collective
