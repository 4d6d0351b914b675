#pragma once
// One stage on counts of devices: how a micro-batch is split over unequal replicas, whether it fits, what it takes.
// Every number is a bound from below of what the simulator says of that stage (the planner's law), and equal to it for
// the compute part. Called by PipelineProblem. Threads: one per object; SpanCosts is shared.
#include <cstdint>
#include <limits>
#include <map>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "planner/pools.h"
#include "planner/span_costs.h"

namespace coxswain::planner {

/// How the state of a stage lies over its replicas and their hosts.
struct StateChoice {
  int zero_stage = 0;
  plan::Offload offload = plan::Offload::None;
  friend bool operator==(const StateChoice&, const StateChoice&) = default;
};

/// Where a stage stands in the pipeline: `stage` of `num_stages`, from the model's begin. None of them: with one
/// micro-batch in flight, which is the least wherever it stands.
struct StagePlace {
  int stage = 0, num_stages = 0;
};

/// What is the same for all stages of one search.
struct StageContext {
  const SpanCosts* spans = nullptr;
  const std::vector<Pool>* pools = nullptr;
  std::int64_t micro = 0;  // samples of a micro-batch
  std::int64_t count = 0;  // micro-batches
  Bytes bucket_bytes{0};
  std::vector<Composition> compositions;  // what a stage may stand on
  bool spread = false;                    // replica r of stage s on unit r x num_stages + s of its pool
  int num_stages = 0;                     // known when spread
  std::vector<std::int64_t> samples;      // fixed by the user, largest first to the fastest; empty: free
  int receive_credits = 2;
  std::vector<StateChoice> states{{}};  // that a stage may choose from, least first
  /// Keep every choice that may be best for some pipeline; else the one that ends soonest by itself.
  bool all_choices = true;
  /// Keep every split, state and recompute; `ordered`: but those of which no action takes less than with another one,
  /// which steps no slower where a longer action never shortens the step.
  bool exhaustive = false, ordered = true;
  plan::ScheduleKind schedule = plan::ScheduleKind::OneForwardOneBackward;
  int num_chunks = 1;                                 // of a stage, which counts as one run all the same
  Ticks at_most = std::numeric_limits<Ticks>::max();  // exhaustive: of all micro-batches on a stage by itself
};

/// Replicas of one class that a micro-batch is split over.
struct SplitClass {
  std::int32_t replicas = 0;
  UnitKind key;            // for `time`
  std::int64_t limit = 0;  // most samples of one replica
};
/// What the replicas of a class have: `base` samples each, the first `extra` of them one more.
struct SplitShare {
  std::int64_t base = 0;
  std::int32_t extra = 0;
};

struct StageCost {
  StateChoice state;
  std::vector<Share> shares;               // of the micro-batch, pool by pool
  std::vector<plan::Recompute> recompute;  // per block
  Ticks busy = 0;                          // forward, backward and recompute of the slowest replica
  Ticks forward_min = 0, backward_min = 0,
        input_min = 0;  // of any replica, with recompute; input: without weights' part
  Ticks backward_max = 0, weight_max = 0;
  Ticks sync = 0, sync_last = 0;  // reduction of all buckets, of the last one
  Ticks optimizer = 0;
  std::int64_t least_samples = 0;
  /// Exhaustive: all that the compute actions of its replicas are made of.
  std::vector<Ticks> durations;
};

/// All that a stage may be.
struct StageChoices {
  bool splits = false;             // the micro-batch can be split so
  std::vector<StageCost> fitting;  // in the order of the states; empty: nothing fits
  std::vector<StageCost> relaxed;  // exhaustive: one that costs no pipeline more than any of `fitting` (C22)
  std::int64_t excess_bytes = 0;   // where it does not fit: missing on the worst device, at least
  int excess_class = 0;
  [[nodiscard]] bool fits() const { return !fitting.empty(); }
};

/// Costs of stages in one search, each computed once.
class StageCosts {
 public:
  explicit StageCosts(StageContext context) : context_(std::move(context)) {}
  [[nodiscard]] const StageContext& context() const { return context_; }
  /// Where a stage stands says what it holds. The reference lives as long as this object.
  const StageChoices& stage(int first, int end, int composition, StagePlace place);
  /// Time of a message across `cut` for `samples`, at best: activations forward, gradients backward.
  [[nodiscard]] Ticks edge(int cut, std::int64_t samples, const BestLink& link, bool gradient) const;

 private:
  /// What is the same for every state of one stage.
  struct Span {
    int first = 0, end = 0, composition = 0;
    const std::vector<cost_model::Moment>* moments = nullptr;
    Axes axes;
    std::int64_t replicas = 0;              // that hold equal shards of the parameters
    std::vector<const SampleTable*> cases;  // replicas of one class and number of samples are one case
  };
  using Moments = std::vector<cost_model::Moment>;
  [[nodiscard]] StagePlace alike(StagePlace place) const;
  [[nodiscard]] const Moments& moments(StagePlace place) const;
  StageChoices compute(int first, int end, int composition, const Moments& moments);
  StageChoices compute_all(int first, int end, int composition, const Moments& moments);
  void add_all_states(const Span& span, const StageCost& start, StageChoices& choices);
  [[nodiscard]] Span make_span(int first, int end, int composition, const Moments& moments, StageCost& start) const;
  bool fit(const Span& span, StageCost& result, StageChoices& choices) const;
  void add_times(const Span& span, StageCost& result);
  /// C26: what a block waits for beside its own work.
  cost_model::MeshTicks gathers(int block, int zero_stage, const Span& span);
  /// One device of each that hold equal shards, or equal experts.
  [[nodiscard]] const std::vector<plan::DeviceId>& shard_group(int composition, bool experts);
  std::vector<Share> split(int first, int end, const Composition& composition, const Moments& moments);
  /// Lowers the limits of classes that cannot hold their parts; false: nothing to mend.
  [[nodiscard]] bool limit_by_memory(int first, int end, const Composition& composition, const Moments& moments,
                                     const std::vector<SplitShare>& parts, std::vector<SplitClass>& classes) const;
  [[nodiscard]] std::vector<Share> split_as_asked(int first, int end, const Composition& composition) const;
  Ticks collective(collective::CollectiveKind kind, std::int64_t bytes, int composition, bool experts);
  [[nodiscard]] const Composition& at(int composition) const {
    return context_.compositions[static_cast<std::size_t>(composition)];
  }

  StageContext context_;
  std::unordered_map<std::uint64_t, StageChoices> stages_;
  std::map<std::tuple<int, std::int64_t, int, bool>, Ticks> collectives_;
  std::map<std::pair<int, bool>, std::vector<plan::DeviceId>> shard_groups_;
  /// Of the block looked at last: its neighbour is mostly alike. Key: elements, experts' elements, ZeRO stage, where.
  std::pair<std::tuple<std::int64_t, std::int64_t, int, int>, cost_model::MeshTicks> gathers_{{-1, 0, 0, 0}, {}};
};

/// Splits `micro` samples over replicas so that the slowest ends soonest: one sample after the other goes to the
/// replica that would end first. `time(key, samples)` rises with samples; equal replicas differ by at most one. Empty
/// when the limits leave samples over or a replica would have none. Cost: independent of the number of replicas.
template <class Time>
[[nodiscard]] std::vector<SplitShare> split_samples(std::int64_t micro, const std::vector<SplitClass>& classes,
                                                    Time time);

}  // namespace coxswain::planner

#include "planner/split_samples.h"
