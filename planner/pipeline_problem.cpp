#include "planner/pipeline_problem.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "plan/schedule.h"

namespace coxswain::planner {

PipelineProblem::PipelineProblem(StageCosts& costs, const WorkBound& work, PipelineShape shape, Cost upper_bound)
    : costs_(costs), work_(work), shape_(std::move(shape)), upper_bound_(upper_bound) {
  const StageContext& context = costs_.context();
  const SpanCosts& spans = *context.spans;
  const cluster::ResourceGraph& graph = spans.cost().resources();
  num_blocks_ = spans.num_blocks();
  const std::vector<Composition>& compositions = context.compositions;
  links_.resize(compositions.size());
  for (std::size_t a = 0; a < compositions.size(); ++a) {
    for (const Composition& b : compositions)
      links_[a].push_back(best_link(graph, *context.pools, compositions[a], b, context.spread));
  }
  Composition all;
  all.devices = all.units = shape_.devices;
  best_bandwidth_ = best_link(graph, *context.pools, all, all, true).bandwidth;
  step_overhead_ = kNoCost;
  for (const Pool& pool : *context.pools) {
    step_overhead_ =
        std::min(step_overhead_, cost_model::to_ticks(spans.cost().estimate_step_overhead(pool.device_class)));
  }
}

StagePlace PipelineProblem::place(int later) const {
  // H1 holds as much at every stage as 1F1B at the first: at least what the stages placed so far ask for.
  const int stages = std::max({shape_.min_stages, later + 1, shape_.total_stages});
  return {stages - 1 - later, stages};
}

std::pair<PipelineProblem::State, PipelineProblem::Label> PipelineProblem::start() const {
  return {State{num_blocks_, 0, shape_.devices, -1}, Label{}};
}

bool PipelineProblem::may_cut(const State& state, int first) const {
  const int stages = state.num_stages + 1;
  if (first == 0 ? stages < shape_.min_stages || stages > shape_.max_stages : stages >= shape_.max_stages) return false;
  if (first > 0 && shape_.min_stages - stages > first) return false;  // too few blocks for the stages that must follow
  if (!costs_.context().spans->has_work(first, state.block)) return false;
  if (first > 0 && !costs_.context().spans->has_work(0, first)) return false;
  if (!shape_.fixed_cuts) return true;
  const int left = static_cast<int>(shape_.cuts.size()) - stages;  // cuts that remain after this one
  return first == 0 ? left == -1 : left >= 0 && first == shape_.cuts[static_cast<std::size_t>(left)];
}

bool PipelineProblem::hopeless(const State& state, int first, const Counts& counts) const {
  return first > 0 && upper_bound_ != kNoCost && work_bound(first, state.remaining - counts) >= upper_bound_;
}

bool PipelineProblem::worth_going_on(const StageChoices& choices, const State& state, int first) {
  ++num_costed_;
  if (!choices.splits) return false;
  if (!choices.fits()) {
    const bool least = misfit_.count == 0 || choices.excess_bytes < misfit_.least_excess;
    ++misfit_.count;
    if (least) misfit_ = {misfit_.count, choices.excess_bytes, first, state.block, choices.excess_class};
    return !shape_.skip_misfits;
  }
  return upper_bound_ == kNoCost ||
         std::any_of(choices.fitting.begin(), choices.fitting.end(),
                     [&](const StageCost& one) { return one.busy * costs_.context().count < upper_bound_; });
}

// C22
std::optional<std::pair<PipelineProblem::State, PipelineProblem::Label>> PipelineProblem::extend(const State& state,
                                                                                                 const Label& label,
                                                                                                 const Option& option) {
  const Counts& counts = costs_.context().compositions[static_cast<std::size_t>(option.composition)].devices;
  const StageCost& stage = *option.stage;
  const Cost m = costs_.context().count;
  State next{option.first, state.num_stages + 1, state.remaining - counts, option.composition};
  if (!shape_.num_blocks.empty() && state.next >= 0 && state.next != option.composition && !shape_.use_all_devices) {
    // The composition before does not come again.
    const Counts& left = costs_.context().compositions[static_cast<std::size_t>(state.next)].devices;
    for (std::size_t p = 0; p < kMaxPools; ++p) {
      if (left.of[p] > 0 && counts.of[p] == 0) next.remaining.of[p] = 0;
    }
  }
  if (option.first == 0 && shape_.use_all_devices && next.remaining.total() > 0) return std::nullopt;

  Cost forward_edge = 0, backward_edge = 0;
  if (state.next >= 0) {
    const BestLink& link = links_[static_cast<std::size_t>(option.composition)][static_cast<std::size_t>(state.next)];
    forward_edge = costs_.edge(state.block, label.next_samples, link, false);
    backward_edge = costs_.edge(state.block, stage.least_samples, link, true);
  }
  if (shape_.num_chunks > 1) return std::pair{next, extend_chunked(state, label, option, forward_edge, backward_edge)};
  const bool splits = plan::splits_backward(shape_.schedule);
  const Cost away =
      state.next >= 0 ? forward_edge + label.round + backward_edge : 0;  // from the end of F to the start of B
  // While the last micro-batch is away, a 1F1B stage has the backward passes of those before it to run; GPipe has none,
  // and one that splits them may have weights' parts of any.
  const Cost held = shape_.schedule == plan::ScheduleKind::GPipe ? 0 : std::min<Cost>(state.num_stages, m - 1);
  const Cost own = m * stage.busy + (splits ? 0 : std::max<Cost>(0, away - held * stage.backward_max));
  const Cost path = stage.forward_min + (splits ? stage.input_min : stage.backward_min);

  Label result;
  result.round = path + away;
  result.chain = own;
  if (state.next >= 0) {
    // C28: behind the last input gradient that it sends a later stage may still have weights' parts to run.
    const Cost back = splits ? 0 : stage.backward_min + backward_edge;
    result.chain = std::max({result.chain, stage.forward_min + forward_edge + label.chain + back, result.round});
    // Messages of one edge follow each other.
    result.chain = std::max(result.chain, path + m * std::max(forward_edge, backward_edge) + label.round +
                                              std::min(forward_edge, backward_edge));
    if (shape_.schedule == plan::ScheduleKind::OneForwardOneBackward) {
      // A stage lets one micro-batch in for each that comes back once it holds all it may.
      const Cost window = state.num_stages + 1;
      result.chain =
          std::max(result.chain, ((m - 1) % window) * stage.forward_min + ((m - 1) / window + 1) * result.round);
    }
    result.sync = stage.forward_min + forward_edge + label.sync;
  }
  result.sync = std::max(
      {result.sync, own + stage.sync_last, own - (splits ? stage.weight_max : stage.backward_max) + stage.sync});
  result.optimizer = std::max(label.optimizer, stage.optimizer);
  result.next_samples = stage.least_samples;
  if (option.first == 0 && state.next >= 0) {
    // Parameters tied across stages: reduced after the first stage's last backward.
    result.chain += tied_time(state.block);
  }
  return std::pair{next, result};
}

// C37
PipelineProblem::Label PipelineProblem::extend_chunked(const State& state, const Label& label, const Option& option,
                                                       Cost forward_edge, Cost backward_edge) const {
  const StageCost& stage = *option.stage;
  const Cost m = costs_.context().count, v = shape_.num_chunks;
  // The other stages wait for the first chunk of each before them, and for the backward of the same.
  const Cost away = state.next >= 0 ? forward_edge + label.round + backward_edge : 0;
  const Cost forward = stage.forward_min / v, path = (stage.forward_min + stage.backward_min) / v;
  const Cost own = m * stage.busy + away;
  Label result;
  result.round = path + away;
  result.chain = own;
  if (state.next >= 0) {
    result.chain = std::max(result.chain, path + forward_edge + label.chain + backward_edge);
    result.chain = std::max(result.chain, path + m * v * std::max(forward_edge, backward_edge) + label.round);
    result.sync = forward + forward_edge + label.sync;
  }
  result.sync = std::max({result.sync, own + stage.sync_last, own - stage.backward_max / v + stage.sync});
  result.optimizer = std::max(label.optimizer, stage.optimizer);
  result.next_samples = stage.least_samples;
  if (option.first == 0 && state.next >= 0) result.chain += tied_time(state.block);
  return result;
}

bool PipelineProblem::dominates(const Label& a, const Label& b) const {
  return a.chain <= b.chain && a.sync <= b.sync && a.round <= b.round && a.optimizer <= b.optimizer &&
         a.next_samples <= b.next_samples;
}

Cost PipelineProblem::bound(const State& state, const Label& label) const {
  if (is_final(state)) return finish(state, label);
  const Cost rest = work_bound(state.block, state.remaining);
  if (rest == kNoCost) return kNoCost;
  return std::max({label.chain, label.sync, rest}) + label.optimizer + step_overhead_;
}

Cost PipelineProblem::tied_time(int end) const {
  // Every algorithm sends at least the payload once over a link of the group.
  Cost time = 0;
  for (const cost_model::ParameterFacts& parameter : costs_.context().spans->cost().facts().parameters()) {
    if (!parameter.trainable || parameter.blocks.empty() || parameter.blocks.front() >= end ||
        parameter.blocks.back() < end)
      continue;
    if (best_bandwidth_.value > 0)
      time += cost_model::to_ticks(size_of(DType::Float32) * parameter.elements / best_bandwidth_);
  }
  return time;
}

Cost PipelineProblem::finish(const State&, const Label& label) const {
  return std::max(label.chain, label.sync) + label.optimizer + step_overhead_;
}

}  // namespace coxswain::planner
