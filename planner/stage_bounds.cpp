#include "planner/stage_bounds.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "plan/schedule.h"
#include "planner/combination_bounds.h"

namespace coxswain::planner {
namespace {

/// Work of a block in a step on the replica that has most samples; 0 where replicas are of several kinds.
Cost block_time(const StageContext& context, int composition, int block) {
  const Composition& on = context.compositions[static_cast<std::size_t>(composition)];
  for (std::size_t p = 0; p < context.pools->size(); ++p) {
    if (on.units.of[p] == 0) continue;
    if (on.units.of[p] != on.units.total()) return 0;
    const std::int64_t samples = (context.micro + on.replicas() - 1) / on.replicas();
    const SampleTable& table = context.spans->table(on.kind(*context.pools, p), samples);
    const auto at = static_cast<std::size_t>(block);
    return context.count * (table.forward[at] + table.backward[at]);
  }
  return 0;
}

/// Stages of one composition.
class Kind {
 public:
  Kind(StageCosts& costs, int composition, std::int64_t most_stages, int first, int end)
      : costs_(costs), composition_(composition), most_stages_(most_stages), first_(first), end_(end) {
    holds_any_ = within(1, kNoCost - 1);
    // Where only an end of the pipeline has room for a block, nothing is known of waits.
    if (const StageCost* one = cheapest(std::max(first, 1), std::max(first, 1) + 1); one != nullptr) {
      forward_ = one->forward_min;
      backward_ = one->backward_min;
    }
    each_ = block_time(costs.context(), composition, std::max(first, 1));
  }

  [[nodiscard]] std::int64_t most_stages() const { return most_stages_; }
  /// Of one block, one micro-batch.
  [[nodiscard]] Ticks forward() const { return forward_; }
  [[nodiscard]] Ticks backward() const { return backward_; }

  /// Most blocks of the run that a stage holds and takes through the step within `time`.
  [[nodiscard]] int most_blocks(Cost time) {
    if (!holds_any_ || time <= 0) return 0;
    // More are too much work; mostly these fit.
    int most = end_ - first_;
    if (each_ > 0) most = static_cast<int>(std::min<Cost>(most, time / each_));
    if (most == 0 || within(most, time)) return most;
    int holds = 0;
    for (int too_many = most; too_many - holds > 1;) {
      const int middle = (holds + too_many) / 2;
      (within(middle, time) ? holds : too_many) = middle;
    }
    return holds;
  }

 private:
  /// Of a stage with so many blocks of the run, wherever it stands: inside the pipeline; with the model's begin, with
  /// its end, with both.
  bool within(int blocks, Cost time) {
    const int num_blocks = costs_.context().spans->num_blocks(), inside = std::max(first_, 1);
    if (inside + blocks <= std::min(end_, num_blocks - 1) && least_time(inside, inside + blocks) <= time) return true;
    if (least_time(0, first_ + blocks) <= time || least_time(end_ - blocks, num_blocks) <= time) return true;
    return blocks == end_ - first_ && least_time(0, num_blocks) <= time;
  }

  Cost least_time(int first, int end) {
    const auto [found, fresh] = least_.try_emplace({first, end}, kNoCost);
    if (!fresh) return found->second;
    if (const StageCost* one = cheapest(first, end); one != nullptr) found->second = time_of(*one);
    return found->second;
  }

  [[nodiscard]] Cost time_of(const StageCost& one) const {
    return costs_.context().count * one.busy + one.sync_last + one.optimizer;
  }

  /// Holding no more than one micro-batch. Null: does not fit.
  const StageCost* cheapest(int first, int end) {
    const StageChoices& choices = costs_.stage(first, end, composition_, {});
    const StageCost* least = nullptr;
    for (const StageCost& one : choices.fitting) {
      if (least == nullptr || time_of(one) < time_of(*least)) least = &one;
    }
    return least;
  }

  StageCosts& costs_;
  int composition_;
  std::int64_t most_stages_;
  int first_, end_;
  bool holds_any_ = false;
  Ticks forward_ = 0, backward_ = 0;
  Cost each_ = 0;                              // work of a block in a step, at least
  std::map<std::pair<int, int>, Cost> least_;  // by [first, end)
};

}  // namespace

StageBounds::StageBounds(const SearchSpace& space) : space_(space) {
  std::tie(first_, end_) = longest_run(*space.spans);
}

Cost StageBounds::coarse(const Combination& one) const {
  return space_.chunked_schedules.empty() ? one.bound : one.chunked_bound;
}

Cost StageBounds::bound(const Combination& one, Cost most) {
  if (end_ - first_ < 2) return coarse(one);
  const std::tuple key{static_cast<const void*>(one.compositions.get()), one.micro, one.spread};
  auto found = made_.find(key);
  if (found == made_.end()) found = made_.emplace(key, compute(one, most)).first;
  return std::max(coarse(one), found->second);
}

// C38
Cost StageBounds::compute(const Combination& one, Cost most) const {
  StageContext context = make_stage_context(space_, one);
  context.all_choices = true;
  StageCosts costs(std::move(context));
  std::vector<Kind> kinds;
  for (std::size_t c = 0; c < one.compositions->size(); ++c) {
    const std::int64_t stages = stages_on(space_, (*one.compositions)[c]);
    if (stages > 0) kinds.emplace_back(costs, static_cast<int>(c), stages, first_, end_);
  }
  // With chunks only a part of each stage's blocks comes before the next stage, and the first stage's part may be the
  // model's begin.
  const auto wait_for = [&](const Kind& kind, std::int64_t before) {
    if (space_.chunked_schedules.empty()) return before * kind.forward();
    Ticks each = kind.forward();
    for (const plan::ScheduleKind schedule : space_.chunked_schedules) {
      each = std::min(
          each, plan::splits_backward(schedule) ? kind.forward() / 2 : (kind.forward() + kind.backward()) / kMaxChunks);
    }
    return std::max<std::int64_t>(0, before - 1) * each;
  };
  const auto enough = [&](Cost time) {
    std::int64_t left = end_ - first_;
    for (Kind& kind : kinds) {
      // Those of its kind before a stage have let the first micro-batch through. More blocks there and fewer here are
      // never better: a wait is a small part of what a block takes.
      std::int64_t before = 0;
      for (std::int64_t stage = 0; stage < kind.most_stages() && left > 0; ++stage) {
        const int blocks = kind.most_blocks(time - wait_for(kind, before));
        if (blocks == 0) break;
        left -= blocks;
        before += blocks;
      }
    }
    return left <= 0;
  };
  Cost low = 0, high = most;
  if (!enough(high)) return high;
  while (high - low > most / 1024) {
    const Cost middle = low + (high - low) / 2;
    (enough(middle) ? high : low) = middle;
  }
  return low;
}

}  // namespace coxswain::planner
