#include "collective/host/host_communicator.h"

namespace coxswain::collective {

HostCore::HostCore(GroupParts parts, CompletionSignal* signal, std::shared_ptr<RegisteredMemory> registered)
    : signal_(signal),
      group_(std::move(parts)),
      transport_(group_),
      stage_(group_, std::move(registered)),
      queue_([this](const std::string& name, const OperationQueue::Body& body) { return perform(name, body); }) {}

HostCore::~HostCore() { close(); }

Handle HostCore::submit(std::string name, const OperationMark& mark, OperationQueue::Body body) {
  auto give_up = [core = weak_from_this()](const Error& error) {
    if (const auto alive = core.lock()) alive->group().fail(error);
  };
  auto operation = std::make_shared<Operation>(std::move(name), signal_, std::move(give_up));
  if (group_.size() == 1) {
    operation->complete(perform(operation->name(), body));
  } else {
    OperationMark numbered = mark;
    if (mark.kind != OperationMark::kMessage) numbered.sequence = ++num_collectives_;
    queue_.push(operation, [this, numbered, body = std::move(body)]() -> Result<void> {
      group_.set_current(numbered);
      transport_.begin(numbered);
      stage_.begin(numbered);
      Result<void> result = body();
      // After an error it still tells what it was doing.
      if (result) group_.set_current({});
      return result;
    });
  }
  return Handle(operation);
}

Result<void> HostCore::perform(const std::string& name, const OperationQueue::Body& body) {
  if (group_.failed()) return group_.error();
  Result<void> result = guard("collective", body);
  if (result) return result;
  // The first reason to fail is the one to report: a peer's loss explains the deadline that passed here, too.
  Error error = std::move(result).error();
  error.message = name + ": " + error.message;
  group_.fail(std::move(error));
  return group_.error();
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
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true;
  }
  if (queue_.pending())
    group_.fail({ErrorCode::Aborted, "the communicator was destroyed with operations pending", "", "", "", ""});
  queue_.stop();
  if (!group_.failed()) group_.farewell();
}

}  // namespace coxswain::collective
