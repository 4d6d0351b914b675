#pragma once
// How often to save where the job does not say. Young's first-order optimum balances the time that a checkpoint takes
// with the work that a failure loses: sqrt(2 x stall x mean time between failures). Called by coordinator. Threads:
// pure. Source: Young 1974, "A first order approximation to the optimum checkpoint interval", CACM 17(9).
#include "common/units.h"

namespace coxswain::launcher {

struct SaveCosts {
  Seconds stall{0};    // that a step waits for the copy
  Seconds written{0};  // until the last rank has written
};

/// `failures` within `elapsed`; before there were any, one in `kAssumedFailure` is expected.
/// Never so often that more than `kMostStall` of the time goes into waiting, nor that the disk has no pause.
inline constexpr Seconds kAssumedFailure{6 * 3600.0};
inline constexpr double kMostStall = 0.01;
[[nodiscard]] Seconds save_interval(const SaveCosts& costs, Seconds elapsed, int failures);

}  // namespace coxswain::launcher
