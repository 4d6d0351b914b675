#include <algorithm>

#include "common/ensure.h"
#include "plan/program.h"

namespace coxswain::plan {
namespace {

Action forward(int micro_batch) { return {ActionKind::Forward, micro_batch}; }
Action backward(int micro_batch) { return {ActionKind::Backward, micro_batch}; }

}  // namespace

std::vector<Action> make_schedule(ScheduleKind kind, int stage, int num_stages, int num_micro_batches) {
  COX_ENSURE(0 <= stage && stage < num_stages && num_micro_batches >= 1, stage, num_stages, num_micro_batches);
  COX_ENSURE(kind == ScheduleKind::GPipe || kind == ScheduleKind::OneForwardOneBackward, to_text(kind));
  // GPipe is 1F1B whose warmup takes every micro-batch. In 1F1B stage s runs ahead by the num_stages - 1 - s
  // micro-batches that are on their way through later stages, then alternates; so it never holds more than num_stages -
  // s of them:
  //   stage 0: F0 F1 F2 B0 F3 B1 B2 B3
  //   stage 1: F0 F1 B0 F2 B1 F3 B2 B3
  //   stage 2: F0 B0 F1 B1 F2 B2 F3 B3
  const int warmup =
      kind == ScheduleKind::GPipe ? num_micro_batches : std::min(num_stages - 1 - stage, num_micro_batches);
  std::vector<Action> actions;
  actions.reserve(static_cast<std::size_t>(2 * num_micro_batches));
  for (int m = 0; m < warmup; ++m) actions.push_back(forward(m));
  for (int m = warmup; m < num_micro_batches; ++m) {
    actions.push_back(forward(m));
    actions.push_back(backward(m - warmup));
  }
  for (int m = num_micro_batches - warmup; m < num_micro_batches; ++m) actions.push_back(backward(m));
  return actions;
}

}  // namespace coxswain::plan
