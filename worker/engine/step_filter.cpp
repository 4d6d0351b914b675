#include "worker/engine/step_filter.h"

#include <limits>

namespace coxswain::worker {

bool StepFilter::accept(bool finite) {
  if (!finite) {
    ++state_.num_skipped;
    ++state_.skipped_in_a_row;
    state_.good_steps = 0;
    if (scales_) state_.scale /= 2;
    return false;
  }
  state_.skipped_in_a_row = 0;
  if (scales_ && ++state_.good_steps == kGrowthInterval) {
    state_.good_steps = 0;
    // The seed of backward is a float32 tensor.
    if (state_.scale * 2 <= static_cast<double>(std::numeric_limits<float>::max())) state_.scale *= 2;
  }
  return true;
}

void StepFilter::restore(const State& state) {
  const double scale = scales_ ? state.scale : 1.0;
  state_ = state;
  state_.scale = scale;
}

namespace {

constexpr const char* kHint =
    "lower optimizer.learning_rate, clip gradients (optimizer.clip_grad_norm), or look at the data";

std::string saw_text(const std::string& what, std::int64_t step, int rank) {
  return what + " not finite at step " + std::to_string(step) + " on rank " + std::to_string(rank);
}

}  // namespace

Error StepFilter::stopped(const std::string& what, std::int64_t step, int rank, double value) {
  return Error{ErrorCode::Internal, saw_text(what, step, rank), "step " + std::to_string(step),
               "a finite number",   std::to_string(value),      kHint};
}

Error StepFilter::too_many(const std::string& what, std::int64_t step, int rank) const {
  return Error{what.empty() ? ErrorCode::Aborted : ErrorCode::Internal,
               std::to_string(kMaxSkipped) + " steps in a row were skipped; the last: " +
                   (what.empty() ? "step " + std::to_string(step) : saw_text(what, step, rank)),
               "step " + std::to_string(step),
               "a finite loss and finite gradients",
               scales_ ? "loss scale " + std::to_string(state_.scale) : "",
               std::string(kHint) + "; under float16 try precision: bfloat16, which has float32's range"};
}

}  // namespace coxswain::worker
