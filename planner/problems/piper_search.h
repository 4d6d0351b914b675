#pragma once
// Exact search for Piper's problem: the least limit on a stage's load under which a pipeline exists. For one limit a
// stage of given nodes and tp has only one dp worth taking, the smallest that meets the limit: a larger one uses more
// devices and makes all earlier stages keep more stashes. So one limit is a Problem of the label search, from the loss
// side: a state is a cut, a label is (devices used, sum of dp) behind it, its bound adds the devices that the rest
// needs without stashes. The limit is bisected; a plan's own load is the new upper end, and the search ends when
// nothing fits a limit just (3e-12 of it) below a plan, which is then optimal.
// Called by piper. Threads: one per object.
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "planner/label_search.h"
#include "planner/problems/piper_stages.h"

namespace coxswain::planner {

/// Pipelines whose stages all meet one limit; their cost is the number of devices.
class PiperProblem {
 public:
  struct State {
    std::size_t set = 0;  // what is not placed yet
    friend auto operator<=>(const State&, const State&) = default;
  };
  struct Label {
    std::int64_t devices = 0, replicas = 0;  // sums of dp x tp and of dp of the stages behind
  };
  struct Option {
    PiperStages::Candidate candidate;
    std::int64_t dp = 0;  // at least
  };

  PiperProblem(PiperStages& stages, double limit);
  /// Some pipeline may fit, stashes aside.
  [[nodiscard]] bool hopeful() const { return rest_.back() <= num_devices_; }

  [[nodiscard]] std::pair<State, Label> start() const { return {{stages_.sets().full()}, {}}; }
  [[nodiscard]] int layer(const State& state) const { return static_cast<int>(stages_.sets().full() - state.set); }
  [[nodiscard]] bool is_final(const State& state) const { return state.set == 0; }
  template <class Visit>
  void for_each_option(const State& state, Visit&& visit);
  [[nodiscard]] std::optional<std::pair<State, Label>> extend(const State& state, const Label& label,
                                                              const Option& option);
  [[nodiscard]] bool dominates(const Label& a, const Label& b) const {
    return a.devices <= b.devices && a.replicas <= b.replicas;
  }
  [[nodiscard]] Cost bound(const State& state, const Label& label) const { return label.devices + rest_[state.set]; }
  [[nodiscard]] Cost finish(const State&, const Label& label) const { return label.devices; }

  /// The stages of a path, input side first.
  [[nodiscard]] std::vector<PiperStage> make_stages(const std::vector<Option>& path);

 private:
  /// The smallest dp from the option's on that meets the limit before `label`; 0 when none up to the devices left does.
  [[nodiscard]] std::int64_t find_dp(const State& state, const Label& label, const Option& option);

  PiperStages& stages_;
  double limit_;
  std::int64_t num_devices_, num_micro_batches_;
  std::vector<std::int64_t> rest_;  // by set
};

template <class Visit>
void PiperProblem::for_each_option(const State& state, Visit&& visit) {
  for (const PiperStages::Candidate& candidate : stages_.candidates(state.set)) {
    const std::int64_t dp = stages_.smallest_dp(candidate, limit_);
    const std::int64_t before = rest_[static_cast<std::size_t>(candidate.lower)];
    if (dp > 0 && before + dp * stages_.tp(candidate) <= num_devices_) visit(Option{candidate, dp});
  }
}

struct PiperPlan {
  std::vector<PiperStage> stages;  // input side first
  double score = 0;
  std::int64_t num_labels = 0;
  bool all_cuts = false;  // every downward-closed cut was searched: no plan is better by more than kPiperTolerance
};
inline constexpr double kPiperTolerance = 3e-12;

/// The search over the cuts in `sets`. A better plan than `known_score` is looked for; empty: there is none.
class PiperSearch {
 public:
  PiperSearch(const PiperInstance& instance, const PiperSets& sets, double known_score);
  [[nodiscard]] std::optional<PiperPlan> solve();

 private:
  struct Interval {
    double low = 0, high = 0;  // nothing fits at low; stashes aside, something does at high
  };
  [[nodiscard]] std::optional<Interval> relaxed_optimum() const;
  /// Limits from `limit` up, in growing steps, until a plan fits; `low` follows what did not.
  [[nodiscard]] bool find_first(double& low, double limit);
  void improve(double low);
  /// Takes over a plan within `limit`; false when there is none, or none better than the best.
  [[nodiscard]] bool probe(double limit);

  PiperStages stages_;
  double best_score_;
  PiperPlan best_;
  std::int64_t num_labels_ = 0;
};

/// The optimum over all downward-closed cuts. With more than 50,000 of them only the cuts along one topological order
/// are searched. Errors: ResourceExhausted when nothing fits.
[[nodiscard]] Result<PiperPlan> search_piper(const PiperInstance& instance);

}  // namespace coxswain::planner
