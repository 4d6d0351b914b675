#include "tests/plan/layout/lockstep.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

#include "worker/engine/op_call.h"
#include "worker/engine/tensor_types.h"
#include "worker/engine/weights.h"

namespace coxswain::tests {
namespace {

using model::Op;
using model::OpId;
using model::ValueId;
using plan::Cut;
using plan::LocalGraph;
using Tensors = std::vector<at::Tensor>;

template <class T>
T need(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message + " " + result.error().path);
  return std::move(*result);
}

const model::Argument::Variant* find(const Op& op, const std::string& name) {
  for (const model::Argument& argument : op.arguments)
    if (argument.name == name) return &argument.value;
  return nullptr;
}
std::int64_t number(const Op& op, const std::string& name) { return std::get<model::Dim>(*find(op, name)).constant(); }
ValueId tensor_id(const Op& op, const std::string& name) { return std::get<model::ValueRef>(*find(op, name)).id; }

// A dim as (outer, extent, inner).
at::Tensor rows_of(const at::Tensor& tensor, std::int64_t dim, std::int64_t outer, std::int64_t inner,
                   const std::vector<std::pair<std::int64_t, std::int64_t>>& runs) {
  std::vector<std::int64_t> sizes = tensor.sizes().vec(), open = sizes;
  const std::int64_t extent = sizes[dim] / (outer * inner);
  open.erase(open.begin() + dim);
  open.insert(open.begin() + dim, {outer, extent, inner});
  const at::Tensor opened = tensor.reshape(open);
  Tensors pieces;
  for (const auto& [first, size] : runs) pieces.push_back(opened.narrow(dim + 1, first, size));
  const at::Tensor part = at::cat(pieces, dim + 1);
  sizes[dim] = outer * part.size(dim + 1) * inner;
  return part.reshape(sizes);
}

using Runs = std::vector<std::vector<std::pair<std::int64_t, std::int64_t>>>;  // by member
Runs runs_of(const Op& op, const std::string& name, std::size_t members) {
  const auto& list = std::get<std::vector<model::Dim>>(*find(op, name));
  Runs runs(members);
  const std::size_t each = list.size() / members;
  for (std::size_t m = 0; m < members; ++m)
    for (std::size_t i = m * each; i < (m + 1) * each; i += 2)
      runs[m].emplace_back(list[i].constant(), list[i + 1].constant());
  return runs;
}

// The whole from its parts.
at::Tensor join(const Tensors& parts, std::int64_t dim, std::int64_t outer, std::int64_t inner, const Runs& runs) {
  std::vector<std::pair<std::int64_t, at::Tensor>> pieces;
  for (std::size_t m = 0; m < parts.size(); ++m) {
    std::int64_t at = 0;
    for (const auto& [first, size] : runs[m]) {
      pieces.emplace_back(first, rows_of(parts[m], dim, outer, inner, {{at, size}}));
      at += size;
    }
  }
  std::sort(pieces.begin(), pieces.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  Tensors opened;
  std::vector<std::int64_t> sizes = parts[0].sizes().vec();
  for (const auto& [first, piece] : pieces) {
    std::vector<std::int64_t> open = piece.sizes().vec();
    const std::int64_t rows = open[dim] / (outer * inner);
    open.erase(open.begin() + dim);
    open.insert(open.begin() + dim, {outer, rows, inner});
    opened.push_back(piece.reshape(open));
  }
  const at::Tensor all = at::cat(opened, dim + 1);
  sizes[dim] = outer * all.size(dim + 1) * inner;
  return all.reshape(sizes);
}

at::Tensor apply_cuts(at::Tensor tensor, const std::vector<Cut>& cuts) {
  for (const Cut& cut : cuts) {
    std::vector<std::pair<std::int64_t, std::int64_t>> runs;
    for (const Cut::Run& run : cut.runs) runs.emplace_back(run.first, run.size);
    tensor = rows_of(tensor, cut.dim, cut.outer, cut.inner, runs);
  }
  return tensor;
}

at::Tensor made_up_input(const model::ModelGraph& graph, const model::Input& input, std::int64_t samples,
                         std::int64_t tokens) {
  const auto sizes = worker::sizes_of(graph, input.value, samples);
  const auto dtype = worker::scalar_type_of(graph.values[input.value].dtype);
  if (c10::isFloatingType(dtype)) return at::randn(sizes, dtype);
  if (input.name.find("mask") != std::string::npos) {
    at::Tensor mask = at::ones(sizes, dtype);
    if (mask.dim() == 2 && mask.size(1) > 4) mask.narrow(0, 0, 1).narrow(1, mask.size(1) - 3, 3).zero_();
    return mask;
  }
  if (input.name.find("position") != std::string::npos)
    return at::arange(sizes.back(), dtype).expand(sizes).contiguous();
  const bool is_type = input.name.find("type") != std::string::npos;
  at::Tensor values = at::randint(0, is_type ? 2 : tokens, sizes, dtype);
  if (input.name.find("label") != std::string::npos && values.dim() == 2) values.narrow(1, 1, 2).fill_(-100);
  return values;
}

struct Outcome {
  std::vector<at::Tensor> numerators;  // by loss term
  std::map<int, at::Tensor> gradients;
};

class Whole {
 public:
  Whole(const model::ModelGraph& graph, std::int64_t samples, std::int64_t tokens)
      : graph_(graph), samples_(samples), source_(need(worker::WeightSource::open(graph, 1))) {
    at::manual_seed(3);
    for (const model::Input& input : graph.inputs) inputs_[input.value] = made_up_input(graph, input, samples, tokens);
    for (const model::Buffer& buffer : graph.buffers) inputs_[buffer.value] = need(source_.read_buffer(buffer));
    for (std::size_t p = 0; p < graph.parameters.size(); ++p)
      parameters_.push_back(need(source_.read_parameter_tensor(graph.parameters[p])));
  }

  [[nodiscard]] const std::map<ValueId, at::Tensor>& inputs() const { return inputs_; }
  [[nodiscard]] const at::Tensor& parameter(int p) const { return parameters_[p]; }

  Outcome run() const {
    Tensors values(graph_.values.size());
    for (const auto& [v, tensor] : inputs_) values[v] = tensor;
    std::map<int, at::Tensor> leaves;
    for (std::size_t p = 0; p < parameters_.size(); ++p) {
      at::Tensor leaf = parameters_[p].clone();
      if (graph_.parameters[p].trainable) leaves[static_cast<int>(p)] = leaf.set_requires_grad(true);
      values[graph_.parameters[p].value] = leaf;
    }
    for (std::size_t id = 0; id < graph_.ops.size(); ++id) {
      auto call = need(worker::OpCall::make(graph_, static_cast<OpId>(id), samples_));
      call.run(values, worker::RunMode{.dropout = false});
    }
    Outcome outcome;
    at::Tensor loss;
    for (const model::LossTerm& term : graph_.loss) {
      outcome.numerators.push_back(values[term.numerator]);
      const at::Tensor part = values[term.numerator] * term.coefficient;
      loss = loss.defined() ? loss + part : part;
    }
    loss.backward();
    for (const auto& [p, leaf] : leaves)
      outcome.gradients[p] = leaf.grad().defined() ? leaf.grad() : at::zeros_like(leaf);
    return outcome;
  }

 private:
  const model::ModelGraph& graph_;
  const std::int64_t samples_;
  worker::WeightSource source_;
  std::map<ValueId, at::Tensor> inputs_;
  Tensors parameters_;
};

class Lockstep {
 public:
  Lockstep(std::vector<LocalGraph> graphs, const Whole& whole) : graphs_(std::move(graphs)), whole_(whole) {}

  Outcome run() {
    const std::size_t positions = graphs_.size();
    values_.resize(positions);
    leaves_.resize(positions);
    for (std::size_t i = 0; i < positions; ++i) {
      const model::ModelGraph& graph = graphs_[i].graph;
      values_[i].resize(graph.values.size());
      for (const auto& [v, tensor] : whole_.inputs()) values_[i][v] = tensor;
      for (std::size_t p = 0; p < graph.parameters.size(); ++p) {
        const model::Parameter& parameter = graph.parameters[p];
        at::Tensor leaf = apply_cuts(whole_.parameter(static_cast<int>(p)), graphs_[i].cuts[parameter.value]).clone();
        if (leaf.sizes().vec() != parameter.dims) throw std::runtime_error("sizes of " + parameter.name);
        if (parameter.trainable) leaf.set_requires_grad(true);
        values_[i][parameter.value] = leaf;
        leaves_[i].push_back(leaf);
      }
    }
    for (std::size_t id = 0; id < graphs_[0].graph.ops.size(); ++id) step(static_cast<OpId>(id));
    return finish();
  }

 private:
  void step(OpId id) {
    const Op& op = graphs_[0].graph.ops[id];
    for (const LocalGraph& local : graphs_)
      if (local.graph.ops[id].target != op.target) throw std::runtime_error("positions differ at " + op.target);
    if (op.target.rfind("coxswain::", 0) == 0) return transition(id, op.target.substr(10));
    for (std::size_t i = 0; i < graphs_.size(); ++i) {
      auto call = need(worker::OpCall::make(graphs_[i].graph, id, graphs_[i].graph.static_batch));
      call.run(values_[i], worker::RunMode{.dropout = false});
      for (const ValueId v : graphs_[i].graph.ops[id].outputs) check(i, v, op);
    }
  }

  void check(std::size_t i, ValueId v, const Op& op) const {
    if (v < 0) return;
    const auto wanted = worker::sizes_of(graphs_[i].graph, v, graphs_[i].graph.static_batch);
    if (values_[i][v].sizes().vec() != wanted)
      throw std::runtime_error("sizes of " + graphs_[i].graph.values[v].name + " of " + op.target + " " +
                               op.module_path);
  }

  [[nodiscard]] const Op& op_of(std::size_t i, OpId id) const { return graphs_[i].graph.ops[id]; }

  void transition(OpId id, const std::string& name) {
    std::vector<Tensors> results(graphs_.size());
    for (std::size_t i = 0; i < graphs_.size(); ++i) values_[i].resize(graphs_[i].graph.values.size());
    std::vector<at::Tensor> made(graphs_.size());
    for (std::size_t i = 0; i < graphs_.size(); ++i) made[i] = result_of(i, id, name);
    for (std::size_t i = 0; i < graphs_.size(); ++i) {
      const ValueId v = op_of(i, id).outputs[0];
      values_[i][v] = made[i];
      check(i, v, op_of(i, id));
    }
  }

  at::Tensor result_of(std::size_t i, OpId id, const std::string& name) {
    const Op& op = op_of(i, id);
    if (name == "local_index") {
      const at::Tensor& index = values_[i][tensor_id(op, "self")];
      return (index - number(op, "first")).clamp(0, number(op, "size") - 1);
    }
    if (name == "mask_rows") {
      at::Tensor index = values_[i][tensor_id(op, "index")];
      const at::Tensor& rows = values_[i][tensor_id(op, "self")];
      at::Tensor inside = index.ge(number(op, "first")).logical_and(index.lt(number(op, "first") + number(op, "size")));
      while (inside.dim() < rows.dim()) inside = inside.unsqueeze(-1);
      return rows * inside;
    }
    const auto set = static_cast<plan::AxisSet>(number(op, "axes"));
    const auto members = plan::members_of(graphs_[0].axes, set, static_cast<int>(i));
    const auto own =
        static_cast<std::size_t>(std::find(members.begin(), members.end(), static_cast<int>(i)) - members.begin());
    const auto of_members = [&](const std::string& argument) {
      Tensors tensors;
      for (const int m : members) tensors.push_back(values_[m][tensor_id(op_of(m, id), argument)]);
      return tensors;
    };
    const auto sum = [](const Tensors& tensors) {
      at::Tensor total = tensors[0];
      for (std::size_t m = 1; m < tensors.size(); ++m) total = total + tensors[m];
      return total;
    };
    const auto joined = [&](const std::string& argument, std::int64_t dim, std::int64_t outer, std::int64_t inner) {
      return join(of_members(argument), dim, outer, inner, runs_of(op, "runs", members.size()));
    };
    if (name == "cross_entropy") {
      return at::cross_entropy_loss(joined("self", 1, 1, 1), values_[i][tensor_id(op, "target")], {},
                                    number(op, "reduction"), number(op, "ignore_index"),
                                    std::get<double>(*find(op, "label_smoothing")));
    }
    if (name == "ring_attention") return attention(i, op, joined, runs_of(op, "runs", members.size()), own);
    const Tensors all = of_members("self");
    if (name == "all_reduce") return sum(all);
    if (name == "to_partial") return own == 0 ? all[own] : at::zeros_like(all[own]);
    const std::int64_t dim = number(op, "dim"), outer = number(op, "outer"), inner = number(op, "inner");
    const Runs runs = runs_of(op, "runs", members.size());
    if (name == "slice") return rows_of(all[own], dim, outer, inner, runs[own]);
    if (name == "reduce_scatter") return rows_of(sum(all), dim, outer, inner, runs[own]);
    if (name == "all_gather") return join(all, dim, outer, inner, runs);
    if (name == "all_to_all")
      return rows_of(join(all, dim, outer, inner, runs), number(op, "to_dim"), number(op, "to_outer"),
                     number(op, "to_inner"), runs_of(op, "to_runs", members.size())[own]);
    throw std::runtime_error("unknown transition " + name);
  }

  template <class Joined>
  at::Tensor attention(std::size_t i, const Op& op, const Joined& joined, const Runs& runs, std::size_t own) {
    const at::Tensor query = joined("query", 2, 1, 1), key = joined("key", 2, 1, 1), value = joined("value", 2, 1, 1);
    std::optional<at::Tensor> mask;
    if (std::holds_alternative<model::ValueRef>(*find(op, "attn_mask"))) {
      const at::Tensor rows = values_[i][tensor_id(op, "attn_mask")];
      if (rows.size(-2) > 1) {
        // Only this position's rows of the result are read.
        at::Tensor all = rows.dtype() == at::kBool ? at::ones({query.size(2), rows.size(-1)}, rows.options())
                                                   : at::zeros({query.size(2), rows.size(-1)}, rows.options());
        std::vector<std::int64_t> sizes = rows.sizes().vec();
        sizes[sizes.size() - 2] = query.size(2);
        all = all.expand(sizes).clone();
        std::int64_t at = 0;
        for (const auto& [first, size] : runs[own]) {
          all.narrow(-2, first, size).copy_(rows.narrow(-2, at, size));
          at += size;
        }
        mask = all;
      } else {
        mask = rows;
      }
    }
    std::optional<double> scale;
    if (const auto* given = std::get_if<double>(find(op, "scale"))) scale = *given;
    const at::Tensor all =
        at::scaled_dot_product_attention(query, key, value, mask, 0.0, std::get<bool>(*find(op, "is_causal")), scale,
                                         std::get<bool>(*find(op, "enable_gqa")));
    return rows_of(all, 2, 1, 1, runs[own]);
  }

  Outcome finish() {
    Outcome outcome;
    const model::ModelGraph& graph = graphs_[0].graph;
    at::Tensor loss;
    for (const model::LossTerm& term : graph.loss) {
      outcome.numerators.push_back(values_[0][term.numerator]);
      for (std::size_t i = 1; i < graphs_.size(); ++i)
        if (!at::allclose(values_[i][term.numerator], values_[0][term.numerator]))
          throw std::runtime_error("a loss numerator is not Replicate");
      const at::Tensor part = values_[0][term.numerator] * term.coefficient;
      loss = loss.defined() ? loss + part : part;
    }
    loss.backward();
    for (std::size_t p = 0; p < graph.parameters.size(); ++p) {
      if (!graph.parameters[p].trainable) continue;
      const ValueId v = graph.parameters[p].value;
      at::Tensor total = at::zeros_like(whole_.parameter(static_cast<int>(p)));
      for (std::size_t i = 0; i < graphs_.size(); ++i) {
        at::Tensor part = leaves_[i][p].grad();
        if (!part.defined()) continue;
        // Adds the part where it belongs.
        at::Tensor whole = at::zeros_like(total).set_requires_grad(true);
        apply_cuts(whole, graphs_[i].cuts[v]).backward(part);
        total = total + whole.grad();
      }
      outcome.gradients[static_cast<int>(p)] = total;
    }
    return outcome;
  }

  std::vector<LocalGraph> graphs_;
  const Whole& whole_;
  std::vector<Tensors> values_, leaves_;
};

double squared(const at::Tensor& tensor) { return tensor.to(at::kDouble).pow(2).sum().item<double>(); }

}  // namespace

LayoutReport prove_layout(const model::ModelGraph& graph, const MeshCase& mesh, std::int64_t tokens) {
  plan::Stage stage;
  stage.first_block = mesh.first_block;
  stage.end_block = mesh.end_block < 0 ? graph.num_blocks() : mesh.end_block;
  plan::Replica replica;
  replica.tensor = mesh.tensor;
  replica.context = mesh.context;
  replica.samples = mesh.samples;
  replica.devices.resize(static_cast<std::size_t>(mesh.tensor) * mesh.context);
  std::vector<LocalGraph> graphs;
  for (std::size_t i = 0; i < replica.devices.size(); ++i)
    graphs.push_back(need(plan::localise_stage(graph, stage, replica, static_cast<int>(i))));
  LayoutReport report;
  for (const Op& op : graphs[0].graph.ops)
    if (op.target.rfind("coxswain::", 0) == 0) report.targets.push_back(op.target.substr(10));
  double held = 0, all = 0;
  for (std::size_t p = 0; p < graph.parameters.size(); ++p) {
    if (graph.parameters[p].dims.size() < 2 || !graph.parameters[p].trainable) continue;
    double own = 1, whole = 1;
    for (const auto dim : graphs[0].graph.parameters[p].dims) own *= static_cast<double>(dim);
    for (const auto dim : graph.parameters[p].dims) whole *= static_cast<double>(dim);
    report.largest_share = std::max(report.largest_share, own / whole);
    held += own;
    all += whole;
  }
  report.share = all > 0 ? held / all : 0;
  const Whole whole(graph, mesh.samples, tokens);
  const Outcome wanted = whole.run();
  const Outcome got = Lockstep(std::move(graphs), whole).run();
  for (std::size_t t = 0; t < wanted.numerators.size(); ++t) {
    const double expected = wanted.numerators[t].item<double>();
    report.loss_error = std::max(
        report.loss_error, std::abs(got.numerators[t].item<double>() - expected) / std::max(std::abs(expected), 1e-12));
  }
  double norm = 0;
  for (const auto& [p, gradient] : wanted.gradients) norm += squared(gradient);
  for (const auto& [p, gradient] : wanted.gradients) {
    const double error = std::sqrt(squared(got.gradients.at(p) - gradient) / std::max(norm, 1e-30));
    if (error <= report.gradient_error) continue;
    report.gradient_error = error;
    report.worst_parameter = graph.parameters[p].name;
  }
  return report;
}

}  // namespace coxswain::tests
