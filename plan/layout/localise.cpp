// The layouts of a stage: its mesh one step after another, each step over the graph that the one before wrote.
#include <algorithm>
#include <numeric>
#include <string>

#include "common/ensure.h"
#include "plan/layout/local_graph.h"
#include "plan/layout/rewrite.h"

namespace coxswain::plan {
namespace {

using model::ModelGraph;
using model::ValueId;

/// Calls `visit` for every size and integer of the graph.
template <class Visit>
void for_each_dim(ModelGraph& graph, Visit&& visit) {
  for (model::Value& value : graph.values)
    for (model::Dim& dim : value.dims) visit(dim);
  for (model::Op& op : graph.ops) {
    for (model::Argument& argument : op.arguments) {
      if (auto* dim = std::get_if<model::Dim>(&argument.value)) visit(*dim);
      if (auto* dims = std::get_if<std::vector<model::Dim>>(&argument.value))
        for (model::Dim& dim : *dims) visit(dim);
    }
  }
}

/// The graph with the batch bound: every size is a number.
ModelGraph bind_samples(const ModelGraph& graph, std::int64_t samples) {
  ModelGraph bound = graph;
  if (graph.batch_symbol.empty()) return bound;
  const model::Bindings bindings{{graph.batch_symbol, samples}};
  for_each_dim(bound, [&](model::Dim& dim) { dim = model::Dim(dim.evaluate(bindings)); });
  bound.batch_symbol.clear();
  bound.static_batch = samples;
  return bound;
}

/// From the stand-in for samples to their number.
std::int64_t with_samples(std::int64_t size, std::int64_t samples) {
  return size % kSamples == 0 ? size / kSamples * samples : size;
}

void bind_samples(LocalGraph& local, std::int64_t samples) {
  for_each_dim(local.graph, [&](model::Dim& dim) { dim = model::Dim(with_samples(dim.constant(), samples)); });
  for (std::vector<Cut>& cuts : local.cuts)
    for (Cut& cut : cuts) cut.outer = with_samples(cut.outer, samples);
  local.graph.static_batch = samples;
}

LocalGraph whole_graph(const ModelGraph& bound, const Replica& replica) {
  LocalGraph local;
  local.graph = bound;
  local.axes = mesh_axes(replica);
  local.origin.resize(bound.ops.size());
  std::iota(local.origin.begin(), local.origin.end(), 0);
  local.cuts.resize(bound.values.size());
  local.gradient_axes.assign(bound.parameters.size(), (AxisSet{1} << local.axes.size()) - 1);
  return local;
}

/// The axes in steps: context first, then the tensor axis as one, or its primes in two groups, outermost first.
std::vector<std::vector<MeshStep>> possible_steps(const std::vector<MeshAxis>& axes) {
  std::vector<MeshStep> context;
  std::vector<int> tensor;
  for (std::size_t a = 0; a < axes.size(); ++a) {
    if (axes[a].kind == AxisKind::Context) {
      context.push_back({AxisKind::Context, AxisSet{1} << a, axes[a].size});
    } else {
      tensor.push_back(static_cast<int>(a));
    }
  }
  const auto step_of = [&](std::size_t first, std::size_t end) {
    MeshStep step;
    for (std::size_t i = first; i < end; ++i) {
      step.axes |= AxisSet{1} << tensor[i];
      step.size *= axes[static_cast<std::size_t>(tensor[i])].size;
    }
    return step;
  };
  std::vector<std::vector<MeshStep>> all;
  for (std::size_t cut = 0; cut < std::max<std::size_t>(tensor.size(), 1); ++cut) {
    std::vector<MeshStep> steps = context;
    if (cut > 0) steps.push_back(step_of(0, cut));
    if (!tensor.empty()) steps.push_back(step_of(cut, tensor.size()));
    for (std::size_t s = 0; s + 1 < steps.size(); ++s) steps[s].even = true;
    if (cut > 0) steps[steps.size() - 1].start_share = steps[steps.size() - 2].start_share = 0.5;
    all.push_back(std::move(steps));
  }
  return all;
}

int index_in(const std::vector<MeshAxis>& axes, AxisSet set, int position) {
  const std::vector<int> members = members_of(axes, set, position);
  return static_cast<int>(std::find(members.begin(), members.end(), position) - members.begin());
}

/// What a step decides, the same for every member.
struct StepLayout {
  std::vector<ChosenRun> runs;
  std::map<ValueId, Form> stored;
};

struct Layout {
  std::vector<MeshStep> steps;
  std::vector<StepLayout> decided;
  LayoutCost cost;
  std::vector<char> is_split;  // by block
};

double weight_bytes(const ModelGraph& graph, const std::vector<int>& parameters) {
  double bytes = 0;
  for (const int p : parameters) {
    const model::Parameter& parameter = graph.parameters[static_cast<std::size_t>(p)];
    if (!parameter.trainable || parameter.dims.size() < 2) continue;
    double own = static_cast<double>(size_of(parameter.dtype).value);
    for (const std::int64_t dim : parameter.dims) own *= static_cast<double>(dim);
    bytes += own;
  }
  return bytes;
}

std::vector<int> blocks_of(const Stage& stage) {
  std::vector<int> blocks;
  for (const BlockRun& run : runs_of(stage))
    for (int b = run.first_block; b < run.end_block; ++b) blocks.push_back(b);
  return blocks;
}

/// Decides block by block, so that a block's layout depends on no cut (a plan may move it, its cost is known alone), on
/// the first position's parts: they are the largest, and every member decides alike.
Layout decide(const LocalGraph& whole, const Stage& stage, const std::vector<MeshStep>& steps) {
  Layout layout;
  layout.steps = steps;
  layout.is_split.assign(whole.graph.blocks.size(), 0);
  LocalGraph local = whole;
  for (const MeshStep& step : steps) {
    StepLayout decided;
    for (const int b : blocks_of(stage)) {
      const BlockRun block{b, b + 1};
      const auto choices = list_choices(local.graph, block, step);
      RunLayout found = find_layout(local.graph, block, step, choices, decided.stored);
      layout.cost.seconds += found.cost.seconds;
      layout.cost.whole_parameter_bytes += found.cost.whole_parameter_bytes;
      for (const auto& [op, choice] : found.chosen)
        if (choice.kind != Choice::Kind::Replicate && choice.kind != Choice::Kind::Linear)
          layout.is_split[static_cast<std::size_t>(b)] = 1;
      decided.runs.push_back({block, std::move(found.chosen)});
    }
    local = rewrite(local, step, 0, decided.runs, decided.stored);
    layout.decided.push_back(std::move(decided));
  }
  std::vector<int> parameters;
  for (const BlockRun& run : runs_of(stage))
    for (const int p : model::slice_stage(whole.graph, run.first_block, run.end_block).parameters)
      if (std::find(parameters.begin(), parameters.end(), p) == parameters.end()) parameters.push_back(p);
  layout.cost.whole_parameter_bytes += weight_bytes(local.graph, parameters);
  return layout;
}

Result<void> check_split(const ModelGraph& graph, const Stage& stage, const Replica& replica, const Layout& layout) {
  std::vector<Error> problems;
  for (const int b : blocks_of(stage)) {
    const model::Block& block = graph.blocks[static_cast<std::size_t>(b)];
    const bool works = std::any_of(graph.ops.begin() + block.first_op, graph.ops.begin() + block.end_op,
                                   [&](const model::Op& op) { return is_influenced(graph, op); });
    // What stands around the repeated blocks (patches of an image, say) may be done by all.
    const bool is_end = block.name == "prologue" || block.name == "epilogue";
    if (!works || is_end || layout.is_split[static_cast<std::size_t>(b)] != 0) continue;
    problems.push_back({ErrorCode::InvalidArgument, "no operator of this block can be split over the mesh",
                        "block " + std::to_string(b) + " (" + block.name + ")",
                        "an operator with a sharding rule and a dim of at least as many parts",
                        "tensor " + std::to_string(replica.tensor) + ", context " + std::to_string(replica.context),
                        "use smaller axes for this stage (docs/layout.md says what can be split)"});
  }
  if (problems.empty()) return {};
  return combine_errors(ErrorCode::InvalidArgument, "blocks that the mesh cannot split", std::move(problems));
}

}  // namespace

std::vector<Cut> edge_cuts(const ModelGraph& graph, ValueId value, std::int64_t samples, const Replica& replica,
                           int position) {
  const auto devices = static_cast<int>(replica.devices.size());
  if (devices < 2) return {};
  const std::int64_t stand_in = graph.batch_symbol.empty() ? samples : kSamples;
  const model::Bindings bindings{{graph.batch_symbol, stand_in}};
  const auto& dims = graph.values[static_cast<std::size_t>(value)].dims;
  std::vector<std::int64_t> sizes;
  for (const model::Dim& dim : dims) sizes.push_back(dim.evaluate(bindings));
  const int dim = edge_dim(sizes, replica);
  if (dim < 0) return {};
  Cut cut;
  cut.dim = dim;
  cut.extent = sizes[static_cast<std::size_t>(dim)];
  cut.axes = (AxisSet{1} << mesh_axes(replica).size()) - 1;
  cut.runs = {part_of_extent(cut.extent, devices, position)};
  return {cut};
}

Result<LocalGraph> localise_stage(const ModelGraph& graph, const Stage& stage, const Replica& replica, int position) {
  const auto devices = static_cast<int>(replica.devices.size());
  if (devices < 2) return whole_graph(bind_samples(graph, replica.samples), replica);
  const LocalGraph whole = whole_graph(bind_samples(graph, kSamples), replica);
  const std::vector<int> edge_dims = find_edge_dims(whole.graph, replica);
  std::optional<Layout> best;
  for (std::vector<MeshStep>& steps : possible_steps(whole.axes)) {
    for (MeshStep& step : steps) step.edge_dims = &edge_dims;
    Layout layout = decide(whole, stage, steps);
    if (!best || layout.cost < best->cost) best = std::move(layout);
  }
  COX_ENSURE(best.has_value(), devices);
  COX_TRY_VOID(check_split(graph, stage, replica, *best));
  LocalGraph local = whole;
  for (std::size_t s = 0; s < best->steps.size(); ++s) {
    const MeshStep& step = best->steps[s];
    local =
        rewrite(local, step, index_in(whole.axes, step.axes, position), best->decided[s].runs, best->decided[s].stored);
  }
  merge_transitions(local);
  if (!graph.batch_symbol.empty()) bind_samples(local, replica.samples);
  return local;
}

}  // namespace coxswain::plan
