#pragma once
// Private to plan/: which policies the dispatcher is tried with. A policy is a choice for each of a few knobs; the best
// of some known starts is changed one knob at a time, then its order is improved by moves. Threads: pure.
#include <array>
#include <cstdint>

#include "plan/zero_bubble_dispatch.h"

namespace coxswain::plan {

inline constexpr int kNumKnobs = 12;
/// The choice of each knob, in the order of zero_bubble_search.cpp's tables.
using ZeroBubbleKnobs = std::array<int, kNumKnobs>;
[[nodiscard]] int num_choices(const ZeroBubblePipeline& pipeline, int knob);
/// Requires: choices below num_choices. `bound` is longest_span_bound, `best` the span to beat.
[[nodiscard]] ZeroBubblePolicy make_policy(const ZeroBubblePipeline& pipeline, const ZeroBubbleKnobs& knobs,
                                           Ticks bound, Ticks best);

struct StepSearch {
  StepLists lists;
  Ticks span = kNever;
  std::int64_t num_candidates = 0;
};
/// The best order found. Requires: the limit holds the sequential order.
[[nodiscard]] StepSearch search_steps(const ZeroBubblePipeline& pipeline, Ticks bound);

}  // namespace coxswain::plan
