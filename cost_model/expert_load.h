#pragma once
// How much more than the mean the busiest device of an expert axis works: assumed, or from what the profile saw the
// model's own routers choose. Called by roofline, mesh_times and the production model. Threads: pure.
// Source: docs/cost_model.md, C32.

namespace coxswain::cost_model {

/// Without a profile. Assumed: routers are trained with a balance loss, and systems give each expert 1.25 times its
/// even share before they drop tokens (Fedus et al. 2022, Switch Transformers, capacity factor of table 1).
inline constexpr double kExpertImbalance = 1.25;

/// C32: `places` devices hold `experts` in equal parts, whose loads have the coefficient of variation `load_cv`
/// (standard deviation over mean). Expected load of the busiest place over the mean: loads as normal, the greatest of
/// them by Blom's approximation. 1 for one place. Requires: 1 <= places <= experts, load_cv >= 0.
[[nodiscard]] double expected_imbalance(int experts, int places, double load_cv);

}  // namespace coxswain::cost_model
