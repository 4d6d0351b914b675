#pragma once
// A worker from its start to its exit code: finds its agent and key, gets its assignment, works, tells how it ended.
// Called by main. Threads: the main thread.
#include <string>

#include "common/exit_code.h"

namespace coxswain::worker {

/// `agent`: "unix:/path" of the agent's socket. The key comes by descriptor COX_KEY_FD or, under mpirun, from file
/// COX_KEY_FILE; the rank from RANK or OMPI_COMM_WORLD_RANK.
[[nodiscard]] ExitCode run_worker(const std::string& agent);

}  // namespace coxswain::worker
