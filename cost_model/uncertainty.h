#pragma once
// How well a profile knows the step of a plan: what C12 leaves open of its measured blocks. Called by the launcher.
// Threads: pure. Source: docs/cost_model.md, C12.
#include "cost_model/cost_model.h"

namespace coxswain::cost_model {

struct Uncertainty {
  double step_fraction = 0;  // of the compute of the rank that is known least
  int num_blocks = 0;        // distinct pairs of block and samples of a device class that the plan runs
  int num_interpolated = 0;  // of them, measured with other numbers of samples only
};
/// `cost` was made with `profile`. Blocks without an entry count as known: nothing is said of the roofline.
[[nodiscard]] Uncertainty estimate_uncertainty(const CostModel& cost, const cluster::Profile& profile,
                                               const plan::Plan& plan);

}  // namespace coxswain::cost_model
