#pragma once
// run_train's side of its two children: starts coordinator and local agent, shows what the coordinator tells, passes
// signals on, and leaves neither behind. Threads: the main thread.
#include <filesystem>
#include <optional>

#include "common/json.h"
#include "common/result.h"
#include "launcher/control/local_start.h"

namespace coxswain::launcher {

struct Followed {
  JsonObject outcome;  // what the coordinator told last
  std::optional<Error> error;
  int signal = 0;  // ended on request by this signal
};

/// Blocks until the run is over and both children are gone.
/// Errors: FailedPrecondition (a child cannot be started). How the run itself ended is in Followed.
[[nodiscard]] Result<Followed> start_and_follow(const CoordinatorStart& coordinator, AgentStart agent);

}  // namespace coxswain::launcher
