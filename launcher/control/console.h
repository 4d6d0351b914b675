#pragma once
// A step as people and programs read it: the console line with predicted beside measured, the object of metrics.jsonl.
// Threads: one. Source: INTERFACE section 3.
#include <string>
#include <vector>

#include "cluster/resource_graph.h"
#include "common/json.h"
#include "launcher/control/step_row.h"
#include "plan/estimate.h"

namespace coxswain::launcher {

/// What was predicted for the plan that runs, and what turns seconds into rates.
struct Prediction {
  double step_seconds = 0;
  double model_flops_utilization = 0;
  std::vector<std::int64_t> peak_memory_bytes;  // by rank
  std::int64_t tokens_per_step = 0;
};
[[nodiscard]] Prediction make_prediction(const plan::Estimate& estimate, int num_ranks, std::int64_t tokens_per_step);

[[nodiscard]] Json metrics_object(const StepRow& row, const Prediction& prediction);
/// A `step_skipped` event in words: what was not finite, on which rank.
[[nodiscard]] std::string skip_line(const Json& event);
/// A `calibrated` event in words.
[[nodiscard]] std::string calibration_line(const Json& event);
[[nodiscard]] std::string console_header();
[[nodiscard]] std::string console_line(const StepRow& row, const Prediction& prediction);

/// "1.23 GiB" or "45.6 MiB"; the devices and links in one line; for the lines before the first step.
[[nodiscard]] std::string memory_text(std::int64_t bytes);
[[nodiscard]] std::string describe_cluster(const cluster::ResourceGraph& resources);

}  // namespace coxswain::launcher
