#include "plan/zero_bubble_search.h"

#include <algorithm>
#include <cmath>

#include "plan/zero_bubble_improve.h"
#include "plan/zero_bubble_timer.h"

namespace coxswain::plan {
namespace {

using Alternate = ZeroBubblePolicy::Alternate;

enum Knob {
  Spacing,
  Turns,
  Weave,
  Fill,
  ForwardWait,
  Patience,
  Communication,
  Flying,
  FlyingChange,
  Target,
  FlyingSecond,
  Chunks
};

constexpr std::array kSpacing{0.4, 0.6, 0.2, 0.8, 0.25};  // of a micro-batch's work
constexpr std::array kTurns{Alternate::Always, Alternate::AfterInput, Alternate::Never};
constexpr std::array kWeave{-1, 0, 2, 4};
constexpr std::array kFill{1.0, 0.5, 0.1};
constexpr std::array kForwardWait{0.0, 0.5, 1.0};
constexpr std::array kPatience{0.02, 0.0, 0.1, 0.25, 0.5};
constexpr std::array kCommunication{false, true};
constexpr std::array kFlyingOne{0.25, 0.5, 0.75, 1.0, 0.0};  // between what steady work needs and what fills the start
constexpr std::array kFlyingV{0.5, 0.4, 0.6, 0.75, 1.0, 0.3};  // of the first chunk on the last device
constexpr std::array kFlyingChange{1, 2, 3, 0};
constexpr std::array kFlyingSecond{1.0, 0.6, 0.5, 0.4};    // of the second chunk, of all that memory holds
constexpr std::array kTarget{1.0, 1.01, 1e3};              // of the bound ...
constexpr std::array kTargetOfBest{0.999, 0.9975, 0.995};  // ... or of the best span so far

/// The first few are best on even pipelines; the others were the best set of their size on 45 random ones.
constexpr std::array<ZeroBubbleKnobs, 12> kStartsOne{{{0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0},
                                                      {2, 1, 0, 0, 0, 1, 1, 3, 1, 0, 0, 0},
                                                      {0, 1, 0, 1, 0, 1, 1, 2, 0, 0, 0, 0},
                                                      {1, 0, 0, 0, 0, 0, 1, 3, 1, 1, 0, 0},
                                                      {4, 0, 0, 1, 1, 4, 0, 3, 0, 1, 0, 0},
                                                      {2, 2, 0, 0, 0, 4, 1, 2, 1, 0, 0, 0},
                                                      {0, 1, 0, 2, 0, 4, 1, 3, 0, 0, 0, 0},
                                                      {0, 2, 0, 1, 2, 4, 0, 1, 0, 0, 0, 0},
                                                      {3, 1, 0, 1, 1, 3, 0, 2, 0, 1, 0, 0},
                                                      {1, 0, 0, 1, 1, 3, 1, 3, 1, 2, 0, 0},
                                                      {3, 0, 0, 0, 2, 4, 0, 0, 0, 0, 0, 0},
                                                      {4, 2, 0, 2, 0, 2, 1, 3, 0, 2, 0, 0}}};
constexpr std::array<ZeroBubbleKnobs, 13> kStartsV{{{0, 1, 1, 1, 0, 3, 0, 2, 3, 2, 1, 0},
                                                    {1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
                                                    {3, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0},
                                                    {0, 2, 0, 2, 0, 4, 1, 0, 0, 1, 2, 0},
                                                    {3, 2, 0, 1, 0, 3, 1, 0, 1, 2, 2, 0},
                                                    {1, 0, 0, 0, 1, 1, 1, 1, 0, 2, 3, 0},
                                                    {3, 1, 0, 1, 1, 3, 0, 0, 0, 1, 2, 0},
                                                    {0, 2, 2, 1, 2, 4, 0, 0, 1, 0, 1, 0},
                                                    {1, 0, 0, 1, 1, 2, 1, 0, 0, 2, 0, 0},
                                                    {0, 0, 0, 0, 1, 4, 0, 3, 1, 2, 1, 0},
                                                    {2, 2, 0, 2, 1, 0, 1, 1, 0, 1, 2, 0},
                                                    {0, 1, 1, 1, 0, 0, 0, 2, 0, 1, 0, 0},
                                                    {4, 2, 1, 0, 2, 2, 0, 0, 1, 1, 0, 0}}};

std::size_t at(int index) { return static_cast<std::size_t>(index); }

double seconds_like(Ticks ticks) { return static_cast<double>(ticks); }

/// One chunk: device d needs so many micro-batches in flight that gradients come back in time: between round trip over
/// work (steady) and round trip over forward (no idle time before the first gradient).
std::vector<int> flying_of_one(const ZeroBubblePipeline& pipeline, double depth, bool up) {
  std::vector<int> flying;
  for (int device = 0; device < pipeline.num_devices; ++device) {
    const double trip = seconds_like(round_trip(pipeline, device, device));
    const double steady = (trip + seconds_like(pipeline.input[at(device)])) /
                          std::max(1.0, seconds_like(pipeline.work_per_micro_batch(device)));
    const double full = trip / std::max(1.0, seconds_like(pipeline.forward[at(device)]));
    const double wanted = std::min(steady + depth * (full - steady), 1.0 * pipeline.num_micro_batches);
    flying.push_back(std::clamp(static_cast<int>(up ? std::ceil(wanted - 1e-9) : std::floor(wanted + 1e-9)), 1,
                                std::max(1, pipeline.max_in_flight())));
  }
  return flying;
}

/// A V: the first chunk's forwards fill the first device, whose second chunk comes back at once, and share the last
/// device with the second chunk's.
std::vector<int> flying_of_v(const ZeroBubblePipeline& pipeline, double last_fraction, int less) {
  std::vector<int> flying;
  const int most = std::max(1, pipeline.max_in_flight());
  const double first = most - less, last = last_fraction * pipeline.max_in_flight();
  for (int device = 0; device < pipeline.num_devices; ++device) {
    const double share = pipeline.num_devices > 1 ? 1.0 * device / (pipeline.num_devices - 1) : 0;
    flying.push_back(std::clamp(static_cast<int>(std::ceil(first + (last - first) * share - 1e-9)), 1, most));
  }
  return flying;
}

class Search {
 public:
  Search(const ZeroBubblePipeline& pipeline, Ticks bound)
      : pipeline_(pipeline), bound_(bound), dispatcher_(pipeline), timer_(pipeline) {}

  StepSearch run();

 private:
  void try_knobs(const ZeroBubbleKnobs& knobs);
  void change_knobs();
  [[nodiscard]] bool done() const { return best_.span <= bound_ || best_.num_candidates >= max_candidates_; }

  const ZeroBubblePipeline& pipeline_;
  Ticks bound_;
  ZeroBubbleDispatcher dispatcher_;
  ZeroBubbleTimer timer_;
  StepLists lists_;
  StepSearch best_;
  ZeroBubbleKnobs best_knobs_{};
  std::int64_t max_candidates_ = 0;
};

void Search::try_knobs(const ZeroBubbleKnobs& knobs) {
  if (done()) return;
  ++best_.num_candidates;
  if (!dispatcher_.run(make_policy(pipeline_, knobs, bound_, best_.span), lists_)) return;
  const Ticks span = timer_.time_all(lists_);
  if (span >= best_.span) return;
  for (const std::vector<Step>& list : lists_) {
    if (peak_memory(pipeline_, list) > pipeline_.memory_limit) return;
  }
  best_.span = span;
  best_.lists = lists_;
  best_knobs_ = knobs;
}

void Search::change_knobs() {
  for (bool better = true; better && !done();) {
    const Ticks before = best_.span;
    for (int knob = 0; knob < kNumKnobs; ++knob) {
      const ZeroBubbleKnobs from = best_knobs_;
      for (int choice = 0; choice < num_choices(pipeline_, knob); ++choice) {
        if (choice == from[at(knob)]) continue;
        ZeroBubbleKnobs knobs = from;
        knobs[at(knob)] = choice;
        try_knobs(knobs);
      }
    }
    better = best_.span < before;
  }
}

StepSearch Search::run() {
  const std::int64_t actions = std::int64_t{pipeline_.num_devices} * pipeline_.steps_per_device();
  max_candidates_ = std::max<std::int64_t>(5, 30'000 / actions);
  best_.lists = sequential_steps(pipeline_);
  best_.span = timer_.time_all(best_.lists);
  if (pipeline_.num_chunks == 1) {
    for (const ZeroBubbleKnobs& knobs : kStartsOne) try_knobs(knobs);
  } else {
    for (const ZeroBubbleKnobs& knobs : kStartsV) try_knobs(knobs);
  }
  change_knobs();
  if (best_.span > bound_) {
    ImproveOptions options;
    options.max_moves = std::max<std::int64_t>(400, 1'100'000 / actions);
    // Few moves leave no time to come back from bad ones.
    options.first_threshold =
        pipeline_.work_per_micro_batch(0) / 20'000 * std::min<std::int64_t>(options.max_moves, 1'000);
    options.good_enough = bound_;
    best_.span = improve_steps(pipeline_, options, best_.lists, best_.num_candidates);
  }
  return std::move(best_);
}

}  // namespace

int num_choices(const ZeroBubblePipeline& pipeline, int knob) {
  const bool one = pipeline.num_chunks == 1;
  const std::array<std::size_t, kNumKnobs> sizes{kSpacing.size(),
                                                 kTurns.size(),
                                                 one ? std::size_t{1} : kWeave.size(),
                                                 kFill.size(),
                                                 kForwardWait.size(),
                                                 kPatience.size(),
                                                 kCommunication.size(),
                                                 one ? kFlyingOne.size() : kFlyingV.size(),
                                                 one ? std::size_t{2} : kFlyingChange.size(),
                                                 kTarget.size() + kTargetOfBest.size(),
                                                 one ? std::size_t{1} : kFlyingSecond.size(),
                                                 one ? std::size_t{1} : std::size_t{2}};
  return static_cast<int>(sizes[at(knob)]);
}

ZeroBubblePolicy make_policy(const ZeroBubblePipeline& pipeline, const ZeroBubbleKnobs& knobs, Ticks bound,
                             Ticks best) {
  const auto choice = [&](Knob knob) { return at(knobs[at(knob)]); };
  Ticks work = 0;
  for (int device = 0; device < pipeline.num_devices; ++device)
    work = std::max(work, pipeline.work_per_micro_batch(device));
  ZeroBubblePolicy policy;
  policy.spacing = static_cast<Ticks>(kSpacing[choice(Spacing)] * seconds_like(work));
  policy.chunks_alternate = choice(Chunks) == 1;
  policy.alternate = kTurns[choice(Turns)];
  policy.weave_until = kWeave[choice(Weave)];
  policy.fill_fraction = kFill[choice(Fill)];
  policy.forward_wait_fraction = kForwardWait[choice(ForwardWait)];
  policy.patience_fraction = kPatience[choice(Patience)];
  policy.count_communication = kCommunication[choice(Communication)];
  const std::size_t target = choice(Target);
  policy.target =
      static_cast<Ticks>(target < kTarget.size() ? kTarget[target] * seconds_like(bound)
                                                 : kTargetOfBest[target - kTarget.size()] * seconds_like(best));
  if (pipeline.num_chunks == 1) {
    policy.max_flying[0] = flying_of_one(pipeline, kFlyingOne[choice(Flying)], choice(FlyingChange) == 0);
  } else {
    policy.max_flying[0] = flying_of_v(pipeline, kFlyingV[choice(Flying)], kFlyingChange[choice(FlyingChange)]);
    const double second = kFlyingSecond[choice(FlyingSecond)] * pipeline.max_in_flight();
    policy.max_flying[1].assign(at(pipeline.num_devices), std::max(1, static_cast<int>(std::ceil(second - 1e-9))));
  }
  return policy;
}

StepSearch search_steps(const ZeroBubblePipeline& pipeline, Ticks bound) { return Search(pipeline, bound).run(); }

}  // namespace coxswain::plan
