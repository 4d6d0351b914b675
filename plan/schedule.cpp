#include "plan/schedule.h"

#include <algorithm>

#include "common/ensure.h"

namespace coxswain::plan {
namespace {

/// What stage s of p does while it waits: forwards before the first backward, and how many backwards later each weight
/// gradient comes (never where the backward is whole).
struct Shape {
  std::int64_t warmup = 0, lag = 0;
};

// GPipe is 1F1B whose warmup takes every micro-batch. In 1F1B stage s runs ahead by the p - 1 - s micro-batches that
// are on their way through later stages, then alternates; so it never holds more than p - s of them:
//   stage 0: F0 F1 F2 B0 F3 B1 B2 B3
//   stage 1: F0 F1 B0 F2 B1 F3 B2 B3
//   stage 2: F0 B0 F1 B1 F2 B2 F3 B3
// H1 splits B and lets W come s backwards later, so that a gradient reaches stage 0 sooner and every stage holds p:
//   stage 0: F0 F1 F2 I0 W0 F3 I1 W1 I2 W2 I3 W3
//   stage 1: F0 F1 I0 F2 I1 W0 F3 I2 W1 I3 W2 W3
//   stage 2: F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3
// H2 runs ahead twice as far and lets W come twice as late: each stage is busy from its first forward to its last W,
// at 2p - 1 micro-batches. Source: Qi et al., "Zero Bubble Pipeline Parallelism", ICLR 2024, section 2.
Shape shape_of(ScheduleKind kind, int stage, int num_stages, std::int64_t count) {
  const std::int64_t behind = num_stages - 1 - stage;
  switch (kind) {
    case ScheduleKind::GPipe: return {count, 0};
    case ScheduleKind::OneForwardOneBackward: return {behind, 0};
    case ScheduleKind::ZeroBubbleH1: return {behind, stage};
    case ScheduleKind::ZeroBubbleH2: return {2 * behind, 2 * std::int64_t{stage}};
    default: break;
  }
  COX_ENSURE(false, to_text(kind));
  return {};
}

}  // namespace

bool splits_backward(ScheduleKind kind) {
  return kind == ScheduleKind::ZeroBubbleH1 || kind == ScheduleKind::ZeroBubbleH2 || kind == ScheduleKind::ZeroBubbleV;
}

std::vector<Action> make_schedule(ScheduleKind kind, int stage, int num_stages, int num_micro_batches) {
  COX_ENSURE(0 <= stage && stage < num_stages && num_micro_batches >= 1, stage, num_stages, num_micro_batches);
  const Shape shape = shape_of(kind, stage, num_stages, num_micro_batches);
  const bool split = splits_backward(kind);
  const int warmup = static_cast<int>(std::min<std::int64_t>(shape.warmup, num_micro_batches));
  const int lag = static_cast<int>(std::min<std::int64_t>(shape.lag, num_micro_batches));
  std::vector<Action> actions;
  actions.reserve(static_cast<std::size_t>((split ? 3 : 2) * num_micro_batches));
  for (int m = 0; m < warmup; ++m) actions.push_back({ActionKind::Forward, m});
  for (int m = 0; m < num_micro_batches; ++m) {
    if (m + warmup < num_micro_batches) actions.push_back({ActionKind::Forward, m + warmup});
    actions.push_back({split ? ActionKind::BackwardInput : ActionKind::Backward, m});
    if (split && m >= lag) actions.push_back({ActionKind::BackwardWeight, m - lag});
  }
  for (int m = num_micro_batches - lag; split && m < num_micro_batches; ++m)
    actions.push_back({ActionKind::BackwardWeight, m});
  return actions;
}

int peak_in_flight(ScheduleKind kind, int stage, int num_stages, std::int64_t num_micro_batches) {
  const Shape shape = shape_of(kind, stage, num_stages, num_micro_batches);
  return static_cast<int>(std::min(shape.warmup + shape.lag + 1, num_micro_batches));
}

}  // namespace coxswain::plan
