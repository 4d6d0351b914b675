#pragma once
// Measures how fast another node is reached while this one works: MeasureLink commands, each in a thread, since a dead
// node takes seconds to be found out. Called by the agent's process. Threads: take and destructor from one; `report` is
// called from another.
#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include "proto/channel.h"

namespace coxswain::launcher {

class LinkProbe {
 public:
  /// Gets a serialised AgentReport.
  using Report = std::function<void(std::string)>;
  LinkProbe(proto::Secret secret, Report report) : secret_(std::move(secret)), report_(std::move(report)) {}

  /// A serialised AgentCommand; false: it is not one for it. One at a time: a second one ends the first, as the
  /// destructor does: at once, or after the seconds that a connection to a dead node may take. It then reports nothing.
  bool take(std::string_view command);

 private:
  proto::Secret secret_;
  Report report_;
  std::jthread thread_;
};

}  // namespace coxswain::launcher
