#pragma once
// Two plans side by side: by which part of the step they differ most, and which difference of layout stands behind it.
// Private to planner/; used by reasons (families) and explain --against. Threads: pure.
#include <string>
#include <utility>
#include <vector>

#include "planner/explain.h"

namespace coxswain::planner {

/// Forward, backward, recompute, communication exposed, bubble, optimizer; they add up to the step.
[[nodiscard]] std::vector<std::pair<std::string, Seconds>> parts_of(const plan::Estimate& estimate);

/// By how much they tell the plans apart, largest first.
[[nodiscard]] std::vector<PartDifference> part_differences(const plan::Estimate& ours, const plan::Estimate& other);

/// "mostly by bubble (1.20 ms -> 3.40 ms)": the part that explains most of the difference, in its direction. Empty for
/// equal steps.
[[nodiscard]] std::string main_difference(const std::vector<PartDifference>& differences, bool other_is_slower);

/// What is laid out otherwise, as sentences about the other plan ("it pipelines over tcp where this one pipelines over
/// shared-memory"), those that can explain `part` first.
[[nodiscard]] std::vector<std::string> layout_differences(const cost_model::CostModel& cost, const plan::Plan& ours,
                                                          const plan::Plan& other, const std::string& part);

}  // namespace coxswain::planner
