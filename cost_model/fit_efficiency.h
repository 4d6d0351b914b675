#pragma once
// Fits the constants of the recipe model to measured steps. The error is that of the logarithm, near its absolute value
// so that outliers pull little; priors keep what no row speaks about. Deterministic: no random start, fixed order.
// Called by bench/cost_accuracy. Threads: pure. Source: docs/cost_model.md, C53.
#include <vector>

#include "cost_model/recipe_time.h"

namespace coxswain::cost_model {

struct MeasuredRecipe {
  TransformerShape shape;
  Recipe recipe;
  RecipeMachine machine;
  Seconds step{0};
  double weight = 1;
};

/// C53. Starts at `prior`, which is also the centre of the penalty; `sigma_scale` narrows (below 1) every width.
/// Rows that cannot be estimated are left out. Cost: O(iterations x constants x rows).
[[nodiscard]] Efficiency fit_efficiency(const std::vector<MeasuredRecipe>& rows, const Efficiency& prior,
                                        int max_iterations, double sigma_scale = 1);

}  // namespace coxswain::cost_model
