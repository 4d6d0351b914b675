#pragma once
// Which steps may update the parameters: those whose loss and gradients are finite. Under float16 also the scale of the
// loss, which keeps small gradients above what float16 can hold and falls when large ones pass it. Decided after
// REDUCE_NORM from numbers that every rank has alike, so all ranks skip the same steps and hold the same scale.
// Called by engine. Threads: one. Private to worker/engine. Source: Micikevicius et al. 2018 (arXiv 1710.03740, 3.2);
// the numbers are those of torch.amp.GradScaler. docs/plan.md#loss-scale.
#include <cstdint>
#include <string>

#include "common/result.h"
#include "plan/plan.h"

namespace coxswain::worker {

class StepFilter {
 public:
  static constexpr std::int64_t kGrowthInterval = 2000;
  /// So many skipped steps in a row end the run: the scale fell by 2^20 and it was not the scale.
  static constexpr std::int64_t kMaxSkipped = 20;

  StepFilter(plan::Precision precision, double initial_scale, bool skip_non_finite)
      : scales_(precision == plan::Precision::Float16),
        skips_(skip_non_finite),
        state_{scales_ ? initial_scale : 1.0} {}

  /// What the loss is multiplied by for backward: a power of two, so that dividing by it later loses nothing.
  [[nodiscard]] double loss_scale() const { return state_.scale; }
  [[nodiscard]] bool scales() const { return scales_; }
  /// Whether a rank that meets such a number ends the run at once. A smaller scale mends gradients, not a loss.
  [[nodiscard]] bool loss_stops() const { return !skips_; }
  [[nodiscard]] bool gradients_stop() const { return !skips_ && !scales_; }

  /// What a run that goes on takes over.
  struct State {
    double scale = 1;
    std::int64_t good_steps = 0;  // since the scale changed
    std::int64_t num_skipped = 0, skipped_in_a_row = 0;
  };
  [[nodiscard]] const State& state() const { return state_; }
  /// Where the loss is not scaled, the scale stays 1.
  void restore(const State& state);

  /// The outcome of a step: true if it may update the parameters. Call once a step, with the same value on every rank.
  bool accept(bool finite);
  [[nodiscard]] std::int64_t num_skipped() const { return state_.num_skipped; }
  /// One more that is not finite ends the run, and is none that this takes.
  [[nodiscard]] bool exhausted() const { return state_.skipped_in_a_row + 1 >= kMaxSkipped; }

  /// Of a step that stops. `what` this rank saw: "the loss is", "the gradients are"; empty: nothing.
  [[nodiscard]] static Error stopped(const std::string& what, std::int64_t step, int rank, double value);
  /// Once exhausted; the ranks that saw nothing themselves end because of those that did.
  [[nodiscard]] Error too_many(const std::string& what, std::int64_t step, int rank) const;

 private:
  bool scales_, skips_;
  State state_;
};

}  // namespace coxswain::worker
