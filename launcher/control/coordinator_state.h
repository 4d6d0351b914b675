#pragma once
// What the coordinator keeps of a rank and of a node. Shared by the files that implement it: coordinator.cpp (who is
// there, what runs), coordinator_joining.cpp (nodes that come for the first time), coordinator_saves.cpp (checkpoints),
// coordinator_recovery.cpp (failures, and how a run goes on), coordinator_growth.cpp (nodes that come back, and the
// move to a plan with more nodes). Threads: one.
#include <string>
#include <string_view>

#include "launcher/control/coordinator.h"

namespace coxswain::control {
class AgentHello;
}

namespace coxswain::launcher {

/// The event of a step that was skipped.
[[nodiscard]] Json skip_event(const StepRow& row);

/// Empty where `bytes` are none.
[[nodiscard]] control::AgentHello parse_hello(std::string_view bytes);

// How many are what they are is counted: a report may not cost a look at all of them.
struct Coordinator::Rank {
  std::string address;
  bool ready = false, finished = false;
  std::string stalled;  // what it waits for; empty: it goes on
};

struct Coordinator::Node {
  int agent = 0, node_rank = -1;
  std::string host, hello, files_address;
  bool gone = false, running = false;
};

}  // namespace coxswain::launcher
