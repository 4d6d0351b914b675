#pragma once
// The learning rate of a step: linear warm-up, then cosine or constant. Called by the engine. Threads: pure.
// Source: DESIGN 3.7: lr s / w while s <= w, then lr (r + (1 - r)(1 + cos(pi (s - w) / (S - w))) / 2).
#include <cstdint>

#include "worker/settings.h"

namespace coxswain::worker {

/// Step `step` counts from 1; `num_steps` is S.
[[nodiscard]] double learning_rate_of(const OptimizerSettings& optimizer, std::int64_t step, std::int64_t num_steps);

}  // namespace coxswain::worker
