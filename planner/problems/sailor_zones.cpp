#include "planner/problems/sailor_zones.h"

#include <algorithm>
#include <numeric>

namespace coxswain::planner {
namespace {

/// Of more runs than this, single ones are not moved.
constexpr std::size_t kMaxMovedRuns = 12;

/// Merges equal neighbours.
void tidy_up(SailorStage& stage) {
  std::vector<SailorReplicas> runs;
  for (const SailorReplicas& run : stage.replicas) append_replicas(runs, run);
  stage.replicas = std::move(runs);
}

/// Equal replicas of the whole pipeline, side by side.
struct Column {
  std::vector<SailorReplicas> seats;  // by stage, each with a count of 1
  int count = 0;
};

std::vector<Column> to_columns(const SailorPlan& plan) {
  std::vector<Column> columns;
  std::vector<std::size_t> run(plan.stages.size(), 0);
  std::vector<int> left;
  for (const SailorStage& stage : plan.stages) left.push_back(stage.replicas[0].count);
  while (run[0] < plan.stages[0].replicas.size()) {
    Column column;
    column.count = *std::min_element(left.begin(), left.end());
    for (std::size_t i = 0; i < run.size(); ++i) {
      const auto& replicas = plan.stages[i].replicas;
      column.seats.push_back({replicas[run[i]].pool, replicas[run[i]].tp, 1});
      left[i] -= column.count;
      if (left[i] == 0 && ++run[i] < replicas.size()) left[i] = replicas[run[i]].count;
    }
    columns.push_back(std::move(column));
  }
  return columns;
}

SailorPlan to_plan(SailorPlan like, const std::vector<Column>& columns) {
  for (std::size_t i = 0; i < like.stages.size(); ++i) {
    like.stages[i].replicas.clear();
    for (const Column& column : columns)
      append_replicas(like.stages[i].replicas, {column.seats[i].pool, column.seats[i].tp, column.count});
  }
  return like;
}

/// a a a b b becomes a b a b a.
template <class Run>
std::vector<Run> interleave(std::vector<Run> runs, std::size_t at) {
  Run a = runs[at], b = runs[at + 1];
  const int pairs = std::min(a.count, b.count);
  a.count -= pairs;
  b.count -= pairs;
  Run one = a, other = b;
  one.count = other.count = 1;
  std::vector<Run> mixed;
  for (int i = 0; i < pairs; ++i) {
    mixed.push_back(one);
    mixed.push_back(other);
  }
  if (a.count > 0) mixed.push_back(a);
  if (b.count > 0) mixed.push_back(b);
  const auto from = runs.begin() + static_cast<std::ptrdiff_t>(at);
  runs.insert(runs.erase(from, from + 2), mixed.begin(), mixed.end());
  return runs;
}

template <class Run>
std::vector<Run> move_run(std::vector<Run> runs, std::size_t from, std::size_t to) {
  const Run moved = runs[from];
  runs.erase(runs.begin() + static_cast<std::ptrdiff_t>(from));
  runs.insert(runs.begin() + static_cast<std::ptrdiff_t>(to), moved);
  return runs;
}

/// Hill climbing: the first better neighbour is taken.
class Climber {
 public:
  Climber(const SailorModel& model, const SailorGoal& goal, PricedSailorPlan start, std::int64_t max_plans)
      : model_(model), goal_(goal), best_(std::move(start)), plans_left_(max_plans) {}

  PricedSailorPlan climb() {
    while (plans_left_ > 0 &&
           (reorder_columns() || reorder_stages() || swap_pools() || use_other_pools() || shift_cuts())) {}
    return std::move(best_);
  }

 private:
  bool accept(SailorPlan plan) {
    if (plans_left_-- <= 0) return false;
    for (SailorStage& stage : plan.stages) tidy_up(stage);
    auto priced = price(model_, goal_, std::move(plan));
    if (!priced || !is_better(*priced, best_)) return false;
    best_ = std::move(*priced);
    return true;
  }

  /// Calls `accept_runs` with every reordering of `runs` until it returns true.
  template <class Run, class Accept>
  static bool reorder(const std::vector<Run>& runs, Accept&& accept_runs) {
    if (runs.size() < 2) return false;
    if (accept_runs(std::vector<Run>(runs.rbegin(), runs.rend()))) return true;
    for (std::size_t at = 0; at + 1 < runs.size(); ++at)
      if (runs[at].count > 1 && runs[at + 1].count > 1 && accept_runs(interleave(runs, at))) return true;
    for (std::size_t from = 0; from < runs.size(); ++from)
      for (std::size_t to = 0; to < runs.size() && runs.size() <= kMaxMovedRuns; ++to)
        if (from != to && accept_runs(move_run(runs, from, to))) return true;
    return false;
  }

  bool reorder_columns() {
    return reorder(to_columns(best_.plan),
                   [&](const std::vector<Column>& columns) { return accept(to_plan(best_.plan, columns)); });
  }

  bool reorder_stages() {
    for (std::size_t i = 0; i < best_.plan.stages.size(); ++i) {
      const bool better = reorder(best_.plan.stages[i].replicas, [&](std::vector<SailorReplicas> replicas) {
        SailorPlan plan = best_.plan;
        plan.stages[i].replicas = std::move(replicas);
        return accept(std::move(plan));
      });
      if (better) return true;
    }
    return false;
  }

  /// Gives `count` of the run's replicas, from its front or its back, another pool.
  static void repool(SailorStage& stage, std::size_t run, int count, int pool, bool front) {
    auto& replicas = stage.replicas;
    SailorReplicas moved{pool, replicas[run].tp, count};
    replicas[run].count -= count;
    const auto at = replicas.begin() + static_cast<std::ptrdiff_t>(run);
    if (replicas[run].count == 0) {
      *at = moved;
    } else {
      replicas.insert(front ? at : at + 1, moved);
    }
  }

  [[nodiscard]] int gpu_of(int pool) const { return model_.instance().pools[static_cast<std::size_t>(pool)].gpu; }

  bool swap_pools() {
    const auto& stages = best_.plan.stages;
    for (std::size_t i = 0; i < stages.size(); ++i)
      for (std::size_t j = i; j < stages.size(); ++j)
        for (std::size_t a = 0; a < stages[i].replicas.size(); ++a)
          for (std::size_t b = i == j ? a + 1 : 0; b < stages[j].replicas.size(); ++b)
            if (swap_runs(i, a, j, b)) return true;
    return false;
  }

  bool swap_runs(std::size_t i, std::size_t a, std::size_t j, std::size_t b) {
    const SailorReplicas one = best_.plan.stages[i].replicas[a], other = best_.plan.stages[j].replicas[b];
    if (one.pool == other.pool || gpu_of(one.pool) != gpu_of(other.pool)) return false;
    // Equal numbers of GPUs change places.
    const int unit = std::lcm(one.tp, other.tp);
    const int units = std::min(one.count * one.tp, other.count * other.tp) / unit;
    for (const int moved : {units, units / 2, 1}) {
      if (moved < 1) continue;
      for (const int sides : {0, 1, 2, 3}) {
        SailorPlan plan = best_.plan;
        // The later run first, so that places of earlier ones stay.
        repool(plan.stages[j], b, moved * unit / other.tp, one.pool, sides % 2 == 0);
        repool(plan.stages[i], a, moved * unit / one.tp, other.pool, sides / 2 == 0);
        if (accept(std::move(plan))) return true;
      }
      if (units < 2) break;
    }
    return false;
  }

  bool use_other_pools() {
    const auto& pools = model_.instance().pools;
    std::vector<int> left;
    for (const SailorPool& pool : pools) left.push_back(pool.count);
    for (const SailorStage& stage : best_.plan.stages)
      for (const SailorReplicas& run : stage.replicas) left[static_cast<std::size_t>(run.pool)] -= run.tp * run.count;
    for (std::size_t i = 0; i < best_.plan.stages.size(); ++i) {
      for (std::size_t a = 0; a < best_.plan.stages[i].replicas.size(); ++a) {
        const SailorReplicas run = best_.plan.stages[i].replicas[a];
        for (std::size_t pool = 0; pool < pools.size(); ++pool) {
          const int count = std::min(run.count, left[pool] / run.tp);
          if (static_cast<int>(pool) == run.pool || gpu_of(run.pool) != pools[pool].gpu || count < 1) continue;
          for (const bool front : {true, false}) {
            SailorPlan plan = best_.plan;
            repool(plan.stages[i], a, count, static_cast<int>(pool), front);
            if (accept(std::move(plan))) return true;
          }
        }
      }
    }
    return false;
  }

  bool shift_cuts() {
    for (std::size_t i = 0; i + 1 < best_.plan.stages.size(); ++i) {
      for (const int shift : {-1, 1}) {
        SailorPlan plan = best_.plan;
        plan.stages[i].end += shift;
        plan.stages[i + 1].first += shift;
        if (accept(std::move(plan))) return true;
      }
    }
    return false;
  }

  const SailorModel& model_;
  const SailorGoal& goal_;
  PricedSailorPlan best_;
  std::int64_t plans_left_;
};

}  // namespace

void append_replicas(std::vector<SailorReplicas>& runs, SailorReplicas run) {
  if (run.count == 0) return;
  if (!runs.empty() && runs.back().pool == run.pool && runs.back().tp == run.tp) {
    runs.back().count += run.count;
  } else {
    runs.push_back(run);
  }
}

bool is_better(const PricedSailorPlan& a, const PricedSailorPlan& b) {
  if (a.cost != b.cost) return a.cost < b.cost;
  return a.estimate.traffic_seconds < b.estimate.traffic_seconds * (1 - 1e-9);
}

std::optional<PricedSailorPlan> price(const SailorModel& model, const SailorGoal& goal, SailorPlan plan) {
  const auto estimate = model.estimate(plan);
  if (!estimate) return std::nullopt;
  const Cost cost = model.within_limits(*estimate) ? goal.cost(estimate->seconds, estimate->usd) : kNoCost;
  return PricedSailorPlan{std::move(plan), *estimate, cost};
}

PricedSailorPlan improve(const SailorModel& model, const SailorGoal& goal, PricedSailorPlan plan,
                         std::int64_t max_plans) {
  return Climber(model, goal, std::move(plan), max_plans).climb();
}

}  // namespace coxswain::planner
