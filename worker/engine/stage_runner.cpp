#include "worker/engine/stage_runner.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <utility>

#include "worker/engine/tensor_types.h"

namespace coxswain::worker {
namespace {

using model::ValueId;
using torch::autograd::Edge;
using torch::autograd::variable_list;

// Where backward ends: an input of a segment. Unlike AccumulateGrad it does not keep the tensor alive.
struct SegmentInput final : torch::autograd::Node {
  variable_list apply(variable_list&&) override { return {}; }
  std::string name() const override { return "CoxswainSegmentInput"; }
};

Edge make_leaf(at::Tensor& tensor) {
  tensor = tensor.variable_data();
  auto node = c10::make_intrusive<SegmentInput>();
  const std::uint32_t number = node->add_input_metadata(tensor);
  Edge edge(std::move(node), number);
  torch::autograd::impl::set_gradient_edge(tensor, edge);
  return edge;
}

}  // namespace

StageRunner::StageRunner(const model::ModelGraph& graph, LoweredStage stage, ParameterStore& store)
    : graph_(graph), stage_(std::move(stage)), store_(store) {
  locals_.resize(graph.values.size() + graph.parameters.size());
  for (const auto& [value, tensor] : stage_.constants) locals_[value] = tensor;
  for (const Segment& segment : stage_.segments) {
    std::vector<Edge> edges;
    for (const auto& [p, copy] : segment.parameters) {
      const at::Tensor& leaf = copy ? store.copy_leaf(p) : store.leaf(p);
      locals_[copy ? copy_of(graph, p) : graph.parameters[p].value] = leaf;
      edges.push_back(torch::autograd::impl::gradient_edge(leaf));
    }
    parameter_edges_.push_back(std::move(edges));
  }
  for (const at::Tensor& tensor : locals_)
    if (tensor.defined()) resident_.insert(tensor.storage().unsafeGetStorageImpl());
}

Result<std::unique_ptr<StageRunner>> StageRunner::make(const model::ModelGraph& graph, const LoweringOptions& options,
                                                       const WeightSource& weights, ParameterStore& store) {
  COX_TRY(LoweredStage stage, lower_stage(graph, options, weights));
  std::unique_ptr<StageRunner> runner(new StageRunner(graph, std::move(stage), store));
  if (options.offload_activations) runner->mover_ = std::make_unique<HostMover>();
  return runner;
}

MicroBatch StageRunner::make_micro_batch(const RunMode& mode) const {
  MicroBatch batch;
  batch.mode = mode;
  batch.values.resize(graph_.values.size());
  if (mode.training) {
    batch.gradients.resize(graph_.values.size());
    batch.graphs.resize(stage_.segments.size());
  }
  return batch;
}

std::string StageRunner::where() const {
  if (current_ < 0) return "";
  const model::Op& op = graph_.ops[current_];
  return (op.module_path.empty() ? "" : op.module_path + ": ") + op.target +
         (op.source.empty() ? "" : " (" + op.source + ")");
}

void StageRunner::run_code(Code& code, const RunMode& mode) {
  for (std::size_t i = 0; i < code.calls.size(); ++i) {
    current_ = code.calls[i].op();
    code.calls[i].run(locals_, mode);
    for (const ValueId v : code.releases[i]) locals_[v].reset();
  }
  current_ = -1;
}

bool StageRunner::dies_in(const MicroBatch& batch, ValueId value, int index) const {
  if (stage_.is_sent[value] != 0 || stage_.last_forward_use[value] > index) return false;
  return !batch.mode.training || stage_.first_recompute_use[value] >= static_cast<int>(stage_.segments.size());
}

void StageRunner::run_prelude(MicroBatch& batch) {
  const at::NoGradGuard no_grad;
  for (const ValueId v : stage_.prelude.inputs) locals_[v] = batch.values[v];
  run_code(stage_.prelude.code, batch.mode);
  for (const ValueId v : stage_.prelude.outputs) batch.values[v] = std::move(locals_[v]);
  for (const ValueId v : stage_.prelude.inputs)
    if (dies_in(batch, v, -1)) batch.values[v].reset();
  batch.prepared = true;
}

void StageRunner::enter(MicroBatch& batch, int index, bool with_graph, bool replay) {
  const Segment& segment = stage_.segments[index];
  const bool recomputed = batch.mode.training && segment.recompute;
  std::vector<Edge> edges;
  for (const ValueId v : segment.inputs) {
    // Its last reader takes the tensor along, so that it can be freed in the middle of the segment.
    const bool last = replay ? stage_.first_recompute_use[v] == index : !recomputed && dies_in(batch, v, index);
    at::Tensor tensor = last ? std::move(batch.values[v]) : batch.values[v];
    if (last && mover_ && !replay && tensor.defined()) entered_.push_back(tensor.storage().getWeakStorageImpl());
    edges.push_back(with_graph && graph_.values[v].requires_grad ? make_leaf(tensor) : Edge());
    locals_[v] = std::move(tensor);
  }
  if (with_graph) batch.graphs[index].inputs = std::move(edges);
}

void StageRunner::leave(MicroBatch& batch, int index, bool with_graph, bool replay) {
  for (const auto& [v, dtype] : stage_.segments[index].casts) locals_[v] = locals_[v].to(dtype);
  for (const ValueId v : stage_.segments[index].outputs) {
    at::Tensor tensor = std::move(locals_[v]);
    if (with_graph && tensor.requires_grad())
      batch.graphs[index].outputs.emplace_back(v, torch::autograd::impl::gradient_edge(tensor));
    if (!replay) batch.values[v] = tensor.requires_grad() ? tensor.variable_data() : std::move(tensor);
  }
  // An input without a reader left (its operator was folded away) stays behind.
  for (const ValueId v : stage_.segments[index].inputs) locals_[v].reset();
}

void StageRunner::run_segment(MicroBatch& batch, int index, bool with_graph, bool replay) {
  const at::AutoGradMode grad_mode(with_graph);
  RunMode mode = batch.mode;
  mode.replay = replay;
  entered_.clear();
  enter(batch, index, with_graph, replay);
  const bool moves = mover_ && batch.mode.training && !replay;
  if (with_graph && !replay && (moves || !stage_.segments[index].again.empty())) return run_keeping(batch, index, mode);
  run_code(stage_.segments[index].code, mode);
  leave(batch, index, with_graph, replay);
  if (moves) move_out(batch, index, {});
}

void StageRunner::run_keeping(MicroBatch& batch, int index, const RunMode& mode) {
  KeepingRun run(graph_, stage_.segments[index], locals_, resident_, mover_ != nullptr);
  run.run(mode, [&](model::OpId op) { current_ = op; });
  current_ = -1;
  leave(batch, index, true, false);
  BlockStorages& storages = batch.graphs[index].storages;
  storages = run.take();
  if (mover_) move_out(batch, index, std::move(storages.kept));
}

// What the block received and nobody reads again before its backward.
void StageRunner::add_kept_inputs(MicroBatch& batch, int index, std::vector<c10::Storage>& kept) {
  const auto is_moved = [&](const c10::Storage& storage) {
    return std::any_of(kept.begin(), kept.end(), [&](const c10::Storage& other) {
      return other.unsafeGetStorageImpl() == storage.unsafeGetStorageImpl();
    });
  };
  // Values may be views of one storage.
  const auto num_values = [&](const c10::Storage& storage) {
    return std::count_if(batch.values.begin(), batch.values.end(), [&](const at::Tensor& value) {
      return value.defined() && value.storage().unsafeGetStorageImpl() == storage.unsafeGetStorageImpl();
    });
  };
  const auto add = [&](c10::Storage storage, std::ptrdiff_t values) {
    const bool stays = storage.nbytes() == 0 || resident_.count(storage.unsafeGetStorageImpl()) > 0 ||
                       num_values(storage) > values || is_moved(storage);
    if (!stays) kept.push_back(std::move(storage));
  };
  for (const auto& entered : entered_)
    if (auto storage = entered.lock()) add(c10::Storage(std::move(storage)), 0);
  entered_.clear();
  // A block that recomputes holds them as values.
  for (const ValueId v : stage_.segments[index].inputs) {
    const at::Tensor& tensor = batch.values[v];
    if (tensor.defined() && stage_.is_sent[v] == 0 && stage_.last_forward_use[v] <= index) add(tensor.storage(), 1);
  }
}

// One block's storages are on their way while the next one computes.
void StageRunner::move_out(MicroBatch& batch, int index, std::vector<c10::Storage> kept) {
  add_kept_inputs(batch, index, kept);
  if (kept.empty()) return;
  batch.graphs[index].moved = mover_->move_out(std::move(kept));
  leaving_.push_back(batch.graphs[index].moved);
  for (; leaving_.size() > 1; leaving_.pop_front()) mover_->wait(leaving_.front());
}

// This block's are back before its backward begins; those of the block below come beside it.
void StageRunner::bring_back(MicroBatch& batch, int index) {
  const std::shared_ptr<MovedStorages> moved = std::move(batch.graphs[index].moved);
  if (moved) mover_->move_back(moved);
  if (index > 0 && batch.graphs[index - 1].moved) mover_->move_back(batch.graphs[index - 1].moved);
  if (moved) mover_->wait(moved);
}

Result<void> StageRunner::forward(MicroBatch& batch, int first_block, int end_block) {
  const auto body = [&]() -> Result<void> {
    if (!batch.prepared) run_prelude(batch);
    for (int b = first_block; b < end_block; ++b) {
      const int index = b - stage_.first_block;
      run_segment(batch, index, batch.mode.training && !stage_.segments[index].recompute, false);
    }
    // What the next action finds does not depend on how fast the last block left.
    for (; !leaving_.empty(); leaving_.pop_front()) mover_->wait(leaving_.front());
    return {};
  };
  try {
    return body();
  } catch (const std::exception&) {
    return current_torch_error(where());
  }
}

void StageRunner::add_parameter_gradients(int index, variable_list::iterator gradients) {
  for (const auto& use : stage_.segments[index].parameters) {
    at::Tensor gradient = std::move(*gradients++);
    if (gradient.defined()) store_.add_gradient(use.parameter, gradient);
  }
}

void StageRunner::run_backward(MicroBatch& batch, int index, bool split) {
  Segment& segment = stage_.segments[index];
  if (mover_) bring_back(batch, index);
  if (segment.recompute) run_segment(batch, index, true, true);
  if (!batch.graphs[index].storages.emptied.empty()) {
    RunMode mode = batch.mode;
    mode.replay = true;
    run_again(graph_, segment, locals_, mode, std::exchange(batch.graphs[index].storages, {}));
  }
  SegmentGraph graph = std::move(batch.graphs[index]);
  batch.graphs[index] = {};
  std::vector<Edge> roots;
  variable_list gradients;
  for (auto& [value, edge] : graph.outputs) {
    if (!batch.gradients[value].defined()) continue;
    roots.push_back(std::move(edge));
    gradients.push_back(std::move(batch.gradients[value]));
    batch.gradients[value].reset();
  }
  graph.outputs.clear();
  if (roots.empty()) return;
  std::vector<Edge> targets;
  std::vector<ValueId> values;
  for (std::size_t i = 0; i < segment.inputs.size(); ++i) {
    if (!graph.inputs[i].is_valid()) continue;
    targets.push_back(std::move(graph.inputs[i]));
    values.push_back(segment.inputs[i]);
  }
  const std::vector<Edge>& parameters = parameter_edges_[index];
  variable_list results;
  if (split) {
    results = run_input_half(std::move(roots), std::move(gradients), targets, parameters, batch.owed[index]);
  } else {
    targets.insert(targets.end(), parameters.begin(), parameters.end());
    if (targets.empty()) return;
    results = torch::autograd::Engine::get_default_engine().execute(
        roots, gradients, /*keep_graph=*/false, /*create_graph=*/false, /*accumulate_grad=*/false, targets);
    gradients.clear();
  }
  for (std::size_t i = 0; i < values.size(); ++i)
    if (results[i].defined()) add_gradient(batch, values[i], std::move(results[i]));
  add_parameter_gradients(index, results.begin() + static_cast<std::ptrdiff_t>(values.size()));
}

Result<void> StageRunner::for_blocks_in_reverse(int first_block, int end_block, const std::function<void(int)>& body) {
  try {
    for (int b = end_block - 1; b >= first_block; --b) body(b - stage_.first_block);
    return {};
  } catch (const std::exception&) {
    return current_torch_error(where());
  }
}

Result<void> StageRunner::backward(MicroBatch& batch, int first_block, int end_block) {
  return for_blocks_in_reverse(first_block, end_block, [&](int index) { run_backward(batch, index, false); });
}

Result<void> StageRunner::backward_inputs(MicroBatch& batch, int first_block, int end_block) {
  batch.owed.resize(stage_.segments.size());
  return for_blocks_in_reverse(first_block, end_block, [&](int index) { run_backward(batch, index, true); });
}

Result<void> StageRunner::backward_weights(std::vector<WeightWork>& owed, int first_block, int end_block) {
  return for_blocks_in_reverse(first_block, end_block, [&](int index) {
    variable_list gradients = run_weight_half(std::exchange(owed[index], {}), parameter_edges_[index]);
    add_parameter_gradients(index, gradients.begin());
  });
}

Result<std::vector<double>> StageRunner::count(MicroBatch& batch) {
  try {
    const at::NoGradGuard no_grad;
    for (const ValueId v : stage_.count.inputs) locals_[v] = batch.values[v];
    run_code(stage_.count.code, batch.mode);
    std::vector<double> counts;
    for (const int t : stage_.terms) {
      const auto denominator = graph_.loss[t].denominator;
      counts.push_back(denominator ? locals_[*denominator].item().toDouble() : 0);
    }
    for (const ValueId v : stage_.count.inputs) locals_[v].reset();
    for (const ValueId v : stage_.count.outputs)
      if (graph_.values[v].producer >= 0 &&
          !std::any_of(stage_.constants.begin(), stage_.constants.end(), [&](const auto& c) { return c.first == v; }))
        locals_[v].reset();
    return counts;
  } catch (const std::exception&) {
    return current_torch_error(where());
  }
}

void StageRunner::add_gradient(MicroBatch& batch, ValueId value, at::Tensor gradient) {
  at::Tensor& sum = batch.gradients[value];
  sum = sum.defined() ? sum.add(gradient) : std::move(gradient);
}

at::Tensor StageRunner::take_sent(MicroBatch& batch, ValueId value) const {
  const bool needed =
      batch.mode.training && stage_.first_recompute_use[value] < static_cast<int>(stage_.segments.size());
  if (needed) return batch.values[value];
  at::Tensor tensor = std::move(batch.values[value]);
  batch.values[value].reset();
  return tensor;
}

}  // namespace coxswain::worker
