#pragma once
// Nodes of other machines that agents lend to this service: which of them wait, and which work for a run. An agent asks
// again and again; it is called once a run wants its node. One that is silent is forgotten, and its place is another's.
// Called by job_runner (runs) and jobs (agents). Threads: any.
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "common/clock.h"
#include "launcher/rest/node_report.h"

namespace coxswain::launcher {

/// A run that takes nodes: its coordinator listens there.
struct RunCall {
  std::string job;
  std::string host;  // empty: by the name that the agent knows the service by
  int port = 0;
  std::string token;  // of this run alone
};

struct NodeAnswer {
  std::optional<RunCall> run;  // that wants the node; none: ask again
  bool over = false;           // what the node works for is not under way any more
};

class NodePool {
 public:
  /// Called once, from any thread, with no lock of the pool's held.
  using Answer = std::function<void(NodeAnswer)>;

  explicit NodePool(const Clock& clock) : clock_(clock) {}

  /// A node that waits is answered when it is called, and after `wait_seconds` (at most kMostWaitSeconds) at the
  /// latest; one that works at once. False: there are kMost others; nothing is answered then.
  [[nodiscard]] bool ask(NodeReport report, double wait_seconds, Answer answer);
  /// False: not one of ours.
  [[nodiscard]] bool leave(const std::string& name);
  /// From now on nodes that wait are called, `most` of them at a time: one that is back from the run makes room, and is
  /// called again kMostCalls times at most, since the run may have refused it.
  /// Requires: no other run takes nodes.
  void begin(RunCall run, int most);
  void end();
  /// Answers those that waited long, forgets who is silent. Call about every second.
  void look();
  /// All that wait are told to ask again, and nobody is called any more.
  void close();

  [[nodiscard]] int num_waiting() const;
  /// By name.
  [[nodiscard]] std::vector<NodeReport> all() const;

  static constexpr std::size_t kMost = 200;
  static constexpr double kMostWaitSeconds = 20, kSilenceSeconds = 30;
  /// Until a node that was called says that it works.
  static constexpr double kCalledSeconds = 10;
  /// From a node's return to its next call by the same run.
  static constexpr double kAgainSeconds = 10;
  static constexpr int kMostCalls = 3;

 private:
  struct Node {
    NodeReport report;  // `job`: what it was called for, too
    TimePoint silent_at, waits_since, answer_by;
    Answer answer;  // none: it does not wait
    std::string last_job;
    int calls = 0;  // by that job
    std::optional<TimePoint> back_at;
  };
  /// What to answer once the lock is released.
  using Due = std::vector<std::pair<Answer, NodeAnswer>>;
  void call_waiting(Due& due);
  static void answer_all(Due due);

  const Clock& clock_;
  mutable std::mutex mutex_;
  std::map<std::string, Node> nodes_;
  std::optional<RunCall> run_;
  int most_ = 0;
  bool closed_ = false;
};

}  // namespace coxswain::launcher
