#pragma once
// An agent that joined a service: it says that its node is there until a run wants it, works for that run as
// `launch agent` does, in a process of its own, and says so again. Called by the command. Threads: one caller, the main
// thread, because its children end with it. Source: INTERFACE section 1, docs/service.md.
#include <filesystem>
#include <string>
#include <vector>

#include "common/exit_code.h"
#include "common/result.h"
#include "launcher/rest/service_client.h"

namespace coxswain::launcher {

struct JoinedNodeOptions {
  ServicePlace service;
  std::filesystem::path program;       // `launch`
  std::vector<std::string> arguments;  // of every `launch agent`, beside coordinator, token and folder
  std::filesystem::path run_dir;       // a folder for each run in it; empty: as `launch agent` does
  double join_timeout_seconds = 600;   // for the service's first answer
};

/// Until a signal, which ends the run as it would end `launch agent`; a second one kills it. The result is that run's;
/// Done where it waited.
/// Errors: Unavailable (the service never answered), PermissionDenied (a token that may not run jobs).
[[nodiscard]] Result<ExitCode> run_joined_node(const JoinedNodeOptions& options);

}  // namespace coxswain::launcher
