#pragma once
// Step time of a recipe: a block's passes on one device (C40-C47), blocks to stages and stages to a pipeline (C48), and
// what data parallelism and the update add (C49-C52). Threads: pure. Source: docs/cost_model.md, C40-C52.
#include "collective/algorithm.h"
#include "common/result.h"
#include "cost_model/efficiency.h"
#include "cost_model/recipe.h"

namespace coxswain::cost_model {

/// One block and one micro-batch on one device.
struct RecipeBlock {
  Seconds forward{0}, backward{0};                     // backward with recompute; both with what they wait for
  Seconds head{0};                                     // logits and loss, both passes
  Seconds tensor{0};                                   // of `forward`: tensor-parallel collectives
  double dense_parameters = 0, expert_parameters = 0;  // held by the device, before ZeRO
};
/// C40-C47.
[[nodiscard]] RecipeBlock estimate_recipe_block(const TransformerShape& shape, const Recipe& recipe,
                                                const RecipeMachine& machine, const Efficiency& efficiency);

/// C49: a ring over `ranks` of which `near` consecutive ones lie in one domain.
[[nodiscard]] Seconds estimate_domain_ring(collective::CollectiveKind kind, double payload_bytes, double ranks,
                                           double near, const RecipeMachine& machine, const Efficiency& efficiency);

struct RecipeTime {
  Seconds step{0};
  Seconds stage{0};      // the busiest stage's time for a micro-batch
  Seconds bubble{0};     // fill and drain
  Seconds gradients{0};  // reductions and gathers that the passes do not hide
  Seconds update{0};
};
/// C48-C52. Errors: InvalidArgument for a shape, degree or rate that is not positive; all of them.
[[nodiscard]] Result<RecipeTime> estimate_recipe(const TransformerShape& shape, const Recipe& recipe,
                                                 const RecipeMachine& machine, const Efficiency& efficiency);

}  // namespace coxswain::cost_model
