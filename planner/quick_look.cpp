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

/// All blocks in blocks like those in the middle: the ends of a model weigh less or more.
int weigh_blocks(const SearchSpace& space, const Combination& one) {
  const Composition& composition = one.compositions->front();
  for (std::size_t p = 0; p < space.pools.size(); ++p) {
    if (composition.units.of[p] == 0) continue;
    const SampleTable& table = space.spans->table(composition.kind(space.pools, p),
                                                  (one.micro + composition.replicas() - 1) / composition.replicas());
    const auto middle = table.forward.size() / 2;
    const double each = static_cast<double>(table.forward[middle] + table.backward[middle]),
                 all = static_cast<double>(table.forward_sum.back() + table.backward_sum.back());
    const int blocks = space.spans->num_blocks();
    return each > 0 ? std::clamp(static_cast<int>(std::ceil(all / each - 0.01)), 1, blocks) : blocks;
  }
  return space.spans->num_blocks();
}

/// Blocks of the stages of each kind (fastest first) so that the slowest ends soonest.
struct Shares {
  std::vector<int> blocks;
  std::int64_t stages = 0;  // 0: the blocks do not fit
};

Shares share_out(const std::vector<Kind>& kinds, int num_blocks, std::int64_t max_stages) {
  Shares shares;
  const auto holds = [&](Ticks busiest, bool assign) {
    std::int64_t left = num_blocks, stages = 0;
    if (assign) shares.blocks.assign(kinds.size(), 0);
    for (std::size_t k = 0; k < kinds.size() && left > 0; ++k) {
      const std::int64_t each = std::min<std::int64_t>(busiest / kinds[k].busy, kinds[k].most_blocks);
      if (each == 0) continue;
      const std::int64_t used = std::min({(left + each - 1) / each, kinds[k].most_stages, max_stages - stages});
      if (assign && used > 0) shares.blocks[k] = static_cast<int>(std::min(each, left));
      left -= used * each;
      stages += used;
    }
    return left > 0 ? std::int64_t{0} : stages;
  };
  Ticks low = 0, high = kinds.back().busy * num_blocks;
  if (holds(high, false) == 0) return shares;
  while (high - low > std::max<Ticks>(1, high / 256)) {
    const Ticks middle = low + (high - low) / 2;
    (holds(middle, false) > 0 ? high : low) = middle;
  }
  shares.stages = holds(high, true);
  return shares;
}

class Look {
 public:
  Look(const SearchSpace& space, const Combination& one)
      : one_(one),
        num_blocks_(space.spans->num_blocks()),
        weighed_(weigh_blocks(space, one)),
        costs_(make_stage_context(space, one)) {
    for (std::size_t c = 0; c < one.compositions->size(); ++c) {
      const std::int64_t stages = std::min<std::int64_t>(one.max_stages, stages_on(space, (*one.compositions)[c]));
      const Kind kind{static_cast<int>(c), stages, num_blocks_, 0};
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
      Shares shares = share_out(kinds_, weighed_, one_.max_stages);
      if (shares.stages == 0) return kNoCost;
      blocks_ = std::move(shares.blocks);
      const std::int64_t stages = std::max<std::int64_t>(shares.stages, one_.min_stages);
      if (const Cost cost = cost_of_shares(stages); cost != kNoCost) return cost;
    }
    return kNoCost;
  }

  /// Of blocks like those in the middle of the model, at the stage that holds most; null: does not fit.
  const StageCost* cost_of(const Kind& kind, int blocks, std::int64_t stages) {
    const int first = std::min(1, num_blocks_ - blocks);
    const StageChoices& choices = costs_.stage(first, first + blocks, kind.composition, {0, static_cast<int>(stages)});
    return choices.fits() ? &choices.fitting.front() : nullptr;
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
    return busy * one_.count + (stages - 1) * path / one_.num_chunks + sync + optimizer;
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
  int num_blocks_, weighed_;
  StageCosts costs_;
  std::vector<Kind> kinds_;  // fastest first
  std::vector<int> blocks_;  // of a stage of each
  std::int64_t stages_ = 0;
};

}  // namespace

QuickLook quick_look(const SearchSpace& space, const Combination& one) { return Look(space, one).run(); }

int most_chunks(const SearchSpace& space, const Combination& one, std::int64_t stages) {
  if (space.chunked_schedules.empty() || one.schedule != plan::ScheduleKind::OneForwardOneBackward || one.spread ||
      one.fixed_cuts || stages < 2)
    return 1;
  int most = 1;
  for (const plan::ScheduleKind kind : space.chunked_schedules) {
    const auto choices = plan::chunk_choices(kind, static_cast<int>(stages), space.spans->num_blocks(), kMaxChunks);
    if (!choices.empty()) most = std::max(most, choices.back());
  }
  return most;
}

QuickLook chunked_look(const SearchSpace& space, const Combination& one, const QuickLook& plain) {
  QuickLook best;
  if (plain.cost == kNoCost) return best;
  int chunks = most_chunks(space, one, plain.num_stages);
  for (const int blocks : plain.num_blocks) {
    if (blocks > 0) chunks = std::min(chunks, blocks);
  }
  // Fewer hold less.
  for (; chunks > 1; chunks /= 2) {
    Combination chunked = one;
    chunked.num_chunks = chunks;
    QuickLook look = quick_look(space, chunked);
    look.num_chunks = chunks;
    if (look.cost < best.cost) best = std::move(look);
  }
  return best;
}

Cost guess_step(const SearchSpace& space, const Combination& one) {
  const SpanCosts& spans = *space.spans;
  const auto middle = static_cast<std::size_t>(spans.num_blocks() / 2);
  const bool splits = plan::splits_backward(one.schedule);
  std::vector<Kind> kinds;
  double hidden = 1.0;  // of a micro-batch's time in a stage, what the others wait for
  for (std::size_t c = 0; c < one.compositions->size(); ++c) {
    const Composition& composition = (*one.compositions)[c];
    const std::int64_t room = std::min<std::int64_t>(one.max_stages, stages_on(space, composition));
    Kind kind{static_cast<int>(c), room, spans.num_blocks(), 0};
    if (kind.most_stages == 0) continue;
    // Of unlike replicas each takes what it is fast enough for.
    const std::int64_t samples = (one.micro + composition.replicas() - 1) / composition.replicas();
    double rate = 0;
    int pools = 0;
    for (std::size_t p = 0; p < space.pools.size(); ++p) {
      if (composition.units.of[p] == 0) continue;
      const SampleTable& table = spans.table(composition.kind(space.pools, p), samples);
      const Ticks busy = std::max<Ticks>(1, table.forward[middle] + table.backward[middle]);
      rate += static_cast<double>(composition.units.of[p] * samples) / static_cast<double>(busy);
      if (splits)
        hidden = std::min(hidden, static_cast<double>(busy - 2 * table.weight[middle]) / static_cast<double>(busy));
      if (++pools == 1) kind.busy = busy;
    }
    if (pools > 1) kind.busy = static_cast<Ticks>(static_cast<double>(one.micro) / rate);
    kinds.push_back(kind);
  }
  if (kinds.empty()) return kNoCost;
  std::stable_sort(kinds.begin(), kinds.end(), [](const Kind& a, const Kind& b) { return a.busy < b.busy; });
  const Shares shares = share_out(kinds, weigh_blocks(space, one), one.max_stages);
  if (shares.stages == 0) return kNoCost;
  const std::int64_t stages = std::max<std::int64_t>(shares.stages, one.min_stages);
  Ticks busiest = 0, path = 0;
  for (std::size_t k = 0; k < kinds.size(); ++k) {
    busiest = std::max(busiest, kinds[k].busy * shares.blocks[k]);
    path = std::max(path, static_cast<Ticks>(hidden * static_cast<double>(kinds[k].busy * shares.blocks[k])));
  }
  return busiest * one.count + (stages - 1) * path / most_chunks(space, one, stages);
}

}  // namespace coxswain::planner
