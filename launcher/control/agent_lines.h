#pragma once
// The coordinator's conversations with its agents: which connection is which agent's, what it sent that is new, and
// what has to reach it, over one connection or several. Agents are numbered in the order in which they first came.
// Called by coordinator_process.cpp. Threads: open and close from the server's, everything else from one.
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/control/coordinator_input.h"
#include "launcher/control/liveness.h"
#include "launcher/control/mailbox.h"
#include "proto/channel.h"

namespace coxswain::launcher {

class AgentLines {
 public:
  explicit AgentLines(double silence_seconds = limits::kSilence) : silence_seconds_(silence_seconds) {}

  /// A connection and its number. It lives until close.
  int open(proto::Stream& stream);
  void close(int line);

  /// What came over a connection, as inputs, in order; none: nothing new (a heartbeat, what was taken before, an agent
  /// that is back). Those of one envelope become safe together.
  std::vector<Input> receive(int line, std::string_view envelope, TimePoint now);
  /// A connection ended; its agent has a moment to come back, unless it was silent. One that said it was about to hang
  /// up lives, and has longer.
  void ended(int line, TimePoint now);
  /// `input` is safe: the agent need not send it again. Also how agents are known after a restart.
  void took(const Input& input);
  /// Kept, once for all, until each of the agents took it.
  void send(const std::vector<int>& agents, std::string body);
  /// To all; connections that are silent are cut. Call every limits::kHeartbeat: a longer pause is this process's own,
  /// in which nobody was silent.
  void beat(TimePoint now);
  /// Agents that had time to come back and did not. Each is told once.
  std::vector<Input> not_back(TimePoint now);
  /// When not_back may have something to tell.
  [[nodiscard]] TimePoint next_look() const { return look_at_; }
  /// After a restart: all that are known come back until `at`.
  void expect_back(TimePoint at);
  /// By agent: its last report that is safe.
  [[nodiscard]] std::map<int, std::uint64_t> taken() const;
  void took(const StepsTaken& taken);
  /// That are not gone.
  [[nodiscard]] std::size_t num_agents() const;
  /// No connection is open and no agent is expected back.
  [[nodiscard]] bool all_hung_up();

 private:
  struct Agent {
    Mailbox mailbox;
    std::uint64_t heard = 0;  // number of its last report that came here, taken or about to be
    int line = -1;            // -1: none
    bool gone = false;
    std::optional<TimePoint> back_by;  // has no connection
    bool expected = false;             // after a restart, and not seen yet
    std::string why;                   // it is taken for lost, if it does not come back
    bool doubts = false;               // on this connection: it does not hear the coordinator
  };
  struct Line {
    int agent = 0;
    Silence silence;
  };
  std::vector<Input> greet(int line, std::string_view envelope, TimePoint now);
  void took_report(int number, std::uint64_t report);
  void took_gone(Agent& agent);
  void post(int line, std::string envelope);
  void post_all(int number);

  const double silence_seconds_;
  std::mutex mutex_;  // guards streams_ and next_line_
  std::map<int, proto::Stream*> streams_;
  int next_line_ = 0;
  std::map<int, Line> lines_;         // of agents that said hello
  std::map<int, Agent> agents_;       // by number
  std::map<std::string, int> known_;  // agent_id -> number
  int next_agent_ = 0;
  TimePoint look_at_ = TimePoint::max();  // at agents that are away: none has to be back sooner
  OwnPause pause_;                        // between beats
};

}  // namespace coxswain::launcher
