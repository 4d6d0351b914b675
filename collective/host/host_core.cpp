#include <algorithm>

#include "collective/host/host_communicator.h"

namespace coxswain::collective {

HostCore::HostCore(GroupParts parts, CompletionSignal* signal, std::shared_ptr<RegisteredMemory> registered)
    : signal_(signal), group_(std::move(parts)), transport_(group_), stage_(group_, std::move(registered)) {}

HostCore::~HostCore() { close(); }

Handle HostCore::submit(std::string name, std::function<Result<void>()> body) {
  auto give_up = [core = weak_from_this()](const Error& error) {
    if (const auto alive = core.lock()) alive->group().fail(error);
  };
  auto operation = std::make_shared<Operation>(std::move(name), signal_, std::move(give_up));
  Queued queued{operation, std::move(body)};
  if (group_.size() == 1) {
    operation->complete(perform(queued));
    return Handle(operation);
  }
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(queued));
    if (!progress_.joinable()) progress_ = std::thread([this] { run(); });
  }
  queued_.notify_one();
  return Handle(operation);
}

Result<void> HostCore::perform(const Queued& queued) {
  if (group_.failed()) return group_.error();
  Result<void> result = guard("collective", queued.body);
  if (result) return result;
  // The first reason to fail is the one to report: a peer's loss explains the deadline that passed here, too.
  Error error = std::move(result).error();
  error.message = queued.operation->name() + ": " + error.message;
  group_.fail(std::move(error));
  return group_.error();
}

void HostCore::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    queued_.wait(lock, [&] { return closing_ || !queue_.empty(); });
    if (queue_.empty()) return;
    Queued next = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    Result<void> result = perform(next);
    lock.lock();
    // Before the waiter knows: it may close the communicator at once, in good order.
    busy_ = false;
    lock.unlock();
    next.operation->complete(std::move(result));
    lock.lock();
  }
}

void HostCore::abort(const std::string& reason) {
  group_.fail({ErrorCode::Aborted, "aborted: " + reason, "", "", "", ""});
  std::vector<std::weak_ptr<HostCore>> children;
  {
    const std::lock_guard lock(mutex_);
    children = children_;
  }
  for (const auto& child : children) {
    if (const auto alive = child.lock()) alive->abort(reason);
  }
}

void HostCore::add_child(const std::shared_ptr<HostCore>& child) {
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(children_, [](const auto& other) { return other.expired(); });
    children_.push_back(child);
  }
  // An abort between connecting and here must reach the new one as well.
  if (group_.failed() && group_.error().code == ErrorCode::Aborted) child->group().fail(group_.error());
}

void HostCore::close() {
  std::thread progress;
  {
    const std::lock_guard lock(mutex_);
    if (closing_) return;
    closing_ = true;
    if (busy_ || !queue_.empty()) group_.fail({ErrorCode::Aborted, "the communicator was destroyed with operations pending", "", "", "", ""});
    progress = std::move(progress_);
  }
  queued_.notify_one();
  if (progress.joinable()) progress.join();
  if (!group_.failed()) group_.farewell();
}

}  // namespace coxswain::collective
