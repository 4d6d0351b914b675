#pragma once
// The outer loop: micro-batch, count, schedule, family of compositions and layout, best first by bound, each an inner
// search over stages. Yields candidates in order of their cost bound. Called by find_plan. Threads: uses
// request.threads of its own; the result does not depend on how many. Source: DESIGN 3.5.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "planner/pipeline_problem.h"
#include "planner/planner.h"

namespace coxswain::planner {

struct CandidateStage {
  int first = 0, end = 0;
  Composition composition;
  std::vector<Share> shares;
  std::vector<plan::Recompute> recompute;  // per block, over all chunks
  StateChoice state;
  std::vector<plan::BlockRun> chunks;  // after the first, [first, end)
};

/// A plan before device ids and action lists.
struct Candidate {
  Cost bound = 0;  // no more than what it takes simulated
  plan::ScheduleKind schedule = plan::ScheduleKind::OneForwardOneBackward;
  std::int64_t micro = 0, count = 0;
  bool spread = false;
  std::vector<CandidateStage> stages;
  int num_chunks = 1;  // of a stage; several while each stage is one run: to be folded (with_chunks)
};

/// Everything that stays the same during one find_plan.
struct SearchSpace {
  const Request* request = nullptr;
  std::vector<Pool> pools;
  Counts devices;
  std::vector<std::int64_t> micros;           // allowed samples of a micro-batch
  std::vector<plan::ScheduleKind> schedules;  // whose stages are one run of blocks
  /// With several: tried on the best pipelines. `only_chunked`: the user asks for no others.
  std::vector<plan::ScheduleKind> chunked_schedules;
  bool only_chunked = false;
  int max_stages = 1;
  std::vector<int> allowed_stages;  // ascending
  bool large = false;               // all stages of a plan stand on alike shapes
  const SpanCosts* spans = nullptr;
  std::vector<StateChoice> states{{}};  // ZeRO and offload that a stage may choose from
  std::vector<std::vector<Axes>> axes;  // that units of a device class may have, smallest first
  std::vector<int> experts{1};          // sizes of the expert axis
  std::shared_ptr<WorkBounds> bounds = std::make_shared<WorkBounds>();
};
/// "2x1" units by stage: what tells shapes of candidates apart beside their replicas.
[[nodiscard]] std::vector<int> axes_of(const Candidate& candidate);
/// Errors: InvalidArgument and Unimplemented for constraints that contradict each other, the model or the devices.
[[nodiscard]] Result<SearchSpace> make_search_space(const Request& request);
/// First blocks of the later stages. Errors: form and range.
[[nodiscard]] Result<std::vector<int>> parse_cuts(const std::string& text, int num_blocks);
/// What the constraints say about recompute. Errors: InvalidArgument.
[[nodiscard]] Result<std::pair<RecomputeRule, std::vector<char>>> recompute_rule(const Request& request);

/// One inner search.
struct Combination {
  std::int64_t micro = 0, count = 0;
  plan::ScheduleKind schedule = plan::ScheduleKind::OneForwardOneBackward;
  std::shared_ptr<const std::vector<Composition>> compositions;  // what a stage may stand on
  int group = 0;                                                 // those of one group have the same axes
  int min_stages = 1, max_stages = 1, total_stages = 0;
  std::vector<int> cuts;
  bool fixed_cuts = false;
  bool spread = false;
  std::shared_ptr<const WorkBound> work;  // of the micro-batch
  Cost bound = 0;                         // no plan of it steps faster
  Cost chunked_bound = 0;                 // nor with several chunks a stage
  std::vector<int> num_blocks;            // of a stage on each composition, more or less; empty: any
  int num_chunks = 1;                     // of a stage; several: what is found is to be folded
};
/// Most stages that find room on the composition's pools, whatever the number that a combination allows.
[[nodiscard]] std::int64_t stages_on(const SearchSpace& space, const Composition& composition);
/// All of them, ascending in bound.
[[nodiscard]] std::vector<Combination> make_combinations(const SearchSpace& space);

/// The stages that `path` places, loss side first.
[[nodiscard]] Candidate make_candidate(const SearchSpace& space, const Combination& combination,
                                       const std::vector<PipelineProblem::Option>& path, Cost bound);
[[nodiscard]] PipelineShape make_pipeline_shape(const SearchSpace& space, const Combination& combination);

/// What is the same for all stages of `combination`.
[[nodiscard]] StageContext make_stage_context(const SearchSpace& space, const Combination& combination);

struct CombinationResult {
  std::vector<Candidate> candidates;  // ascending in bound
  Cost lower_bound = kNoCost;
  std::int64_t labels = 0, costed = 0;
  bool complete = true;
  PipelineProblem::Misfit misfit;
};
[[nodiscard]] CombinationResult search_combination(const SearchSpace& space, const Combination& combination,
                                                   Cost upper_bound, const SearchLimits& limits);

/// The candidate as a complete plan: device ids, buckets, action lists; no hashes. Without stages where the nodes have
/// no room for its units.
[[nodiscard]] plan::Plan place_candidate(const SearchSpace& space, const Candidate& candidate);

/// Most chunks of a stage that are tried.
inline constexpr int kMaxChunks = 4;

/// Gradient buckets of the plans that the planner makes: what PyTorch's DDP uses.
inline constexpr Bytes kBucketBytes{std::int64_t{25} << 20};

}  // namespace coxswain::planner
