#include "launcher/control/save_interval.h"

#include <algorithm>
#include <cmath>

namespace coxswain::launcher {
namespace {

// Below this a checkpoint is no burden, and more of them are of no use.
constexpr double kLeastSeconds = 10;

}  // namespace

Seconds save_interval(const SaveCosts& costs, Seconds elapsed, int failures) {
  const double between = (elapsed.value + kAssumedFailure.value) / (failures + 1);
  const double young = std::sqrt(2 * costs.stall.value * between);
  return Seconds(std::max({young, costs.stall.value / kMostStall, 2 * costs.written.value, kLeastSeconds}));
}

}  // namespace coxswain::launcher
