// Replicas of a sketch dealt to zones in many regular ways.
#include <algorithm>

#include "planner/problems/sailor_rows.h"
#include "planner/problems/sailor_zones.h"

namespace coxswain::planner {
namespace {

/// Orders of more zones than this are rotations and their reverses only.
constexpr std::size_t kMaxPermutedZones = 5;

enum class Way { Sequential, Snake, Columns };

class Dealer {
 public:
  Dealer(const SailorModel& model, const std::vector<SailorClass>& classes, const SailorGoal& goal,
         const SailorSketch& sketch)
      : model_(model), classes_(classes), goal_(goal), sketch_(sketch) {}

  std::vector<PricedSailorPlan> best_regular(std::size_t max_plans) {
    const std::vector<std::vector<int>> orders = zone_orders();
    for (const std::vector<int>& order : orders) {
      for (const Way way : {Way::Sequential, Way::Snake, Way::Columns}) {
        consider([&](bool reversed) { return deal(order, way, reversed); }, max_plans);
        if (orders.size() == 1) break;
      }
    }
    return std::move(best_);
  }

  std::vector<PricedSailorPlan> best_rows(std::size_t max_orders, std::size_t max_plans) {
    const std::vector<std::vector<int>> orders = zone_orders();
    for (std::size_t i = 0; i < std::min(max_orders, orders.size()) && orders.size() > 1; ++i)
      consider([&](bool reversed) { return deal_rows(orders[i], reversed); }, max_plans);
    return std::move(best_);
  }

 private:
  /// The parts of a mixed stage in both orders.
  template <class Deal>
  void consider(Deal&& deal, std::size_t max_plans) {
    for (const bool reversed : {false, true}) {
      if (reversed && !has_mixed()) continue;
      if (auto plan = deal(reversed)) consider_plan(std::move(*plan), max_plans);
    }
  }
  void consider_plan(SailorPlan plan, std::size_t max_plans) {
    auto priced = price(model_, goal_, std::move(plan));
    if (!priced) return;
    const auto at = std::find_if(best_.begin(), best_.end(),
                                 [&](const PricedSailorPlan& other) { return is_better(*priced, other); });
    if (at != best_.begin() && std::prev(at)->plan == priced->plan) return;
    best_.insert(at, std::move(*priced));
    if (best_.size() > max_plans) best_.pop_back();
  }
  [[nodiscard]] bool has_mixed() const {
    return std::any_of(sketch_.stages.begin(), sketch_.stages.end(),
                       [](const SailorSketch::Stage& stage) { return stage.parts.size() > 1; });
  }

  /// Of the zones in which some class of the sketch has a choice.
  [[nodiscard]] std::vector<std::vector<int>> zone_orders() const {
    std::vector<int> zones;
    for (const SailorSketch::Stage& stage : sketch_.stages) {
      for (const SailorPart& part : stage.parts) {
        const auto& pools = classes_[static_cast<std::size_t>(part.class_index)].pools;
        for (const int pool : pools)
          if (pools.size() > 1) zones.push_back(zone_of(pool));
      }
    }
    std::sort(zones.begin(), zones.end());
    zones.erase(std::unique(zones.begin(), zones.end()), zones.end());
    std::vector<std::vector<int>> orders;
    if (zones.size() <= kMaxPermutedZones) {
      do {
        orders.push_back(zones);
      } while (std::next_permutation(zones.begin(), zones.end()));
      return orders;
    }
    for (std::size_t i = 0; i < zones.size(); ++i) {
      orders.push_back(zones);
      orders.emplace_back(zones.rbegin(), zones.rend());
      std::rotate(zones.begin(), zones.begin() + 1, zones.end());
    }
    return orders;
  }

  [[nodiscard]] int zone_of(int pool) const { return model_.instance().pools[static_cast<std::size_t>(pool)].zone; }

  /// The pools of a class in the order of their zones; zones that `order` leaves out come last.
  [[nodiscard]] std::vector<int> ordered_pools(int class_index, const std::vector<int>& order) const {
    std::vector<int> pools = classes_[static_cast<std::size_t>(class_index)].pools;
    std::stable_sort(pools.begin(), pools.end(), [&](int a, int b) {
      return std::find(order.begin(), order.end(), zone_of(a)) < std::find(order.begin(), order.end(), zone_of(b));
    });
    return pools;
  }

  /// Replicas of `part` from the pools in turn; false when GPUs are lacking.
  bool take(const SailorPart& part, const std::vector<int>& pools, std::vector<SailorReplicas>& runs) {
    int wanted = part.count;
    for (const int pool : pools) {
      int& left = left_[static_cast<std::size_t>(pool)];
      const int count = std::min(wanted, left / part.tp);
      append_replicas(runs, {pool, part.tp, count});
      left -= count * part.tp;
      wanted -= count;
    }
    return wanted == 0;
  }

  std::optional<SailorPlan> deal(const std::vector<int>& order, Way way, bool reversed) {
    left_.clear();
    for (const SailorPool& pool : model_.instance().pools) left_.push_back(pool.count);
    SailorPlan plan{sketch_.micro_batch, {}};
    for (const SailorSketch::Stage& stage : sketch_.stages) plan.stages.push_back({stage.first, stage.end, {}});
    int dealt = 0;
    if (way == Way::Columns) {
      if (has_mixed()) return std::nullopt;
      for (const int zone : order) dealt += deal_columns(zone, dealt, plan);
    }
    for (std::size_t i = 0; i < sketch_.stages.size(); ++i) {
      std::vector<SailorPart> parts = sketch_.stages[i].parts;
      if (reversed) std::reverse(parts.begin(), parts.end());
      for (SailorPart part : parts) {
        std::vector<int> pools = ordered_pools(part.class_index, order);
        if (way == Way::Snake && i % 2 == 1) std::reverse(pools.begin(), pools.end());
        part.count -= dealt;
        if (!take(part, pools, plan.stages[i].replicas)) return std::nullopt;
      }
    }
    return plan;
  }

  [[nodiscard]] std::vector<SailorRow> to_rows(const std::vector<int>& order) const {
    std::vector<SailorRow> rows;
    for (const SailorSketch::Stage& stage : sketch_.stages) {
      int replicas = 0, degree = kMaxSailorSyncDegree;
      for (const SailorPart& part : stage.parts) {
        replicas += part.count;
        degree = std::min(degree, part.tp);
      }
      for (const SailorPart& part : stage.parts) {
        SailorRow row{ordered_pools(part.class_index, order), part.tp, part.count, {}};
        for (const int from : row.pools)
          for (const int to : row.pools)
            row.seconds.push_back(
                model_.all_reduce_seconds(model_.parameter_bytes(stage.first, stage.end) / degree, replicas, from, to));
        rows.push_back(std::move(row));
      }
    }
    return rows;
  }

  /// Rings with short reductions; the parts of a mixed stage side by side.
  std::optional<SailorPlan> deal_rows(const std::vector<int>& order, bool reversed) {
    std::vector<int> room;
    for (const SailorPool& pool : model_.instance().pools) room.push_back(pool.count);
    const std::vector<SailorRow> rows = to_rows(order);
    if (!row_limit_) row_limit_ = least_row_limit(rows, room);
    const auto filled = fill_rows(rows, std::move(room), *row_limit_);
    if (!filled) return std::nullopt;
    SailorPlan plan{sketch_.micro_batch, {}};
    std::size_t row = 0;
    for (const SailorSketch::Stage& stage : sketch_.stages) {
      plan.stages.push_back({stage.first, stage.end, {}});
      const std::size_t parts = stage.parts.size();
      for (std::size_t part = 0; part < parts; ++part) {
        const std::size_t at = reversed ? parts - 1 - part : part;
        for (const int pool : (*filled)[row + at])
          append_replicas(plan.stages.back().replicas, {pool, stage.parts[at].tp, 1});
      }
      row += parts;
    }
    return plan;
  }

  /// As many replicas of the whole pipeline as fit in one zone.
  int deal_columns(int zone, int dealt, SailorPlan& plan) {
    std::vector<int> needed(model_.instance().pools.size(), 0), pool_of_stage;
    for (const SailorSketch::Stage& stage : sketch_.stages) {
      const auto& pools = classes_[static_cast<std::size_t>(stage.parts[0].class_index)].pools;
      const auto pool = std::find_if(pools.begin(), pools.end(), [&](int each) { return zone_of(each) == zone; });
      if (pool == pools.end()) return 0;
      needed[static_cast<std::size_t>(*pool)] += stage.parts[0].tp;
      pool_of_stage.push_back(*pool);
    }
    int count = sketch_.stages[0].parts[0].count - dealt;
    for (const int pool : pool_of_stage) {
      const auto p = static_cast<std::size_t>(pool);
      count = std::min(count, left_[p] / needed[p]);
    }
    for (std::size_t i = 0; i < pool_of_stage.size(); ++i) {
      const int tp = sketch_.stages[i].parts[0].tp;
      append_replicas(plan.stages[i].replicas, {pool_of_stage[i], tp, count});
      left_[static_cast<std::size_t>(pool_of_stage[i])] -= count * tp;
    }
    return count;
  }

  const SailorModel& model_;
  const std::vector<SailorClass>& classes_;
  const SailorGoal& goal_;
  const SailorSketch& sketch_;
  std::vector<int> left_;
  std::optional<double> row_limit_;  // of the first order
  std::vector<PricedSailorPlan> best_;
};

}  // namespace

std::vector<PricedSailorPlan> deal_zones(const SailorModel& model, const std::vector<SailorClass>& classes,
                                         const SailorGoal& goal, const SailorSketch& sketch, std::size_t max_plans) {
  return Dealer(model, classes, goal, sketch).best_regular(max_plans);
}

std::vector<PricedSailorPlan> deal_rows(const SailorModel& model, const std::vector<SailorClass>& classes,
                                        const SailorGoal& goal, const SailorSketch& sketch, std::size_t max_orders,
                                        std::size_t max_plans) {
  return Dealer(model, classes, goal, sketch).best_rows(max_orders, max_plans);
}

}  // namespace coxswain::planner
