#pragma once
// Corrects the cost model from one run: what its metrics measured over what its plan predicted, as one factor of time
// and one of memory a device class. Called by `launch plan --calibrate`. Threads: pure. Source: docs/cost_model.md,
// C63, C64.
#include <string>
#include <string_view>
#include <vector>

#include "cost_model/cost_model.h"

namespace coxswain::cost_model {

struct ClassCalibration {
  std::string device;
  double time_ratio = 1;    // measured over predicted, of compute
  double memory_ratio = 1;  // of what blocks keep
  bool ran = false;         // false: the run had none of it, so nothing is known
};

struct Calibration {
  std::vector<ClassCalibration> classes;  // as resources.device_classes
  std::int64_t first_step = 0, last_step = 0;
  Seconds measured{0}, predicted{0};  // medians of the step
  std::vector<std::string> notes;     // what was corrected and by how much, one line each
};

/// From metrics.jsonl (INTERFACE section 3): medians over steps 5 and later of its last generation. `plan_file`:
/// plan-GENERATION.json of the run ("plan" and "estimate"), or null: then every class is corrected alike and exposed
/// communication as if it were compute. Errors: InvalidArgument with all problems, each with its line.
[[nodiscard]] Result<Calibration> read_calibration(const cluster::ResourceGraph& resources, std::string_view metrics,
                                                   const Json* plan_file);

/// The generation that read_calibration looks at: the last line's; 0 where it cannot be read.
[[nodiscard]] std::int64_t last_generation(std::string_view metrics);

/// `base` with its block times, updates and overheads times the class's time_ratio, and what blocks keep times its
/// memory_ratio. `base` is borrowed.
[[nodiscard]] std::unique_ptr<CostModel> make_calibrated_cost(const CostModel& base, const Calibration& calibration);

}  // namespace coxswain::cost_model
