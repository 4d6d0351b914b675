#include "planner/problems/galvatron_stage.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace coxswain::planner {
namespace {

Cost charged(const GalvatronCharge& charge, Cost free, Cost sync) {
  return charge.base + charge.free * free + charge.sync * sync;
}

Cost charged(const GalvatronStage& stage, Cost free, Cost sync, Cost resharding) {
  Cost most = 0;
  for (const GalvatronCharge& charge : stage.charges) most = std::max(most, charged(charge, free, sync));
  return most + stage.resharding_weight * resharding;
}

class StageProblem {
 public:
  struct State {
    int placed = 0, last = -1, first_degree = 0;
    friend auto operator<=>(const State&, const State&) = default;
  };
  struct Label {
    Cost free = 0, sync = 0, resharding = 0;
    std::int64_t memory = 0;
  };
  struct Option {
    int index = 0;
  };

  explicit StageProblem(const GalvatronStage& stage) : stage_(stage) {
    for (const auto& [degree, cost] : stage.resharding) least_change_ = std::min(least_change_, cost);
    for (const GalvatronCharge& charge : stage.charges) {
      for (int option = 0; option < num_options(); ++option) same_degree_.push_back(hull(charge, option));
      any_degree_.push_back(hull(charge, -1));
    }
  }

  [[nodiscard]] std::pair<State, Label> start() const { return {State{}, Label{stage_.end_free, 0, 0, 0}}; }
  [[nodiscard]] int layer(const State& state) const { return state.placed; }
  [[nodiscard]] bool is_final(const State& state) const { return state.placed == stage_.layers; }

  /// Like layers of one degree may stand in any order: only the rising one is tried.
  template <class Visit>
  void for_each_option(const State& state, Visit&& visit) {
    for (int i = 0; i < num_options(); ++i)
      if (state.last < 0 || option(i).degree != option(state.last).degree || i >= state.last) visit(Option{i});
  }

  [[nodiscard]] std::optional<std::pair<State, Label>> extend(const State& state, const Label& label,
                                                              const Option& chosen) const {
    const GalvatronLayerOption& next = option(chosen.index);
    Label after{label.free + next.free, label.sync + next.sync, label.resharding, label.memory + next.memory};
    if (after.memory > stage_.capacity) return std::nullopt;
    if (state.last >= 0 && next.degree != option(state.last).degree) {
      const auto change = stage_.resharding.find(std::max(next.degree, option(state.last).degree));
      if (change == stage_.resharding.end()) return std::nullopt;
      after.resharding += change->second;
    }
    State to{state.placed + 1, chosen.index, state.last < 0 ? next.degree : state.first_degree};
    if (is_final(to)) {  // only the end degree and the costs still matter
      after.memory = 0;
      while (to.last > 0 && option(to.last - 1).degree == next.degree) --to.last;
    }
    return std::pair{to, after};
  }

  [[nodiscard]] bool dominates(const Label& a, const Label& b) const {
    return a.free <= b.free && a.memory <= b.memory && a.sync <= b.sync && a.resharding <= b.resharding;
  }

  [[nodiscard]] Cost bound(const State& state, const Label& label) const {
    const int left = stage_.layers - state.placed;
    const std::int64_t memory = stage_.capacity - label.memory;
    Cost most = 0;
    for (std::size_t c = 0; c < stage_.charges.size(); ++c) {
      Cost rest = 0;
      if (left > 0) {
        rest = state.last < 0 ? kNoCost : same_degree(c, state.last).least(left, memory);
        Cost other = any_degree_[c].least(left, memory);
        if (other == kNoCost) return kNoCost;
        if (state.last >= 0)
          other = least_change_ == kNoCost ? kNoCost : other + stage_.resharding_weight * least_change_;
        rest = std::min(rest, other);
        if (rest == kNoCost) return kNoCost;
      }
      most = std::max(most, charged(stage_.charges[c], label.free, label.sync) + rest);
    }
    return most + stage_.resharding_weight * label.resharding;
  }
  [[nodiscard]] Cost finish(const State& state, const Label& label) const { return bound(state, label); }

 private:
  [[nodiscard]] int num_options() const { return static_cast<int>(stage_.options.size()); }
  [[nodiscard]] const GalvatronLayerOption& option(int i) const { return stage_.options[static_cast<std::size_t>(i)]; }
  [[nodiscard]] const GalvatronHull& same_degree(std::size_t charge, int last) const {
    return same_degree_[charge * stage_.options.size() + static_cast<std::size_t>(last)];
  }
  /// Of what may follow `last` at its degree; of all when there is no last.
  [[nodiscard]] GalvatronHull hull(const GalvatronCharge& charge, int last) const {
    std::vector<std::pair<std::int64_t, Cost>> points;
    for (int i = std::max(last, 0); i < num_options(); ++i)
      if (last < 0 || option(i).degree == option(last).degree)
        points.emplace_back(option(i).memory, charge.free * option(i).free + charge.sync * option(i).sync);
    return GalvatronHull(std::move(points));
  }

  const GalvatronStage& stage_;
  Cost least_change_ = kNoCost;
  std::vector<GalvatronHull> same_degree_, any_degree_;
};

}  // namespace

GalvatronHull::GalvatronHull(std::vector<std::pair<std::int64_t, Cost>> points) {
  std::sort(points.begin(), points.end());
  for (const auto& point : points) {
    if (!corners_.empty() && point.second >= corners_.back().second) continue;
    while (corners_.size() >= 2) {
      const auto& a = corners_[corners_.size() - 2];
      const auto& b = corners_.back();
      const double to_b = static_cast<double>(b.second - a.second) / static_cast<double>(b.first - a.first);
      const double to_point = static_cast<double>(point.second - a.second) / static_cast<double>(point.first - a.first);
      if (to_b < to_point) break;
      corners_.pop_back();
    }
    corners_.push_back(point);
  }
}

Cost GalvatronHull::least(std::int64_t count, std::int64_t memory) const {
  if (corners_.empty() || corners_.front().first * count > memory) return kNoCost;
  if (corners_.back().first * count <= memory) return corners_.back().second * count;
  std::size_t above = 1;
  while (corners_[above].first * count <= memory) ++above;
  const auto& [less_memory, more_cost] = corners_[above - 1];
  const auto& [more_memory, less_cost] = corners_[above];
  const double slope = static_cast<double>(less_cost - more_cost) / static_cast<double>(more_memory - less_memory);
  const double saved = static_cast<double>(memory - less_memory * count) * slope;
  // A tick below what rounding can do.
  return more_cost * count + static_cast<Cost>(std::floor(saved)) - 1;
}

std::vector<GalvatronLayerOption> undominated(const std::vector<GalvatronLayerOption>& options) {
  std::vector<GalvatronLayerOption> result;
  for (std::size_t i = 0; i < options.size(); ++i) {
    const GalvatronLayerOption& own = options[i];
    bool beaten = false;
    for (std::size_t j = 0; j < options.size() && !beaten; ++j) {
      const GalvatronLayerOption& other = options[j];
      if (i == j || other.degree != own.degree || other.memory > own.memory || other.free > own.free ||
          other.sync > own.sync)
        continue;
      beaten = j < i || other.memory < own.memory || other.free < own.free || other.sync < own.sync;
    }
    if (!beaten) result.push_back(own);
  }
  std::stable_sort(result.begin(), result.end(), [](const GalvatronLayerOption& a, const GalvatronLayerOption& b) {
    return std::pair(a.degree, a.memory) < std::pair(b.degree, b.memory);
  });
  return result;
}

std::vector<GalvatronChoice> find_stage_choices(const GalvatronStage& stage, std::int64_t& num_labels) {
  StageProblem problem(stage);
  SearchLimits limits;
  limits.upper_bound = stage.upper_bound;
  limits.max_results = std::numeric_limits<std::size_t>::max();
  const auto found = search_labels(problem, limits);
  num_labels += found.num_labels;
  std::vector<GalvatronChoice> result;
  for (const auto& each : found.best) {
    GalvatronChoice choice;
    auto at = problem.start();
    for (const auto& option : each.path) {
      at = *problem.extend(at.first, at.second, option);
      choice.options.push_back(option.index);
    }
    choice.free = at.second.free;
    choice.sync = at.second.sync;
    choice.resharding = at.second.resharding;
    result.push_back(std::move(choice));
  }
  return result;
}

GalvatronChoice round_stage(const GalvatronStage& stage) {
  GalvatronChoice best;
  Cost least = kNoCost;
  const auto num_options = stage.options.size();
  for (std::size_t a = 0; a < num_options; ++a) {
    for (std::size_t b = a; b < num_options && stage.options[a].degree == stage.options[b].degree; ++b) {
      for (int with_b = a == b ? stage.layers : 0; with_b <= stage.layers; ++with_b) {
        const GalvatronLayerOption& one = stage.options[a];
        const GalvatronLayerOption& two = stage.options[b];
        const int with_a = stage.layers - with_b;
        if (with_a * one.memory + with_b * two.memory > stage.capacity) continue;
        const Cost free = stage.end_free + with_a * one.free + with_b * two.free;
        const Cost sync = with_a * one.sync + with_b * two.sync;
        const Cost cost = charged(stage, free, sync, 0);
        if (cost >= least) continue;
        least = cost;
        best = {free, sync, 0, std::vector<int>(static_cast<std::size_t>(with_a), static_cast<int>(a))};
        best.options.insert(best.options.end(), static_cast<std::size_t>(with_b), static_cast<int>(b));
      }
    }
  }
  return best;
}

}  // namespace coxswain::planner
