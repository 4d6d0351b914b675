#include "bench/support/fault_kinds.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace coxswain::bench {
namespace {

constexpr const char* kDied = "its agent died";
// Which of the two it is depends on who hangs up first.
constexpr const char* kDeaf = "its agent fell silent|its agent died";
// Without memory a rank may not even be able to say so; then there is its exit code (69) and the last line of its
// stderr.
constexpr const char* kNoMemory = "out of memory|allocate memory|exit 69|signal 6";

constexpr FaultKind kKinds[] = {
    {"coordinator-killed", Act::Signal, Victim::Coordinator, SIGKILL, "coordinator_restarted"},
    {"coordinator-aborted", Act::Signal, Victim::Coordinator, SIGABRT, "coordinator_restarted"},
    {"coordinator-stopped", Act::Signal, Victim::Coordinator, SIGSTOP, "coordinator_restarted"},
    {"rank-exception", Act::Throw, Victim::Rank, 0, "recovered", "an exception on purpose|signal 6"},
    {"rank-exit", Act::Exit, Victim::Rank, 0, "recovered", "exit 3"},
    {"rank-killed", Act::Signal, Victim::Rank, SIGKILL, "recovered", "signal 9"},
    {"rank-segfault", Act::Signal, Victim::Rank, SIGSEGV, "recovered", "signal 11"},
    {"rank-aborted", Act::Signal, Victim::Rank, SIGABRT, "recovered", "signal 6"},
    {"rank-terminated", Act::Signal, Victim::Rank, SIGTERM, "recovered", "signal 15"},
    {"rank-stopped", Act::Signal, Victim::Rank, SIGSTOP, "recovered", "stopped (SIGSTOP) for 3 s"},
    {"rank-out-of-memory", Act::LimitMemory, Victim::Rank, 0, "recovered", kNoMemory},
    {"rank-slow", Act::SlowRank, Victim::Rank, 0, ""},
    {"rank-then-coordinator", Act::Signal, Victim::Rank, SIGKILL, "recovered", nullptr, Victim::Coordinator},
    {"rank-then-rank", Act::Signal, Victim::Rank, SIGKILL, "recovered", nullptr, Victim::Rank},
    {"rank-then-node", Act::Signal, Victim::Rank, SIGKILL, "recovered", nullptr, Victim::Node},
    {"node-lost", Act::Signal, Victim::Node, SIGKILL, "recovered", kDied},
    {"agent-killed", Act::Signal, Victim::Agent, SIGKILL, "recovered", kDied},
    {"node-then-coordinator", Act::Signal, Victim::Node, SIGKILL, "recovered", nullptr, Victim::Coordinator},
    {"node-returns", Act::Signal, Victim::Node, SIGKILL, "recovered", kDied, Victim::None, true},
    {"network-cut", Act::CutNetwork, Victim::None, 0, "recovered", "its agent fell silent", Victim::None, false, true},
    {"network-half-open", Act::HalfOpen, Victim::None, 0, "recovered", kDeaf, Victim::None, false, true},
    {"link-slow", Act::SlowLink, Victim::None, 0, "", nullptr, Victim::None, false, true},
    {"disk-full", Act::FullDisk, Victim::None, 0, "checkpoint_failed", nullptr, Victim::None, false, true},
    {"checkpoint-flipped", Act::FlipCheckpoint, Victim::Rank, SIGKILL, "recovered", "signal 9"},
    {"checkpoint-torn", Act::TearCheckpoint, Victim::Rank, SIGKILL, "recovered", "signal 9"},
    {"clock-jumped", Act::JumpClock, Victim::None, 0, ""},
    {"run-stopped", Act::Stop, Victim::None, SIGTERM, ""},
    {"port-taken", Act::TakenPort, Victim::None, 0, "", nullptr, Victim::None, false, true},
    {"agent-duplicate", Act::DuplicateAgent, Victim::None, 0, "", nullptr, Victim::None, false, true},
};

bool needs_nodes(const FaultKind& kind) { return kind.apart || loses_node(kind) || kind.then == Victim::Node; }

[[noreturn]] void refuse(const std::string& name) {
  std::fprintf(stderr, "no such kind of fault: %s; there are:", name.c_str());
  for (const FaultKind& kind : kKinds) std::fprintf(stderr, " %s", kind.name);
  std::fprintf(stderr, "\n");
  std::exit(64);
}

}  // namespace

std::span<const FaultKind> all_fault_kinds() { return kKinds; }

bool loses_node(const FaultKind& kind) {
  return kind.victim == Victim::Node || kind.victim == Victim::Agent || kind.act == Act::CutNetwork ||
         kind.act == Act::HalfOpen;
}

std::vector<FaultKind> fault_kinds_of(const std::string& names, int num_nodes, bool apart) {
  std::vector<FaultKind> kinds;
  std::string left_out;
  std::stringstream words(names);
  for (std::string word; std::getline(words, word, ',');) {
    const bool known = word == "all" || std::any_of(std::begin(kKinds), std::end(kKinds),
                                                    [&](const FaultKind& kind) { return word == kind.name; });
    if (!known) refuse(word);
    for (const FaultKind& kind : kKinds) {
      if (word != "all" && word != kind.name) continue;
      const bool possible = (!needs_nodes(kind) || num_nodes > 1) && (!kind.apart || apart);
      if (possible)
        kinds.push_back(kind);
      else
        left_out += std::string(" ") + kind.name;
    }
  }
  if (!left_out.empty())
    std::printf("left out, since they need several nodes%s:%s\n", apart ? "" : " or nodes apart", left_out.c_str());
  if (kinds.empty()) refuse(names);
  return kinds;
}

}  // namespace coxswain::bench
