#pragma once
// Exit codes of INTERFACE section 1, and the one table from errors to them. Only `main` uses it.
#include "common/error.h"

namespace coxswain {

enum class ExitCode : int {
  Done = 0,
  Failed = 1,  // may be retried: a dead rank, agent or coordinator
  Usage = 64,
  BadInput = 65,      // job, plan, model or cluster file
  Infeasible = 69,    // no feasible plan
  MachineLacks = 71,  // port, permission, device share, disk, used run directory
  Stopped = 75,       // stopped on request
  Hopeless = 93,      // retrying cannot help
};

[[nodiscard]] ExitCode exit_code_for(ErrorCode code);

}  // namespace coxswain
