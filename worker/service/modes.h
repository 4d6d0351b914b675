#pragma once
// What a worker does with its assignment. Each reports through the link and returns when it is done.
// Errors: of engine, executor and collective; the caller reports them. Threads: the main thread.
#include <string>

#include "worker/service/agent_link.h"
#include "worker/service/assignment.h"

namespace coxswain::worker {

[[nodiscard]] Result<void> run_training(AgentLink& link, const Assignment& assignment, const std::string& job_key);
[[nodiscard]] Result<void> run_measuring(AgentLink& link, const Assignment& assignment, const std::string& job_key);
[[nodiscard]] Result<void> run_check(AgentLink& link, const Assignment& assignment);

}  // namespace coxswain::worker
