#include "planner/pipeline_problem.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace coxswain::planner {
namespace {

/// Samples whose rates are looked at for the best rate of a block (C23): all of a small micro-batch, powers of two of a
/// large one, where rates change slowly.
std::vector<std::int64_t> probe_samples(std::int64_t micro, std::int64_t fixed) {
  constexpr std::int64_t kSmall = 32;
  if (fixed > 0) return {fixed};
  std::vector<std::int64_t> samples;
  for (std::int64_t s = 1; s < micro; s += s < kSmall ? 1 : s) samples.push_back(s);
  samples.push_back(micro);
  return samples;
}

}  // namespace

PipelineProblem::PipelineProblem(StageCosts& costs, PipelineShape shape, Cost upper_bound)
    : costs_(costs), shape_(std::move(shape)), upper_bound_(upper_bound) {
  const StageContext& context = costs_.context();
  const SpanCosts& spans = *context.spans;
  const cluster::ResourceGraph& graph = spans.cost().resources();
  num_blocks_ = spans.num_blocks();
  const std::size_t num_classes = graph.device_classes.size();

  // C23. A device of class c does at most max_b(w_b / r_cb) units of work a tick, where a sample of block b is w_b
  // units and takes at least r_cb ticks.
  std::vector<char> present(num_classes, 0);
  for (std::size_t p = 0; p < context.pools->size(); ++p)
    present[static_cast<std::size_t>((*context.pools)[p].device_class)] = 1;
  const auto probes = probe_samples(context.micro, spans.cost().facts().static_batch());
  std::vector<std::vector<double>> rate(num_classes, std::vector<double>(static_cast<std::size_t>(num_blocks_), 0));
  for (std::size_t c = 0; c < num_classes; ++c) {
    if (present[c] == 0) continue;
    for (int b = 0; b < num_blocks_; ++b) {
      const auto i = static_cast<std::size_t>(b);
      double best = std::numeric_limits<double>::max();
      for (const std::int64_t samples : probes) {
        const SampleTable& table = spans.table(static_cast<int>(c), samples);
        best = std::min(best, static_cast<double>(table.forward[i] + table.backward[i]) / static_cast<double>(samples));
      }
      rate[c][i] = best;
    }
  }
  work_sum_ = {0};
  path_sum_ = {0};
  for (int b = 0; b < num_blocks_; ++b) {
    const auto i = static_cast<std::size_t>(b);
    double least = std::numeric_limits<double>::max();
    for (std::size_t c = 0; c < num_classes; ++c) {
      if (present[c] != 0) least = std::min(least, rate[c][i]);
    }
    work_sum_.push_back(work_sum_.back() + least);
    path_sum_.push_back(path_sum_.back() + static_cast<Cost>(least));
  }
  units_per_tick_.assign(num_classes, 0);
  for (std::size_t c = 0; c < num_classes; ++c) {
    for (int b = 0; b < num_blocks_ && present[c] != 0; ++b) {
      const auto i = static_cast<std::size_t>(b);
      const double units = work_sum_[i + 1] - work_sum_[i];
      if (rate[c][i] > 0) units_per_tick_[c] = std::max(units_per_tick_[c], units / rate[c][i]);
    }
  }

  const std::vector<Counts>& compositions = context.compositions;
  links_.resize(compositions.size());
  for (std::size_t a = 0; a < compositions.size(); ++a) {
    for (const Counts& b : compositions)
      links_[a].push_back(best_link(graph, *context.pools, compositions[a], b, context.spread));
  }
  best_bandwidth_ = best_link(graph, *context.pools, shape_.devices, shape_.devices, true).bandwidth;
  step_overhead_ = kNoCost;
  for (std::size_t c = 0; c < num_classes; ++c) {
    if (present[c] != 0)
      step_overhead_ =
          std::min(step_overhead_, cost_model::to_ticks(spans.cost().estimate_step_overhead(static_cast<int>(c))));
  }
}

int PipelineProblem::in_flight(int later) const {
  const std::int64_t count = costs_.context().count;
  return static_cast<int>(shape_.schedule == plan::ScheduleKind::GPipe ? count
                                                                       : std::min<std::int64_t>(count, later + 1));
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

bool PipelineProblem::worth_going_on(const StageCost& stage, const State& state, int first) {
  ++num_costed_;
  if (!stage.splits) return false;
  if (!stage.fits) {
    const bool least = misfit_.count == 0 || stage.excess_bytes < misfit_.least_excess;
    ++misfit_.count;
    if (least) misfit_ = {misfit_.count, stage.excess_bytes, first, state.block, stage.excess_class};
    return !shape_.skip_misfits;
  }
  return upper_bound_ == kNoCost || stage.busy * costs_.context().count < upper_bound_;
}

// C22
std::optional<std::pair<PipelineProblem::State, PipelineProblem::Label>> PipelineProblem::extend(const State& state,
                                                                                                 const Label& label,
                                                                                                 const Option& option) {
  const Counts& counts = costs_.context().compositions[static_cast<std::size_t>(option.composition)];
  const StageCost& stage = *option.stage;
  const Cost m = costs_.context().count;
  State next{option.first, state.num_stages + 1, state.remaining - counts, option.composition};
  if (option.first == 0 && shape_.use_all_devices && next.remaining.total() > 0) return std::nullopt;

  Cost forward_edge = 0, backward_edge = 0;
  if (state.next >= 0) {
    const BestLink& link = links_[static_cast<std::size_t>(option.composition)][static_cast<std::size_t>(state.next)];
    forward_edge = costs_.edge(state.block, label.next_samples, link, false);
    backward_edge = costs_.edge(state.block, stage.least_samples, link, true);
  }
  const Cost away =
      state.next >= 0 ? forward_edge + label.round + backward_edge : 0;  // from the end of F to the start of B
  // While the last micro-batch is away, a 1F1B stage has the backward passes of those before it to run; GPipe has none.
  const Cost held = shape_.schedule == plan::ScheduleKind::GPipe ? 0 : std::min<Cost>(state.num_stages, m - 1);
  const Cost own = m * stage.busy + std::max<Cost>(0, away - held * stage.backward_max);
  const Cost path = stage.forward_min + stage.backward_min;

  Label result;
  result.round = path + away;
  result.chain = own;
  if (state.next >= 0) {
    result.chain = std::max(result.chain, path + forward_edge + backward_edge + label.chain);
    // Messages of one edge follow each other.
    result.chain = std::max(result.chain, path + m * std::max(forward_edge, backward_edge) + label.round +
                                              std::min(forward_edge, backward_edge));
    if (shape_.schedule != plan::ScheduleKind::GPipe) {
      // A stage lets one micro-batch in for each that comes back once it holds all it may.
      const Cost window = state.num_stages + 1;
      result.chain =
          std::max(result.chain, ((m - 1) % window) * stage.forward_min + ((m - 1) / window + 1) * result.round);
    }
    result.sync = stage.forward_min + forward_edge + label.sync;
  }
  result.sync = std::max({result.sync, own + stage.sync_last, own - stage.backward_max + stage.sync});
  result.optimizer = std::max(label.optimizer, stage.optimizer);
  result.next_samples = stage.least_samples;
  if (option.first == 0 && state.next >= 0) {
    // Parameters tied across stages: reduced after the owner's last backward, sent back after its update.
    const Cost tied = tied_time(state.block);
    result.chain += tied;
    result.optimizer = std::max(result.optimizer, stage.optimizer + tied);
  }
  return std::pair{next, result};
}

bool PipelineProblem::dominates(const Label& a, const Label& b) const {
  return a.chain <= b.chain && a.sync <= b.sync && a.round <= b.round && a.optimizer <= b.optimizer &&
         a.next_samples <= b.next_samples;
}

Cost PipelineProblem::work_bound(int end_block, const Counts& devices) const {
  const StageContext& context = costs_.context();
  double speed = 0;
  for (std::size_t p = 0; p < context.pools->size(); ++p)
    speed += devices.of[p] * units_per_tick_[static_cast<std::size_t>((*context.pools)[p].device_class)];
  if (work_sum_[static_cast<std::size_t>(end_block)] == 0) return 0;
  if (speed == 0) return kNoCost;
  return static_cast<Cost>(std::floor(static_cast<double>(context.micro * context.count) *
                                      work_sum_[static_cast<std::size_t>(end_block)] / speed));
}

Cost PipelineProblem::time_of_work(double units_per_tick) const {
  const StageContext& context = costs_.context();
  if (units_per_tick <= 0) return kNoCost;
  const double units = static_cast<double>(context.micro * context.count) * work_sum_.back();
  return static_cast<Cost>(units / units_per_tick * (1 - 1e-9));
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
