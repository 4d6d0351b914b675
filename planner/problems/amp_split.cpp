#include "planner/problems/amp_split.h"

#include <algorithm>
#include <cmath>

namespace coxswain::planner {
namespace {

/// Whole numbers of this unit keep sums exact and hold 100 days.
constexpr double kTicksPerSecond = 1e12;

Cost to_ticks(double seconds) { return std::llround(seconds * kTicksPerSecond); }

/// Everything that a stage of units [first, end) adds.
struct Span {
  Cost seconds = 0;  // per micro-batch, cuts included when sends block
  Cost cut = 0;      // after it, once, when sends do not block
  Cost hides = 0;    // what its backward hides of later stages' reductions
  Cost sync = 0;
  bool fits = true;
};

class SplitProblem {
 public:
  struct State {
    int stage = 0, unit = 0;
    friend auto operator<=>(const State&, const State&) = default;
  };
  struct Label {
    Cost sum = 0, slowest = 0, hidden = 0, sync = 0;
  };
  struct Option {
    int end = 0;
  };

  explicit SplitProblem(const AmpSplitCosts& costs)
      : costs_(costs), num_units_(static_cast<int>(costs.unit_seconds.size())) {
    fill_spans();
    fill_bounds();
  }

  [[nodiscard]] std::pair<State, Label> start() const { return {}; }
  [[nodiscard]] int layer(const State& state) const { return state.stage; }
  [[nodiscard]] bool is_final(const State& state) const { return state.stage == costs_.num_stages; }

  template <class Visit>
  void for_each_option(const State& state, Visit&& visit) {
    const int later = costs_.num_stages - state.stage - 1;
    const int least = later == 0 ? num_units_ : state.unit + 1;
    for (int end = least; end <= num_units_ - later; ++end)
      if (span(state.stage, state.unit, end).fits) visit(Option{end});
  }

  [[nodiscard]] std::optional<std::pair<State, Label>> extend(const State& state, const Label& label,
                                                              const Option& option) const {
    const Span& next = span(state.stage, state.unit, option.end);
    return std::pair{State{state.stage + 1, option.end},
                     Label{label.sum + next.seconds + next.cut, std::max(label.slowest, next.seconds),
                           label.hidden + next.hides, std::max(label.sync, next.sync - label.hidden)}};
  }

  /// Less time also hides less, but never more than it saves: hides <= seconds.
  [[nodiscard]] bool dominates(const Label& a, const Label& b) const {
    return a.sum <= b.sum && a.slowest <= b.slowest && a.sync <= b.sync && a.sum - a.hidden <= b.sum - b.hidden;
  }
  [[nodiscard]] Cost bound(const State& state, const Label& label) const {
    const Rest& rest = this->rest(state.stage, state.unit);
    if (rest.sum == kNoCost) return kNoCost;
    return costs_.rounds * std::max(label.slowest, rest.slowest) + label.sum + rest.sum + label.sync;
  }
  [[nodiscard]] Cost finish(const State& state, const Label& label) const { return bound(state, label); }

  /// A good cut, whose cost is what the search must beat: the one of the least slowest stage.
  [[nodiscard]] Cost balanced_cost() const {
    std::pair<State, Label> at = start();
    while (!is_final(at.first)) {
      const int end = rest(at.first.stage, at.first.unit).end;
      if (end < 0) return kNoCost;
      at = *extend(at.first, at.second, Option{end});
    }
    return finish(at.first, at.second);
  }

 private:
  /// Of stages `stage`... on the units from `unit` on.
  struct Rest {
    Cost sum = kNoCost, slowest = kNoCost;  // each the least there is, on its own
    int end = -1;                           // of the next stage where `slowest` is least
  };

  [[nodiscard]] std::size_t place(int stage, int unit) const {
    return static_cast<std::size_t>(stage) * static_cast<std::size_t>(num_units_ + 1) + static_cast<std::size_t>(unit);
  }
  [[nodiscard]] const Rest& rest(int stage, int unit) const { return rest_[place(stage, unit)]; }
  [[nodiscard]] const Span& span(int stage, int first, int end) const {
    return spans_[place(stage, first) * static_cast<std::size_t>(num_units_ + 1) + static_cast<std::size_t>(end)];
  }

  [[nodiscard]] double cut_seconds(int stage, int end) const {
    if (stage < 0 || stage == costs_.num_stages - 1) return 0;
    return costs_.unit_output[static_cast<std::size_t>(end - 1)] *
           costs_.cut_seconds_per_number[static_cast<std::size_t>(stage)];
  }

  void fill_spans();
  void fill_bounds();

  const AmpSplitCosts& costs_;
  int num_units_;
  std::vector<Span> spans_;
  std::vector<Rest> rest_;
};

void SplitProblem::fill_spans() {
  const auto width = static_cast<std::size_t>(num_units_ + 1);
  spans_.resize(static_cast<std::size_t>(costs_.num_stages) * width * width);
  for (int stage = 0; stage < costs_.num_stages; ++stage) {
    const auto j = static_cast<std::size_t>(stage);
    const double in_flight = static_cast<double>(std::min<std::int64_t>(costs_.rounds + 1, costs_.num_stages - stage));
    for (int first = stage; first < num_units_; ++first) {
      double seconds = 0, parameters = 0, embedding = 0, activation = 0;
      for (int end = first + 1; end <= num_units_; ++end) {
        const auto unit = static_cast<std::size_t>(end - 1);
        seconds += costs_.unit_seconds[unit];
        if (costs_.unit_embedding[unit]) {
          embedding = std::max(embedding, costs_.unit_parameters[unit]);
        } else {
          parameters += costs_.unit_parameters[unit];
        }
        if (!costs_.unit_activation.empty()) activation += costs_.unit_activation[unit];
        const double compute = seconds * costs_.slowness[j];
        const double cut = cut_seconds(stage, end), before = first == 0 ? 0 : cut_seconds(stage - 1, first);
        Span& span = spans_[place(stage, first) * width + static_cast<std::size_t>(end)];
        span.seconds = to_ticks(compute + (costs_.blocking_sends ? cut + before : 0));
        span.cut = costs_.blocking_sends ? 0 : to_ticks(cut);
        span.hides = std::min(span.seconds, to_ticks(compute * costs_.hidden_fraction));
        span.sync = to_ticks((parameters + embedding) * costs_.sync_seconds_per_parameter[j]);
        span.fits =
            costs_.unit_activation.empty() ||
            (parameters + embedding) * costs_.state_bytes_per_parameter + activation * in_flight <= costs_.device_bytes;
      }
    }
  }
}

void SplitProblem::fill_bounds() {
  rest_.resize(static_cast<std::size_t>(costs_.num_stages + 1) * static_cast<std::size_t>(num_units_ + 1));
  rest_[place(costs_.num_stages, num_units_)] = {0, 0, num_units_};
  for (int stage = costs_.num_stages - 1; stage >= 0; --stage) {
    for (int unit = num_units_ - 1; unit >= stage; --unit) {
      Rest& here = rest_[place(stage, unit)];
      for_each_option(State{stage, unit}, [&](const Option& option) {
        const Rest& next = rest(stage + 1, option.end);
        if (next.sum == kNoCost) return;
        const Span& taken = span(stage, unit, option.end);
        here.sum = std::min(here.sum, taken.seconds + taken.cut + next.sum);
        const Cost slowest = std::max(taken.seconds, next.slowest);
        if (slowest >= here.slowest) return;
        here.slowest = slowest;
        here.end = option.end;
      });
    }
  }
}

}  // namespace

std::optional<AmpSplit> find_amp_split(const AmpSplitCosts& costs) {
  SplitProblem problem(costs);
  SearchLimits limits;
  const Cost balanced = problem.balanced_cost();
  if (balanced == kNoCost) return std::nullopt;
  limits.upper_bound = balanced + 1;
  const auto found = search_labels(problem, limits);
  AmpSplit result;
  result.num_labels = found.num_labels;
  result.seconds = static_cast<double>(found.best.front().cost) / kTicksPerSecond + costs.extra_seconds;
  int unit = 0;
  for (const auto& option : found.best.front().path) {
    result.split.push_back(option.end - unit);
    unit = option.end;
  }
  return result;
}

AmpRanks::AmpRanks(const AmpInstance& instance, const AmpShape& shape) : instance_(instance), shape_(shape) {
  for (std::size_t node = 0; node < instance.nodes.size(); ++node)
    node_of_.insert(node_of_.end(), static_cast<std::size_t>(instance.nodes[node].gpus), static_cast<int>(node));
}

int AmpRanks::node(int stage, int replica, int shard) const {
  return node_of_[static_cast<std::size_t>(shard + shape_.tp * (replica + shape_.dp * stage))];
}

double AmpRanks::bandwidth(int from_node, int to_node) const {
  const AmpNode& from = instance_.nodes[static_cast<std::size_t>(from_node)];
  const AmpNode& to = instance_.nodes[static_cast<std::size_t>(to_node)];
  if (from_node == to_node) return from.intra_numbers_per_second;
  return std::min(from.inter_numbers_per_second, to.inter_numbers_per_second);
}

AmpSplitCosts peer_split_costs(const AmpInstance& instance, const AmpShape& shape) {
  const AmpRanks ranks(instance, shape);
  const auto micro_batch = static_cast<double>(shape.micro_batch);
  AmpSplitCosts costs;
  costs.num_stages = shape.pp;
  costs.rounds = instance.global_batch / (shape.dp * shape.micro_batch) - 1;
  const std::vector<double>& forward = instance.forward_seconds.at(shape.tp);
  for (std::size_t i = 0; i < instance.units.size(); ++i) {
    const AmpUnit& unit = instance.units[i];
    costs.unit_seconds.push_back(micro_batch * 3 * forward[i]);
    costs.unit_parameters.push_back(unit.parameters / shape.tp);
    costs.unit_embedding.push_back(unit.embedding);
    costs.unit_output.push_back(micro_batch * unit.output_numbers_per_sample /
                                (unit.output_divided_by_tp ? shape.tp : 1));
  }
  costs.slowness.assign(static_cast<std::size_t>(shape.pp), 1.0);
  for (int stage = 0; stage < shape.pp; ++stage) {
    double cut = 0, sync = 0;
    for (int replica = 0; stage + 1 < shape.pp && replica < shape.dp; ++replica) {
      double slowest = 0;
      for (int shard = 0; shard < shape.tp; ++shard) {
        const double bandwidth =
            ranks.bandwidth(ranks.node(stage, replica, shard), ranks.node(stage + 1, replica, shard));
        slowest = std::max(slowest, 1 / bandwidth);
      }
      cut += slowest / shape.dp;
    }
    for (int shard = 0; shard < shape.tp; ++shard) {
      const double bandwidth = ranks.bandwidth(ranks.node(stage, shape.dp - 1, shard), ranks.node(stage, 0, shard));
      sync = std::max(sync, 2.0 * (shape.dp - 1) / (shape.dp * bandwidth));
    }
    costs.cut_seconds_per_number.push_back(cut);
    costs.sync_seconds_per_parameter.push_back(sync);
  }
  return costs;
}

}  // namespace coxswain::planner
