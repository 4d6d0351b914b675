#pragma once
// The zero-bubble contest: forward, input-gradient and weight-gradient work of every micro-batch in an order for every
// device, with the shortest longest span under a memory limit. The schedules are plan/'s own; this file only reads the
// instance and writes the answer. Called by the list of families. Threads: pure.
// Source: Qi et al., "Zero Bubble Pipeline Parallelism", ICLR 2024.
#include <filesystem>

#include "plan/zero_bubble.h"
#include "planner/problems/contest.h"

namespace coxswain::planner {

struct ZeroBubbleInstance {
  plan::ZeroBubbleProblem problem;
};

/// Errors: InvalidArgument, every problem listed.
[[nodiscard]] Result<ZeroBubbleInstance> parse_zero_bubble(const Json& json, const std::filesystem::path& file);

/// The answer's lists are texts: "F0 B0 W0", or "F0.1" with the chunk where there are two. The score is the longest
/// span in the instance's unit of time. Errors: as plan::make_zero_bubble_schedule.
[[nodiscard]] Result<ContestAnswer> solve_zero_bubble(const ZeroBubbleInstance& instance,
                                                      const ContestOptions& options);

[[nodiscard]] Result<ContestSolver> load_zero_bubble(const Json& instance, const std::filesystem::path& file);

}  // namespace coxswain::planner
