#include "planner/quick_look.h"

#include <algorithm>

#include "plan/schedule.h"
#include "planner/stage_cost.h"

namespace coxswain::planner {
namespace {

/// Stages of one composition.
struct Kind {
  int composition = 0;
  std::int64_t most_stages = 0;
  int most_blocks = 0;  // that fit
  Ticks busy = 0;       // of one block, one micro-batch
};

class Look {
 public:
  Look(const SearchSpace& space, const Combination& one)
      : one_(one), num_blocks_(space.spans->num_blocks()), costs_(make_stage_context(space, one)) {
    for (std::size_t c = 0; c < one.compositions->size(); ++c) {
      Kind kind{static_cast<int>(c), one.max_stages, num_blocks_, 0};
      for (std::size_t p = 0; p < space.pools.size(); ++p) {
        const std::int32_t devices = (*one.compositions)[c].devices.of[p];
        if (devices > 0) kind.most_stages = std::min<std::int64_t>(kind.most_stages, space.devices.of[p] / devices);
      }
      if (kind.most_stages > 0) kinds_.push_back(kind);
    }
  }

  QuickLook run() {
    QuickLook result;
    result.num_blocks.assign(one_.compositions->size(), 0);
    result.cost = cost();
    if (result.cost == kNoCost) return result;
    result.num_stages = static_cast<int>(stages_);
    for (std::size_t k = 0; k < kinds_.size(); ++k)
      result.num_blocks[static_cast<std::size_t>(kinds_[k].composition)] = blocks_[k];
    return result;
  }

 private:
  Cost cost() {
    std::erase_if(kinds_, [&](Kind& kind) {
      const StageCost* stage = cost_of(kind, 1, 1);
      if (stage == nullptr) return true;
      kind.busy = std::max<Ticks>(1, stage->busy);
      return false;
    });
    std::stable_sort(kinds_.begin(), kinds_.end(), [](const Kind& a, const Kind& b) { return a.busy < b.busy; });
    // A stage that does not fit sends blocks to the others; each round lowers what some kind holds.
    constexpr int kMaxRounds = 6;
    for (int round = 0; round < kMaxRounds && !kinds_.empty(); ++round) {
      const std::int64_t stages = share_out();
      if (stages == 0) return kNoCost;
      if (const Cost cost = cost_of_shares(stages); cost != kNoCost) return cost;
    }
    return kNoCost;
  }

  /// Of blocks like those in the middle of the model, at the stage that holds most; null: does not fit.
  const StageCost* cost_of(const Kind& kind, int blocks, std::int64_t stages) {
    const int first = std::min(1, num_blocks_ - blocks);
    const int in_flight = plan::peak_in_flight(one_.schedule, 0, static_cast<int>(stages), one_.count);
    const StageChoices& choices = costs_.stage(first, first + blocks, kind.composition, in_flight);
    return choices.fits() ? &choices.fitting.front() : nullptr;
  }

  /// Blocks of each kind's stages so that the slowest ends soonest. The number of stages; 0: the blocks do not fit.
  std::int64_t share_out() {
    const auto holds = [&](Ticks busiest, bool assign) {
      std::int64_t left = num_blocks_, stages = 0;
      if (assign) blocks_.assign(kinds_.size(), 0);
      for (std::size_t k = 0; k < kinds_.size() && left > 0; ++k) {
        const std::int64_t each = std::min<std::int64_t>(busiest / kinds_[k].busy, kinds_[k].most_blocks);
        if (each == 0) continue;
        const std::int64_t used = std::min({(left + each - 1) / each, kinds_[k].most_stages, one_.max_stages - stages});
        if (assign && used > 0) blocks_[k] = static_cast<int>(std::min(each, left));
        left -= used * each;
        stages += used;
      }
      return left > 0 ? std::int64_t{0} : stages;
    };
    Ticks low = 0, high = kinds_.back().busy * num_blocks_;
    if (holds(high, false) == 0) return 0;
    while (high - low > std::max<Ticks>(1, high / 256)) {
      const Ticks middle = low + (high - low) / 2;
      (holds(middle, false) > 0 ? high : low) = middle;
    }
    return std::max<std::int64_t>(holds(high, true), one_.min_stages);
  }

  // C37
  Cost cost_of_shares(std::int64_t stages) {
    Ticks busy = 0, path = 0, sync = 0, optimizer = 0;
    bool fits = true;
    for (std::size_t k = 0; k < kinds_.size(); ++k) {
      if (blocks_[k] == 0) continue;
      const StageCost* found = cost_of(kinds_[k], blocks_[k], stages);
      if (found == nullptr) {
        kinds_[k].most_blocks = most_that_fit(kinds_[k], blocks_[k], stages);
        fits = false;
        continue;
      }
      const StageCost& stage = *found;
      busy = std::max(busy, stage.busy);
      // C28: while a stage waits it runs weights' parts.
      const Ticks hidden = plan::splits_backward(one_.schedule) ? 2 * stage.weight_max : 0;
      path = std::max(path, std::max(stage.forward_min, stage.forward_min + stage.backward_min - hidden));
      sync = std::max({sync, stage.sync_last, stage.sync - stage.backward_max});
      optimizer = std::max(optimizer, stage.optimizer);
    }
    if (!fits) return kNoCost;
    stages_ = stages;
    return busy * one_.count + (stages - 1) * path + sync + optimizer;
  }

  int most_that_fit(const Kind& kind, int too_many, std::int64_t stages) {
    int holds = 0;
    while (too_many - holds > 1) {
      const int middle = (holds + too_many) / 2;
      (cost_of(kind, middle, stages) != nullptr ? holds : too_many) = middle;
    }
    return holds;
  }

  const Combination& one_;
  int num_blocks_;
  StageCosts costs_;
  std::vector<Kind> kinds_;  // fastest first
  std::vector<int> blocks_;  // of a stage of each
  std::int64_t stages_ = 0;
};

}  // namespace

QuickLook quick_look(const SearchSpace& space, const Combination& one) { return Look(space, one).run(); }

}  // namespace coxswain::planner
