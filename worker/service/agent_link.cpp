#include "worker/service/agent_link.h"

#include <unistd.h>

#include <algorithm>

#include "common/ensure.h"
#include "common/thread_name.h"
#include "proto/control.pb.h"

namespace coxswain::worker {
namespace {

constexpr double kFinishSeconds = 2.0;

Error agent_gone() { return {ErrorCode::Unavailable, "the agent is gone", "", "", "", ""}; }

}  // namespace

Result<std::unique_ptr<AgentLink>> AgentLink::connect(const std::string& target, const std::string& key, int rank,
                                                      Deadline deadline) {
  COX_TRY(auto stream, proto::connect(target, proto::Service::Agent, {key, false}, deadline));
  std::unique_ptr<AgentLink> link(new AgentLink(std::move(stream)));
  control::WorkerReport report;
  report.mutable_hello()->set_rank(rank);
  report.mutable_hello()->set_pid(::getpid());
  link->report(report);
  return link;
}

AgentLink::AgentLink(std::unique_ptr<proto::Stream> stream)
    : stream_(std::move(stream)), reader_([this] { read_commands(); }) {}

AgentLink::~AgentLink() {
  {
    const std::lock_guard lock(mutex_);
    finishing_ = true;
  }
  stream_->cancel();
  reader_.join();
}

void AgentLink::report(const control::WorkerReport& report) { stream_->send(report.SerializeAsString()); }

void AgentLink::read_commands() {
  name_thread("agent link");
  while (auto body = stream_->receive()) {
    control::WorkerCommand command;
    if (!command.ParseFromString(*body)) continue;
    // With what it does under one lock: a rank that parks in between would take it for the next assignment's.
    const std::lock_guard lock(mutex_);
    if (command.has_assignment()) parked_ = false;
    if (parked_) continue;
    if (command.has_abort()) abort_locked(command.abort());
    if (command.has_save()) {
      save_asked_ = true;
      if (command.save().stop()) stop_asked_ = true;
    }
    if (command.has_assignment()) assignment_ = std::move(*body);
    if (command.has_addresses())
      addresses_ =
          std::vector<std::string>(command.addresses().addresses().begin(), command.addresses().addresses().end());
    changed_.notify_all();
  }
  const std::lock_guard lock(mutex_);
  closed_ = true;
  if (!finishing_) abort_locked("the agent is gone");
  changed_.notify_all();
}

bool AgentLink::wait_abort(Deadline deadline) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline.at, [this] { return abort_reason_ || closed_; });
  return abort_reason_ && !closed_;
}

void AgentLink::park() {
  const std::lock_guard lock(mutex_);
  COX_ENSURE(watched_.empty());
  parked_ = true;
  assignment_.reset();
  addresses_.reset();
  abort_reason_.reset();
  save_asked_ = stop_asked_ = false;
}

void AgentLink::abort_locked(const std::string& reason) {
  if (!abort_reason_) abort_reason_ = reason;
  for (collective::Communicator* communicator : watched_) communicator->abort(reason);
  changed_.notify_all();
}

Result<std::string> AgentLink::wait_assignment(Deadline deadline) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_until(lock, deadline.at, [this] { return assignment_ || closed_; })) {
    return Error{ErrorCode::DeadlineExceeded, "the agent gives no assignment", "", "", "", ""};
  }
  if (!assignment_) {
    lock.unlock();
    if (auto status = stream_->status(); !status) return status.error();
    return agent_gone();
  }
  return *assignment_;
}

Result<std::vector<std::string>> AgentLink::wait_addresses(Deadline deadline) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_until(lock, deadline.at, [this] { return addresses_ || abort_reason_ || closed_; })) {
    return Error{ErrorCode::DeadlineExceeded, "not every rank came up", "", "", "", ""};
  }
  if (abort_reason_) return Error{ErrorCode::Aborted, *abort_reason_, "", "", "", ""};
  if (!addresses_) return agent_gone();
  return *addresses_;
}

void AgentLink::watch(collective::Communicator* communicator) {
  const std::lock_guard lock(mutex_);
  watched_.push_back(communicator);
  if (abort_reason_) communicator->abort(*abort_reason_);
}

void AgentLink::forget(collective::Communicator* communicator) {
  const std::lock_guard lock(mutex_);
  std::erase(watched_, communicator);
}

bool AgentLink::aborted() const {
  const std::lock_guard lock(mutex_);
  return abort_reason_.has_value();
}

void AgentLink::finish() {
  {
    const std::lock_guard lock(mutex_);
    finishing_ = true;
  }
  stream_->close();
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, Deadline::after(steady_clock(), Seconds(kFinishSeconds)).at, [this] { return closed_; });
}

}  // namespace coxswain::worker
