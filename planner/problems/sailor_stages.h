#pragma once
// Stages of Sailor's contest as a Problem of the label search, for one micro-batch size, replica count and budget of
// GPUs. They are placed from the loss side, since memory depends on the distance from it. A stage is alike (D replicas
// of one group) or mixed (two groups of unlike classes): with K classes a linear programme over the counts needs at
// most K - 1 mixed stages, and we search for plans with at most one. GPUs of alike stages are counted in units of D,
// the mixed stage's are set aside at the start, so that the search sees a box of whole units. Exact for classes of one
// zone; else sailor_zones.h deals the replicas to zones. Threads: one object per thread. Source: sailor_spans.h.
#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "planner/label_search.h"
#include "planner/problems/sailor_spans.h"

namespace coxswain::planner {

/// Per class, in units of D GPUs.
using SailorUnits = std::array<std::int16_t, kMaxSailorClasses>;

struct SailorShape {
  int micro_batch = 1;
  int num_replicas = 1;
  std::int64_t rounds = 0;  // micro-batches less one
  SailorUnits whole{};      // all GPUs
};

/// The instance's limits and its goal, on numbers that may be bounds from below.
struct SailorGoal {
  bool minimise_cost = false;
  double max_usd = kNever, max_seconds = kNever;
  /// Ticks of seconds, or dollars in the same unit; kNoCost: over a limit.
  [[nodiscard]] Cost cost(double seconds, double usd) const;
};

/// One stage of a plan.
struct SailorStageOption {
  SailorComposition composition;
  int first = 0, max_depth = 0;
  int class_index = -1, units = 0;  // of a mixed stage: none
  Cost compute = 0, update = 0, sync = 0;
  Cost least_round = 0;                       // compute and transfer, whatever the neighbours are
  double egress_usd = 0, usd_per_second = 0;  // of a mixed stage: at least
};
using SailorOptions = std::vector<std::vector<SailorStageOption>>;  // by end

/// Bounds on what is left to place, in seconds (infinite: there is no way): over all ways to cut the layers before k
/// and place them on the units left, the least slowest round and the least sum of rounds, each by itself.
class SailorRest {
 public:
  /// With alike stages only.
  SailorRest(const SailorSpans& spans, const SailorUnits& whole, const SailorOptions& options);
  /// With exactly one more stage, of `mixed`; the others as in `alike`.
  SailorRest(const SailorRest& alike, const SailorOptions& options, const SailorOptions& mixed);
  /// Requires: units within the whole, 0 <= k < number of layers.
  [[nodiscard]] double slowest(int k, const SailorUnits& units) const { return slowest_[place(k, units)]; }
  [[nodiscard]] double sum(int k, const SailorUnits& units) const { return sum_[place(k, units)]; }
  /// Entries times stages considered.
  [[nodiscard]] std::int64_t work() const { return work_; }
  /// Entries that the units of a shape need.
  [[nodiscard]] static std::int64_t num_cells(int num_layers, std::size_t num_classes, const SailorUnits& whole);

 private:
  [[nodiscard]] std::size_t place(int k, const SailorUnits& units) const;
  void add_alike(int k, const SailorStageOption& option);

  int num_layers_;
  std::vector<std::size_t> sizes_, strides_;  // by class
  std::size_t num_cells_ = 1;
  std::int64_t work_ = 0;
  std::vector<float> slowest_, sum_;
};

/// What all searches of one shape share, as long as no plan is wanted whose rounds exceed the limit given.
class SailorTables {
 public:
  /// `cost_limit`: only plans that cost less are wanted.
  SailorTables(const SailorSpans& spans, SailorRings& rings, const SailorShape& shape, const SailorGoal& goal,
               Cost cost_limit);

  [[nodiscard]] const SailorSpans& spans() const { return spans_; }
  [[nodiscard]] const SailorRings& rings() const { return rings_; }
  [[nodiscard]] const SailorShape& shape() const { return shape_; }
  [[nodiscard]] const SailorGoal& goal() const { return goal_; }
  [[nodiscard]] const SailorOptions& options() const { return options_; }
  [[nodiscard]] const SailorRest& rest() const { return *rest_; }
  /// The stages of a mixed composition.
  [[nodiscard]] SailorOptions list_mixed(SailorComposition mixed) const;
  /// Dollars a second of the stages of the layers before k, at least.
  [[nodiscard]] double least_usd_per_second(int k) const { return least_rate_[static_cast<std::size_t>(k)]; }
  [[nodiscard]] double usd_per_second(int group) const { return spans_.usd_per_second(group); }
  [[nodiscard]] std::size_t class_of(int group) const;
  [[nodiscard]] int tp(int group) const { return spans_.groups()[static_cast<std::size_t>(group)].tp; }

 private:
  [[nodiscard]] Cost find_time_limit(Cost cost_limit) const;
  void list_stages(SailorComposition composition, SailorOptions& options) const;
  void fill_least_rate();

  const SailorSpans& spans_;
  SailorRings& rings_;
  SailorShape shape_;
  SailorGoal goal_;
  Cost time_limit_ = kNoCost;  // of all rounds but one, and the reductions
  Cost least_round_ = 0;       // of the slowest stage
  SailorOptions options_;
  std::optional<SailorRest> rest_;
  std::vector<double> least_rate_;
};

/// A mixed stage, and what is left of the whole for alike stages once its GPUs are set aside.
struct SailorMix {
  SailorComposition composition;
  SailorOptions options;
  std::optional<SailorRest> rest;
};

class SailorStages {
 public:
  struct State {
    int layer = 0;  // first one that is placed
    SailorComposition next;
    bool mixed = false;  // the mixed stage is placed
    friend auto operator<=>(const State&, const State&) = default;
  };
  struct Label {
    Cost slowest = 0, sum = 0;  // rounds of all placed stages but the pending one, which is the latest
    Cost pending = 0;           // its compute, and its transfer to the stage after it
    Cost update = 0, sync = 0;
    double usd_per_second = 0, egress_usd = 0;
    int num_stages = 0;
    SailorUnits used{};
  };
  struct Option {
    const SailorStageOption* stage = nullptr;
  };

  /// `box`: the units for alike stages. `mix`: null for plans without a mixed stage.
  SailorStages(const SailorTables& tables, const SailorUnits& box, const SailorMix* mix)
      : tables_(tables), spans_(tables.spans()), shape_(tables.shape()), box_(box), mix_(mix) {}

  [[nodiscard]] std::pair<State, Label> start() const { return {{spans_.num_layers(), {}, false}, {}}; }
  [[nodiscard]] int layer(const State& state) const { return spans_.num_layers() - state.layer; }
  [[nodiscard]] bool is_final(const State& state) const { return state.layer == 0; }
  template <class Visit>
  void for_each_option(const State& state, Visit&& visit) {
    const auto end = static_cast<std::size_t>(state.layer);
    for (const SailorStageOption& stage : tables_.options()[end]) visit(Option{&stage});
    if (mix_ == nullptr || state.mixed) return;
    for (const SailorStageOption& stage : mix_->options[end]) visit(Option{&stage});
  }
  [[nodiscard]] std::optional<std::pair<State, Label>> extend(const State& state, const Label& label,
                                                              const Option& option) const;
  [[nodiscard]] bool dominates(const Label& a, const Label& b) const;
  [[nodiscard]] Cost bound(const State& state, const Label& label) const;
  [[nodiscard]] Cost finish(const State& state, const Label& label) const;

  /// Replicas of the mixed stage's first group: the cheapest split that the GPUs left allow.
  [[nodiscard]] int mixed_count(const SailorUnits& used) const;

 private:
  [[nodiscard]] double link_usd(SailorComposition a, SailorComposition b, int layer) const;

  const SailorTables& tables_;
  const SailorSpans& spans_;
  const SailorShape& shape_;
  SailorUnits box_;
  const SailorMix* mix_;
};

/// The slowest stage's round, at least: all work spread over all GPUs, and no less than the longest layer.
[[nodiscard]] Cost bound_round(const SailorSpans& spans, const SailorShape& shape);
/// A bound from below on all plans of a shape, mixed or not, without a search.
[[nodiscard]] Cost bound_shape(const SailorSpans& spans, const SailorRings& rings, const SailorShape& shape,
                               const SailorGoal& goal);

}  // namespace coxswain::planner
