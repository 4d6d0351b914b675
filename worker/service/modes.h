#pragma once
// What a worker does with its assignment. Each reports through the link and returns when it is done.
// Errors: of engine, executor and collective; the caller reports them. Threads: the main thread.
#include <optional>
#include <string>

#include "worker/engine/engine.h"
#include "worker/service/agent_link.h"
#include "worker/service/assignment.h"

namespace coxswain::worker {

/// What this process keeps in memory of a step, and the generation that took the step.
struct KeptState {
  int generation = 0;
  std::int64_t num_elements = 0;  // of all parameters that the run trains
  HeldState state;
};

/// `kept`: of the generation before, if this process served it; then of this one, where it ended by the loss of a peer
/// at a step that this rank has told.
[[nodiscard]] Result<void> run_training(AgentLink& link, const Assignment& assignment, const std::string& job_key,
                                        std::optional<KeptState>& kept);
[[nodiscard]] Result<void> run_measuring(AgentLink& link, const Assignment& assignment, const std::string& job_key);
[[nodiscard]] Result<void> run_check(AgentLink& link, const Assignment& assignment);

}  // namespace coxswain::worker
