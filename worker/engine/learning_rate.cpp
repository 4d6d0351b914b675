#include "worker/engine/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace coxswain::worker {

double learning_rate_of(const OptimizerSettings& optimizer, std::int64_t step, std::int64_t num_steps) {
  const double peak = optimizer.learning_rate;
  const std::int64_t warmup = optimizer.warmup_steps;
  if (step <= warmup) return peak * static_cast<double>(step) / static_cast<double>(warmup);
  if (optimizer.decay == "constant" || num_steps <= warmup) return peak;
  const double progress = std::min(1.0, static_cast<double>(step - warmup) / static_cast<double>(num_steps - warmup));
  const double cosine = (1 + std::cos(std::numbers::pi * progress)) / 2;
  return peak * (optimizer.min_ratio + (1 - optimizer.min_ratio) * cosine);
}

}  // namespace coxswain::worker
