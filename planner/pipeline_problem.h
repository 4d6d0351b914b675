#pragma once
// Our own search space as a Problem: stages from the loss side, each a span of blocks on counts of devices, for one
// micro-batch size, count and schedule. Since it starts at the loss, the number of micro-batches in flight is known
// from the position. Costs are bounds from below of the simulated step. Threads: one per object. Source: DESIGN 3.5;
// equation C22 (chain) in docs/cost_model.md.
#include <compare>
#include <optional>
#include <utility>
#include <vector>

#include "planner/label_search.h"
#include "planner/stage_cost.h"
#include "planner/work_bound.h"

namespace coxswain::planner {

/// What one search of the outer loop fixes.
struct PipelineShape {
  plan::ScheduleKind schedule = plan::ScheduleKind::OneForwardOneBackward;
  int min_stages = 1, max_stages = 1;
  std::vector<int> cuts;  // fixed first blocks of the later stages; empty: free
  bool fixed_cuts = false;
  bool use_all_devices = false;
  Counts devices;        // what there is
  int total_stages = 0;  // known beforehand; 0: not
  /// A run of blocks that does not fit is not tried longer. Off where every candidate is to be seen: a longer run may
  /// have a smaller edge.
  bool skip_misfits = false;
  /// Blocks of a stage on each composition, give or take kLengthSlack, and stages on one composition follow each other.
  /// Empty: any.
  std::vector<int> num_blocks;
  int num_chunks = 1;  // of a stage; several: costs are those of C37, no bounds
};
inline constexpr int kLengthSlack = 1;

class PipelineProblem {
 public:
  struct State {
    int block = 0;       // first block that is placed
    int num_stages = 0;  // placed so far
    Counts remaining;    // devices
    int next = -1;       // composition of the stage placed last
    friend auto operator<=>(const State&, const State&) = default;
  };
  /// The pending edge is the pair (state.next, next_samples): an edge is priced when its earlier side is known.
  struct Label {
    Cost chain = 0;      // C22: from the first forward of the first placed stage to its last gradient
    Cost sync = 0;       // the same, to the end of the last reduction
    Cost round = 0;      // one micro-batch through all placed stages and back
    Cost optimizer = 0;  // slowest update
    std::int64_t next_samples = 0;
  };
  struct Option {
    int first = 0;
    int composition = 0;  // index into StageContext::compositions
    const StageCost* stage = nullptr;
  };

  /// `work` is borrowed: of the same micro-batch and units.
  PipelineProblem(StageCosts& costs, const WorkBound& work, PipelineShape shape, Cost upper_bound);

  [[nodiscard]] std::pair<State, Label> start() const;
  [[nodiscard]] int layer(const State& state) const { return num_blocks_ - state.block; }
  [[nodiscard]] bool is_final(const State& state) const { return state.block == 0; }
  template <class Visit>
  void for_each_option(const State& state, Visit&& visit);
  [[nodiscard]] std::optional<std::pair<State, Label>> extend(const State& state, const Label& label,
                                                              const Option& option);
  [[nodiscard]] bool dominates(const Label& a, const Label& b) const;
  [[nodiscard]] Cost bound(const State& state, const Label& label) const;
  [[nodiscard]] Cost finish(const State& state, const Label& label) const;

  /// C23: of the blocks before `end_block`.
  [[nodiscard]] Cost work_bound(int end_block, const Counts& units) const {
    return work_.least_time(end_block, units, costs_.context().micro * costs_.context().count);
  }
  [[nodiscard]] const PipelineShape& shape() const { return shape_; }
  [[nodiscard]] StageCosts& costs() { return costs_; }
  /// Of the stage that has `later` stages behind it.
  [[nodiscard]] StagePlace place(int later) const;

  /// Stages that did not fit, and the one that missed least, for the report.
  struct Misfit {
    std::int64_t count = 0, least_excess = 0;
    int first = 0, end = 0, device_class = -1;
  };
  [[nodiscard]] const Misfit& misfit() const { return misfit_; }
  [[nodiscard]] std::int64_t num_costed() const { return num_costed_; }

 private:
  /// The blocks before `first` are too many for the units that would remain.
  [[nodiscard]] bool hopeless(const State& state, int first, const Counts& counts) const;
  [[nodiscard]] bool may_cut(const State& state, int first) const;
  /// Counts the stage; false when longer spans on the same devices are too slow as well.
  [[nodiscard]] bool worth_going_on(const StageChoices& choices, const State& state, int first);
  [[nodiscard]] Cost tied_time(int end) const;
  [[nodiscard]] Label extend_chunked(const State& state, const Label& label, const Option& option, Cost forward_edge,
                                     Cost backward_edge) const;

  StageCosts& costs_;
  const WorkBound& work_;
  PipelineShape shape_;
  Cost upper_bound_;
  int num_blocks_ = 0;
  std::vector<std::vector<BestLink>> links_;  // by pair of compositions
  BytesPerSecond best_bandwidth_{0};
  Cost step_overhead_ = 0;
  Misfit misfit_;
  std::int64_t num_costed_ = 0;
};

template <class Visit>
void PipelineProblem::for_each_option(const State& state, Visit&& visit) {
  const std::vector<Composition>& compositions = costs_.context().compositions;
  for (std::size_t c = 0; c < compositions.size(); ++c) {
    if (!compositions[c].devices.fits_in(state.remaining)) continue;
    int longest = state.block, shortest = 1;
    if (!shape_.num_blocks.empty()) {
      if (shape_.num_blocks[c] == 0) continue;
      longest = std::min(longest, shape_.num_blocks[c] + kLengthSlack);
      shortest = std::max(1, shape_.num_blocks[c] - kLengthSlack);
    }
    for (int first = state.block - shortest; first >= state.block - longest; --first) {
      if (!may_cut(state, first)) continue;
      if (hopeless(state, first, compositions[c].devices)) continue;
      const StageChoices& choices = costs_.stage(first, state.block, static_cast<int>(c), place(state.num_stages));
      if (!worth_going_on(choices, state, first)) break;
      if (costs_.context().exhaustive) {
        if (choices.fits()) visit(Option{first, static_cast<int>(c), &choices.relaxed.front()});
        continue;
      }
      for (const StageCost& stage : choices.fitting) visit(Option{first, static_cast<int>(c), &stage});
    }
  }
}

}  // namespace coxswain::planner
