#include "launcher/rest/node_pool.h"

#include <algorithm>
#include <utility>

#include "launcher/control/liveness.h"

namespace coxswain::launcher {

bool NodePool::ask(NodeReport report, double wait_seconds, Answer answer) {
  Due due;
  {
    const std::lock_guard lock(mutex_);
    if (nodes_.size() >= kMost && !nodes_.contains(report.name)) return false;
    const TimePoint now = clock_.now();
    Node& node = nodes_[report.name];
    if (node.answer) due.emplace_back(std::exchange(node.answer, nullptr), NodeAnswer{});  // it asks anew
    if (report.job.empty() && !node.report.job.empty()) node.back_at = now;
    node.silent_at = after(now, kSilenceSeconds);
    node.report = std::move(report);
    if (!node.report.job.empty() || closed_) {
      const bool is_over = !closed_ && (!run_ || run_->job != node.report.job);
      due.emplace_back(std::move(answer), NodeAnswer{std::nullopt, is_over});
    } else {
      node.waits_since = now;
      node.answer_by = after(now, std::min(wait_seconds, kMostWaitSeconds));
      node.answer = std::move(answer);
      call_waiting(due);
      if (node.answer && node.answer_by <= now) due.emplace_back(std::exchange(node.answer, nullptr), NodeAnswer{});
    }
  }
  answer_all(std::move(due));
  return true;
}

bool NodePool::leave(const std::string& name) {
  Due due;
  {
    const std::lock_guard lock(mutex_);
    const auto found = nodes_.find(name);
    if (found == nodes_.end()) return false;
    if (found->second.answer) due.emplace_back(std::move(found->second.answer), NodeAnswer{});
    nodes_.erase(found);
    call_waiting(due);
  }
  answer_all(std::move(due));
  return true;
}

void NodePool::begin(RunCall run, int most) {
  Due due;
  {
    const std::lock_guard lock(mutex_);
    run_ = std::move(run);
    most_ = most;
    call_waiting(due);
  }
  answer_all(std::move(due));
}

void NodePool::end() {
  const std::lock_guard lock(mutex_);
  run_.reset();
}

void NodePool::look() {
  Due due;
  {
    const std::lock_guard lock(mutex_);
    const TimePoint now = clock_.now();
    std::erase_if(nodes_, [&](const auto& named) {
      const Node& node = named.second;
      return !node.answer && now >= node.silent_at;
    });
    call_waiting(due);
    for (auto& [name, node] : nodes_) {
      if (!node.answer || now < node.answer_by) continue;
      due.emplace_back(std::exchange(node.answer, nullptr), NodeAnswer{});
    }
  }
  answer_all(std::move(due));
}

void NodePool::close() {
  Due due;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    for (auto& [name, node] : nodes_)
      if (node.answer) due.emplace_back(std::exchange(node.answer, nullptr), NodeAnswer{});
  }
  answer_all(std::move(due));
}

int NodePool::num_waiting() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(
      std::count_if(nodes_.begin(), nodes_.end(), [](const auto& named) { return named.second.answer != nullptr; }));
}

std::vector<NodeReport> NodePool::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<NodeReport> reports;
  for (const auto& [name, node] : nodes_) reports.push_back(node.report);
  return reports;
}

/// Those that waited longest first.
void NodePool::call_waiting(Due& due) {
  if (!run_ || closed_) return;
  const TimePoint now = clock_.now();
  auto room = most_ - std::count_if(nodes_.begin(), nodes_.end(),
                                    [this](const auto& named) { return named.second.report.job == run_->job; });
  std::vector<Node*> waiting;
  for (auto& [name, node] : nodes_) {
    if (node.last_job != run_->job) node.calls = 0;
    const bool too_soon = node.calls > 0 && node.back_at && now < after(*node.back_at, kAgainSeconds);
    if (node.answer && !too_soon && node.calls < kMostCalls) waiting.push_back(&node);
  }
  std::stable_sort(waiting.begin(), waiting.end(),
                   [](const Node* a, const Node* b) { return a->waits_since < b->waits_since; });
  for (Node* node : waiting) {
    if (room-- <= 0) return;
    node->report.job = node->last_job = run_->job;
    ++node->calls;
    node->silent_at = after(now, kCalledSeconds);
    due.emplace_back(std::exchange(node->answer, nullptr), NodeAnswer{run_, false});
  }
}

void NodePool::answer_all(Due due) {
  for (auto& [answer, what] : due) answer(std::move(what));
}

}  // namespace coxswain::launcher
