// The layouts of a stage: its mesh one step after another, each step over the graph that the one before wrote.
#include <algorithm>
#include <iterator>
#include <numeric>
#include <string>

#include "common/ensure.h"
#include "plan/layout/complete_sums.h"
#include "plan/layout/context_runs.h"
#include "plan/layout/divide_experts.h"
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
std::vector<std::vector<MeshStep>> possible_steps(const std::vector<MeshAxis>& axes, int context_runs) {
  std::vector<MeshStep> context;
  std::vector<int> tensor;
  for (std::size_t a = 0; a < axes.size(); ++a) {
    if (axes[a].kind == AxisKind::Context) {
      context.push_back({AxisKind::Context, AxisSet{1} << a, axes[a].size});
      context.back().runs = context_runs;
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

/// No choices of the step's operators take less.
double least_seconds(const ModelGraph& graph, const Stage& stage, const MeshStep& step) {
  double all = 0;
  for (const int b : blocks_of(stage)) {
    const model::Block& range = graph.blocks[static_cast<std::size_t>(b)];
    for (model::OpId id = range.first_op; id < range.end_op; ++id) {
      const model::Op& op = graph.ops[static_cast<std::size_t>(id)];
      if (is_influenced(graph, op)) all += nominal_seconds(graph, op, describe(graph, op)) / step.size;
    }
  }
  // Splits of dims that do not divide are a little below; sums in another order may differ in the last bits.
  return all * (1 - 1e-9);
}

/// Where in the block each value stands that leaves it: with the signature, all that a layout depends on.
std::string key_of(const ModelGraph& graph, int block) {
  const model::Block& range = graph.blocks[static_cast<std::size_t>(block)];
  std::string key = range.signature;
  const auto add = [&](ValueId v) {
    const model::OpId producer = graph.values[static_cast<std::size_t>(v)].producer;
    if (producer < range.first_op || producer >= range.end_op) return;
    const auto& outputs = graph.ops[static_cast<std::size_t>(producer)].outputs;
    key += ' ' + std::to_string(producer - range.first_op) + '.' +
           std::to_string(std::find(outputs.begin(), outputs.end(), v) - outputs.begin());
  };
  for (const ValueId v : model::slice_stage(graph, block, block + 1).sent) add(v);
  for (const model::LossTerm& term : graph.loss) add(term.numerator);
  return key;
}

/// Trainable parameters of a block, in the order of their first readers.
std::vector<ValueId> parameters_read(const ModelGraph& graph, int block, const std::vector<char>& trainable) {
  std::vector<ValueId> read;
  const auto add = [&](ValueId v) {
    if (trainable[static_cast<std::size_t>(v)] != 0 && std::find(read.begin(), read.end(), v) == read.end())
      read.push_back(v);
  };
  const model::Block& range = graph.blocks[static_cast<std::size_t>(block)];
  for (model::OpId id = range.first_op; id < range.end_op; ++id) {
    for (const model::Argument& argument : graph.ops[static_cast<std::size_t>(id)].arguments) {
      if (const auto* one = std::get_if<model::ValueRef>(&argument.value)) add(one->id);
      if (const auto* list = std::get_if<std::vector<std::optional<model::ValueRef>>>(&argument.value))
        for (const auto& element : *list)
          if (element) add(element->id);
    }
  }
  return read;
}

/// One step over the blocks of a stage. Equal blocks are searched once, unless an earlier block placed a parameter.
class StepSearch {
 public:
  StepSearch(const ModelGraph& graph, const MeshStep& step)
      : graph_(graph), step_(step), trainable_(graph.values.size(), 0) {
    for (const model::Parameter& parameter : graph.parameters)
      if (parameter.trainable) trainable_[static_cast<std::size_t>(parameter.value)] = 1;
  }

  RunLayout find(int block, std::map<ValueId, Form>& stored) {
    const std::vector<ValueId> own = parameters_read(graph_, block, trainable_);
    const bool placed = std::any_of(own.begin(), own.end(), [&](ValueId v) { return stored.contains(v); });
    const model::OpId first = graph_.blocks[static_cast<std::size_t>(block)].first_op;
    const std::string key = placed ? std::string() : key_of(graph_, block);
    if (const auto found = placed ? searched_.end() : searched_.find(key); found != searched_.end()) {
      const Searched& like = found->second;
      for (std::size_t p = 0; p < own.size(); ++p)
        if (like.forms[p]) stored.emplace(own[p], *like.forms[p]);
      RunLayout layout;
      layout.cost = like.layout.cost;
      for (const auto& [id, choice] : like.layout.chosen) layout.chosen.emplace(id - like.first_op + first, choice);
      return layout;
    }
    const BlockRun run{block, block + 1};
    RunLayout layout = find_layout(graph_, run, step_, list_choices(graph_, run, step_), stored);
    if (placed) return layout;
    Searched searched{layout, first, {}};
    for (const ValueId v : own)
      searched.forms.push_back(stored.contains(v) ? std::optional(stored.at(v)) : std::nullopt);
    searched_.emplace(key, std::move(searched));
    return layout;
  }

 private:
  struct Searched {
    RunLayout layout;
    model::OpId first_op = 0;
    std::vector<std::optional<Form>> forms;  // by parameter in the order of its first reader
  };
  const ModelGraph& graph_;
  const MeshStep& step_;
  std::vector<char> trainable_;  // by value
  std::map<std::string, Searched> searched_;
};

/// Decides block by block, so that a block's layout depends on no cut (a plan may move it, its cost is known alone), on
/// the first position's parts: they are the largest, and every member decides alike.
void decide_step(LocalGraph& local, const Stage& stage, const MeshStep& step, Layout& layout) {
  StepLayout decided;
  StepSearch search(local.graph, step);
  for (const int b : blocks_of(stage)) {
    RunLayout found = search.find(b, decided.stored);
    layout.cost.seconds += found.cost.seconds;
    layout.cost.whole_parameter_bytes += found.cost.whole_parameter_bytes;
    for (const auto& [op, choice] : found.chosen)
      if (choice.kind != Choice::Kind::Replicate && choice.kind != Choice::Kind::Linear)
        layout.is_split[static_cast<std::size_t>(b)] = 1;
    decided.runs.push_back({{b, b + 1}, std::move(found.chosen)});
  }
  local = rewrite(local, step, 0, decided.runs, decided.stored);
  layout.steps.push_back(step);
  layout.decided.push_back(std::move(decided));
}

std::vector<int> parameters_of(const ModelGraph& graph, const Stage& stage) {
  std::vector<int> parameters;
  for (const BlockRun& run : runs_of(stage))
    for (const int p : model::slice_stage(graph, run.first_block, run.end_block).parameters)
      if (std::find(parameters.begin(), parameters.end(), p) == parameters.end()) parameters.push_back(p);
  return parameters;
}

/// The least of all ways to take the axes in steps. The first that are alike (a context axis) are decided once.
Layout decide(const LocalGraph& whole, const Stage& stage, const std::vector<int>& edge_dims, int context_runs) {
  std::vector<std::vector<MeshStep>> ways = possible_steps(whole.axes, context_runs);
  for (std::vector<MeshStep>& steps : ways)
    for (MeshStep& step : steps) step.edge_dims = &edge_dims;
  const std::vector<int> parameters = parameters_of(whole.graph, stage);
  Layout common;
  common.is_split.assign(whole.graph.blocks.size(), 0);
  LocalGraph begun = whole;
  std::size_t shared = 0;
  if (ways.front().size() > 1) {
    decide_step(begun, stage, ways.front().front(), common);
    shared = 1;
  }
  int tensor = 1;
  for (const MeshStep& step : ways.front())
    if (step.kind == AxisKind::Tensor) tensor = step.size;
  const double least_bytes = common.cost.whole_parameter_bytes + weight_bytes(whole.graph, parameters) / tensor;
  std::optional<Layout> best;
  for (const std::vector<MeshStep>& steps : ways) {
    Layout layout = common;
    LocalGraph local = begun;
    bool loses = false;
    for (std::size_t s = shared; s < steps.size() && !loses; ++s) {
      // No layout holds less than its part of every weight; work alone then says that another way is no better.
      loses = best && best->cost.whole_parameter_bytes <= least_bytes &&
              layout.cost.seconds + least_seconds(local.graph, stage, steps[s]) >= best->cost.seconds;
      if (!loses) decide_step(local, stage, steps[s], layout);
    }
    if (loses) continue;
    layout.cost.whole_parameter_bytes += weight_bytes(local.graph, parameters);
    if (!best || layout.cost < best->cost) best = std::move(layout);
  }
  COX_ENSURE(best.has_value(), whole.axes.size());
  return std::move(*best);
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

/// Of all blocks of the stage. `local`: at kSamples samples, so that no dim of rows looks like another.
Result<std::vector<ExpertRun>> expert_runs_of(const ModelGraph& graph, const LocalGraph& local, const Stage& stage) {
  const std::vector<std::int64_t> counts = expert_counts(graph);
  std::vector<ExpertRun> runs;
  for (const int b : blocks_of(stage)) {
    COX_TRY(std::vector<ExpertRun> found,
            find_expert_runs(local, local.graph.blocks[static_cast<std::size_t>(b)], counts));
    runs.insert(runs.end(), std::make_move_iterator(found.begin()), std::make_move_iterator(found.end()));
  }
  return runs;
}

/// Of the stage's samples.
double share_of(const Stage& stage, const Replica& replica) {
  std::int64_t all = 0;
  for (const Replica& one : stage.replicas) all += one.samples;
  return static_cast<double>(replica.samples) / static_cast<double>(all);
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
  // As the steps cut: the context axis first, the tensor axis the rows that it leaves.
  std::vector<Cut> cuts;
  std::int64_t extent = sizes[static_cast<std::size_t>(dim)];
  const AxisSet all = (AxisSet{1} << mesh_axes(replica).size()) - 1, context = replica.context > 1 ? 1 : 0;
  const int of_context = position / replica.tensor, of_tensor = position % replica.tensor;
  if (context != 0) {
    cuts.push_back(
        {dim, 1, extent, 1, context, runs_of_extent(extent, replica.context, of_context, context_runs(graph))});
    extent = total_rows(cuts.back().runs);
  }
  if (replica.tensor > 1)
    cuts.push_back({dim, 1, extent, 1, all & ~context, {part_of_extent(extent, replica.tensor, of_tensor)}});
  return cuts;
}

Result<LocalGraph> localise_stage(const ModelGraph& graph, const Stage& stage, const Replica& replica, int position,
                                  const ExpertPlace& experts) {
  return localise_stage(graph, stage, replica, position, replica.context > 1 ? context_runs(graph) : 1, experts);
}

Result<LocalGraph> localise_stage(const ModelGraph& graph, const Stage& stage, const Replica& replica, int position,
                                  int context_runs, const ExpertPlace& experts) {
  const auto devices = static_cast<int>(replica.devices.size());
  if (devices < 2) {
    LocalGraph local = whole_graph(bind_samples(graph, replica.samples), replica);
    if (experts.size == 1) return local;
    COX_TRY(const auto runs, expert_runs_of(graph, whole_graph(bind_samples(graph, kSamples), replica), stage));
    divide_experts(local, runs, experts);
    complete_sums(local, graph, stage, share_of(stage, replica));
    return local;
  }
  const LocalGraph whole = whole_graph(bind_samples(graph, kSamples), replica);
  const std::vector<int> edge_dims = find_edge_dims(whole.graph, replica);
  const Layout best = decide(whole, stage, edge_dims, context_runs);
  COX_TRY_VOID(check_split(graph, stage, replica, best));
  LocalGraph local = whole;
  for (std::size_t s = 0; s < best.steps.size(); ++s) {
    const MeshStep& step = best.steps[s];
    local =
        rewrite(local, step, index_in(whole.axes, step.axes, position), best.decided[s].runs, best.decided[s].stored);
  }
  merge_transitions(local);
  if (experts.size > 1) {
    COX_TRY(const auto runs, expert_runs_of(graph, local, stage));
    divide_experts(local, runs, experts);
    complete_sums(local, graph, stage, share_of(stage, replica));
  }
  if (!graph.batch_symbol.empty()) bind_samples(local, replica.samples);
  return local;
}

}  // namespace coxswain::plan
