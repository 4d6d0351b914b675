#include "worker/engine/step_filter.h"

#include <limits>

namespace coxswain::worker {

bool StepFilter::accept(bool finite) {
  if (!finite) {
    ++num_skipped_;
    ++skipped_in_a_row_;
    good_steps_ = 0;
    if (scales_) scale_ /= 2;
    return false;
  }
  skipped_in_a_row_ = 0;
  if (scales_ && ++good_steps_ == kGrowthInterval) {
    good_steps_ = 0;
    // The seed of backward is a float32 tensor.
    if (scale_ * 2 <= static_cast<double>(std::numeric_limits<float>::max())) scale_ *= 2;
  }
  return true;
}

}  // namespace coxswain::worker
