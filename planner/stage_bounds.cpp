#include "planner/stage_bounds.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "plan/schedule.h"
#include "planner/combination_bounds.h"
#include "planner/parallel_for.h"

namespace coxswain::planner {
namespace {

/// How close a bound is told.
constexpr Cost kSteps = 2048;

/// Of the replica that has most samples; null where replicas are of several kinds.
const SampleTable* busiest_table(const StageContext& context, int composition) {
  const Composition& on = context.compositions[static_cast<std::size_t>(composition)];
  for (std::size_t p = 0; p < context.pools->size(); ++p) {
    if (on.units.of[p] == 0) continue;
    if (on.units.of[p] != on.units.total()) return nullptr;
    const std::int64_t samples = (context.micro + on.replicas() - 1) / on.replicas();
    return &context.spans->table(on.kind(*context.pools, p), samples);
  }
  return nullptr;
}

/// Stages of one composition.
class Kind {
 public:
  /// `waits_back`: what comes after its last backward may count as a wait as well, and not twice.
  /// `each`: work of a block in a step, at least, where replicas are of several kinds.
  Kind(StageCosts& costs, int composition, std::int64_t most_stages, int first, int end, bool waits_back, Cost each)
      : costs_(costs),
        composition_(composition),
        most_stages_(most_stages),
        first_(first),
        end_(end),
        waits_back_(waits_back) {
    set_passes();
    table_ = busiest_table(costs.context(), composition);
    each_ = table_ != nullptr ? work(std::max(first, 1), std::max(first, 1) + 1) : each;
  }

  [[nodiscard]] std::int64_t most_stages() const { return most_stages_; }
  /// Of one block, one micro-batch.
  [[nodiscard]] Ticks forward() const { return forward_; }
  [[nodiscard]] Ticks backward() const { return backward_; }

  /// Most blocks of the run whose work a stage does within `time`.
  [[nodiscard]] int most_by_work(Cost time) const {
    if (time <= 0) return 0;
    return each_ > 0 ? static_cast<int>(std::min<Cost>(end_ - first_, time / each_)) : end_ - first_;
  }
  /// Most blocks of the run that a stage holds and takes through the step within `time`.
  [[nodiscard]] int most_blocks(Cost time) {
    // More are too much work; mostly these fit.
    const int most = most_by_work(time);
    if (most == 0 || within(most, time)) return most;
    int holds = 0;
    for (int too_many = most; too_many - holds > 1;) {
      const int middle = (holds + too_many) / 2;
      (within(middle, time) ? holds : too_many) = middle;
    }
    return holds;
  }

 private:
  /// What a block inside takes forward and backward at least, of any replica, whatever the stage chooses. An action of
  /// many blocks has its overhead once.
  void set_passes() {
    const StageContext& context = costs_.context();
    const Composition& on = context.compositions[static_cast<std::size_t>(composition_)];
    const auto inside = static_cast<std::size_t>(std::max(first_, 1));
    bool any = false;
    for (std::size_t p = 0; p < context.pools->size(); ++p) {
      if (on.units.of[p] == 0) continue;
      // Of unlike replicas one may have a single sample.
      const std::int64_t least = on.units.of[p] == on.units.total() ? context.micro / on.replicas() : 1;
      const SampleTable& table = context.spans->table(on.kind(*context.pools, p), std::max<std::int64_t>(1, least));
      forward_ = any ? std::min(forward_, table.forward[inside]) : table.forward[inside];
      backward_ = any ? std::min(backward_, table.backward[inside]) : table.backward[inside];
      any = true;
    }
  }

  /// Of a stage with so many blocks of the run, wherever it stands: inside the pipeline; with the model's begin, with
  /// its end, with both.
  bool within(int blocks, Cost time) {
    const int num_blocks = costs_.context().spans->num_blocks(), inside = std::max(first_, 1);
    if (inside + blocks <= std::min(end_, num_blocks - 1) && takes(inside, inside + blocks, time)) return true;
    if (takes(0, first_ + blocks, time) || takes(end_ - blocks, num_blocks, time)) return true;
    return blocks == end_ - first_ && takes(0, num_blocks, time);
  }

  /// Whether the blocks fit and take no longer.
  bool takes(int first, int end, Cost time) { return work(first, end) <= time && least_time(first, end) <= time; }

  /// Of all micro-batches on the busiest replica, whatever the stage chooses; 0: not known.
  [[nodiscard]] Cost work(int first, int end) const {
    if (table_ == nullptr) return 0;
    const auto from = static_cast<std::size_t>(first), to = static_cast<std::size_t>(end);
    return costs_.context().count * (table_->forward_sum[to] - table_->forward_sum[from] + table_->backward_sum[to] -
                                     table_->backward_sum[from]);
  }

  Cost least_time(int first, int end) {
    const auto [found, fresh] = least_.try_emplace({first, end}, kNoCost);
    if (!fresh) return found->second;
    if (const StageCost* one = cheapest(first, end); one != nullptr) found->second = time_of(*one);
    return found->second;
  }

  [[nodiscard]] Cost time_of(const StageCost& one) const {
    return costs_.context().count * one.busy + (waits_back_ ? 0 : one.sync_last) + one.optimizer;
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
  bool waits_back_;
  const SampleTable* table_ = nullptr;
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

StageBounds::Key StageBounds::key_of(const Combination& one) {
  return {static_cast<const void*>(one.compositions.get()), one.micro, one.spread};
}

std::vector<Cost> StageBounds::bounds(const std::vector<const Combination*>& all, Cost most, const Request& request) {
  std::vector<Cost> told;
  if (end_ - first_ < 2) {
    for (const Combination* one : all) told.push_back(coarse(*one));
    return told;
  }
  std::map<Key, const Combination*> missing;
  for (const Combination* one : all) {
    if (!made_.contains(key_of(*one))) missing.emplace(key_of(*one), one);
  }
  std::vector<std::pair<Key, Cost>> fresh;
  std::vector<const Combination*> of;
  for (const auto& [key, one] : missing) {
    fresh.emplace_back(key, Cost{0});
    of.push_back(one);
  }
  parallel_for(fresh.size(), request, [&](std::size_t i) { fresh[i].second = compute(*of[i], most); });
  made_.insert(fresh.begin(), fresh.end());
  for (const Combination* one : all) told.push_back(std::max(coarse(*one), made_.at(key_of(*one))));
  return told;
}

// C23
Cost StageBounds::least_work(const Combination& one, std::size_t composition) const {
  if (!one.work) return 0;
  const auto block = static_cast<std::size_t>(std::max(first_, 1));
  Cost most = 0;
  for (const WorkBound::Prices& prices : one.work->prices()) {
    double speed = 0;
    for (std::size_t p = 0; p < prices.speed.size(); ++p)
      speed += (*one.compositions)[composition].devices.of[p] * prices.speed[p];
    const double worth = (prices.sum[block + 1] - prices.sum[block]) * static_cast<double>(one.micro * one.count);
    if (speed > 0) most = std::max(most, static_cast<Cost>(worth / speed * (1 - 1e-9)));
  }
  return most;
}

// C38
Cost StageBounds::compute(const Combination& one, Cost most) const {
  StageContext context = make_stage_context(space_, one);
  context.all_choices = true;
  StageCosts costs(std::move(context));
  std::vector<Kind> kinds;
  const bool waits_back = std::any_of(space_.chunked_schedules.begin(), space_.chunked_schedules.end(),
                                      [](plan::ScheduleKind schedule) { return !plan::splits_backward(schedule); });
  for (std::size_t c = 0; c < one.compositions->size(); ++c) {
    const std::int64_t stages = stages_on(space_, (*one.compositions)[c]);
    if (stages > 0)
      kinds.emplace_back(costs, static_cast<int>(c), stages, first_, end_, waits_back, least_work(one, c));
  }
  // What the stage after `before` blocks on `stages` others waits for, at least, where a block of theirs takes so long.
  // With chunks only the first one of each comes before the next stage, with a v-th of its blocks, one at least; the
  // blocks at the model's begin may be among them.
  const std::int64_t begin = first_;
  const auto wait_for = [&](std::int64_t stages, std::int64_t before, Ticks forward, Ticks backward) {
    Cost wait = before * forward;
    for (const plan::ScheduleKind schedule : space_.chunked_schedules) {
      const bool v_shaped = plan::splits_backward(schedule);
      const Cost each = v_shaped ? forward : forward + backward;
      const std::int64_t chunks = v_shaped ? 2 : kMaxChunks;
      wait = std::min(wait,
                      std::max({Cost{0}, (before + begin - chunks * begin) * each / chunks, (stages - begin) * each}));
    }
    return wait;
  };
  const std::int64_t blocks = end_ - first_;
  // More blocks before a stage and fewer on it are never better: a wait is a small part of what a block takes. So the
  // most that any order of so many stages of each kind holds follows from the most that one stage fewer does.
  const auto most_held = [&](const std::vector<std::int64_t>& orders, Cost time, auto most_blocks) {
    Ticks forward = kNoCost, backward = kNoCost;
    for (const Kind& kind : kinds) {
      forward = std::min(forward, kind.forward());
      backward = std::min(backward, kind.backward());
    }
    std::vector<std::int64_t> held(static_cast<std::size_t>(orders.back()), 0);
    std::int64_t most_so_far = 0;
    for (std::int64_t at = 1; at < orders.back() && most_so_far < blocks; ++at) {
      std::int64_t stages = 0;
      for (std::size_t k = 0; k < kinds.size(); ++k) stages += at / orders[k] % (kinds[k].most_stages() + 1);
      for (std::size_t k = 0; k < kinds.size(); ++k) {
        if (at / orders[k] % (kinds[k].most_stages() + 1) == 0) continue;
        const std::int64_t before = held[static_cast<std::size_t>(at - orders[k])];
        const std::int64_t with =
            before + most_blocks(kinds[k], time - wait_for(stages - 1, before, forward, backward));
        held[static_cast<std::size_t>(at)] = std::max(held[static_cast<std::size_t>(at)], with);
      }
      most_so_far = std::max(most_so_far, held[static_cast<std::size_t>(at)]);
    }
    return most_so_far;
  };
  // By number of stages of each kind; of too many only those of its own kind are before a stage.
  constexpr std::int64_t kMaxOrders = 400;
  std::vector<std::int64_t> orders{1};
  for (const Kind& kind : kinds) orders.push_back(std::min(orders.back(), kMaxOrders + 1) * (kind.most_stages() + 1));
  const auto holds = [&](Cost time, auto most_blocks) {
    if (orders.back() <= kMaxOrders) return most_held(orders, time, most_blocks) >= blocks;
    std::int64_t left = blocks;
    for (Kind& kind : kinds) {
      std::int64_t before = 0;
      for (std::int64_t stage = 0; stage < kind.most_stages() && left > 0; ++stage) {
        const int here = most_blocks(kind, time - wait_for(stage, before, kind.forward(), kind.backward()));
        if (here == 0) break;
        left -= here;
        before += here;
      }
    }
    return left <= 0;
  };
  const auto enough = [&](Cost time) {
    // Most are too much work already, whatever memory says.
    return holds(time, [](const Kind& kind, Cost left) { return kind.most_by_work(left); }) &&
           holds(time, [](Kind& kind, Cost left) { return kind.most_blocks(left); });
  };
  if (!enough(most)) return most;
  Cost low = 0, high = most;
  while (high - low > most / kSteps) {
    const Cost middle = low + (high - low) / 2;
    (enough(middle) ? high : low) = middle;
  }
  return low;
}

}  // namespace coxswain::planner
