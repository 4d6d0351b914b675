#include "plan/layout/choices.h"

#include <algorithm>
#include <set>

#include "plan/layout/transition_factors.h"

namespace coxswain::plan {
namespace {

using model::ModelGraph;
using model::Op;
using model::OpId;
using model::ValueId;

// Nominal speeds, beside 5e10 bytes a second of a link (search.cpp): 40 operations and 4 bytes of memory a byte sent,
// far below an accelerator's ratios and above a processor's, so that work is not repeated to save a message. They rank
// choices of equal memory, in the same way on every rank and for every replica: what a run costs is the cost model's
// matter.
constexpr double kFlopPerSecond = 2e12, kBytesPerSecond = 2e11;
constexpr double kPasses = 3;  // forward and, twice its work, backward

constexpr int kMaxRounds = 16;
constexpr std::size_t kMaxSplits = 24;  // of an operator or a value

double product(const std::vector<std::int64_t>& sizes) {
  double all = 1;
  for (const std::int64_t size : sizes) all *= static_cast<double>(size);
  return all;
}

std::vector<Read> reads_of(const Op& op, const std::optional<OpFactors>& factors) {
  std::vector<Read> reads;
  if (factors) {
    for (const TensorFactors& input : factors->inputs) reads.push_back({input.argument, input.element, input.value});
    return reads;
  }
  for (std::size_t a = 0; a < op.arguments.size(); ++a) {
    const auto& value = op.arguments[a].value;
    if (const auto* one = std::get_if<model::ValueRef>(&value)) reads.push_back({static_cast<int>(a), -1, one->id});
    if (const auto* many = std::get_if<std::vector<std::optional<model::ValueRef>>>(&value))
      for (std::size_t e = 0; e < many->size(); ++e)
        if ((*many)[e]) reads.push_back({static_cast<int>(a), static_cast<int>(e), (*many)[e]->id});
  }
  return reads;
}

class Lister {
 public:
  Lister(const ModelGraph& graph, const BlockRun& run, const MeshStep& step)
      : graph_(graph), step_(step), splits_(graph.values.size()), trainable_(graph.values.size(), 0) {
    for (const model::Parameter& parameter : graph.parameters)
      if (parameter.trainable) trainable_[static_cast<std::size_t>(parameter.value)] = 1;
    for (int b = run.first_block; b < run.end_block; ++b)
      for (OpId id = graph.blocks[static_cast<std::size_t>(b)].first_op;
           id < graph.blocks[static_cast<std::size_t>(b)].end_op; ++id)
        if (is_influenced(graph, graph.ops[static_cast<std::size_t>(id)])) add_op(id);
    const model::StageSlice slice = model::slice_stage(graph, run.first_block, run.end_block);
    for (const auto* crossing : {&slice.received, &slice.sent})
      for (const ValueId v : *crossing)
        if (const Form form = edge_form(graph, v, step); form.kind == Form::Kind::Shard) add(v, form.split);
  }

  std::map<OpId, OpChoices> list() {
    spread();
    std::map<OpId, OpChoices> all;
    for (auto& [id, op] : ops_) all.emplace(id, choices_of(id, op));
    return all;
  }

 private:
  struct OpState {
    std::optional<OpFactors> factors;
    std::vector<FactorSplit> splits;
  };

  void add_op(OpId id) {
    const Op& op = graph_.ops[static_cast<std::size_t>(id)];
    OpState state;
    state.factors = describe(graph_, op).factors;
    if (state.factors) {
      for (std::size_t f = 0; f < state.factors->factors.size(); ++f) {
        const Factor& factor = state.factors->factors[f];
        if (factor.kind == FactorKind::Free || factor.kind == FactorKind::Sum)
          add(state, {static_cast<int>(f), 1, factor.size, 1});
      }
    }
    ops_.emplace(id, std::move(state));
  }

  // Samples are never split: replicas do that.
  [[nodiscard]] bool can_split(std::int64_t extent) const {
    return extent >= step_.size && extent % kSamples != 0 && (!step_.even || extent % step_.size == 0);
  }

  [[nodiscard]] bool is_carried(ValueId v) const {
    const model::Value& value = graph_.values[static_cast<std::size_t>(v)];
    return (value.producer >= 0 && value.depends_on_parameter) || is_trainable(v);
  }
  [[nodiscard]] bool is_trainable(ValueId v) const { return trainable_[static_cast<std::size_t>(v)] != 0; }

  bool add(ValueId v, const Split& split) {
    auto& known = splits_[static_cast<std::size_t>(v)];
    if (!can_split(split.extent) || known.size() >= kMaxSplits) return false;
    if (std::find(known.begin(), known.end(), split) != known.end()) return false;
    known.push_back(split);
    return true;
  }

  // A context axis splits no parameter.
  bool add(OpState& op, const FactorSplit& split) {
    if (!can_split(split.extent) || op.splits.size() >= kMaxSplits) return false;
    if (std::find(op.splits.begin(), op.splits.end(), split) != op.splits.end()) return false;
    for (const auto* tensors : {&op.factors->inputs, &op.factors->outputs}) {
      for (const TensorFactors& tensor : *tensors) {
        const auto form = form_of(tensor, *op.factors, split);
        if (!form) return false;
        if (step_.kind == AxisKind::Context && form->kind == Form::Kind::Shard && is_trainable(tensor.value))
          return false;
      }
    }
    if (!can_mask(*op.factors, split) || !can_have_runs(*op.factors, split)) return false;
    op.splits.push_back(split);
    return true;
  }

  // The indices' dims lead the result's, so that rows can be masked.
  static bool can_mask(const OpFactors& op, const FactorSplit& split) {
    const Factor& factor = op.factors[static_cast<std::size_t>(split.factor)];
    if (factor.form != PartForm::Masked) return true;
    if (split.outer != 1 || op.outputs.size() != 1) return false;
    const auto& index = op.inputs[static_cast<std::size_t>(factor.index)].dims;
    const auto& result = op.outputs.front().dims;
    return index.size() <= result.size() && std::equal(index.begin(), index.end(), result.begin());
  }

  // What counts rows from the part's first takes one run.
  [[nodiscard]] bool can_have_runs(const OpFactors& op, const FactorSplit& split) const {
    const Factor& factor = op.factors[static_cast<std::size_t>(split.factor)];
    return step_.runs == 1 || (!factor.contiguous && factor.form != PartForm::Masked);
  }

  void spread() {
    bool moved = true;
    for (int round = 0; round < kMaxRounds && moved; ++round) {
      moved = false;
      for (auto& [id, op] : ops_) moved = visit(op) || moved;
      for (auto op = ops_.rbegin(); op != ops_.rend(); ++op) moved = visit(op->second) || moved;
    }
  }

  bool visit(OpState& op) {
    if (!op.factors) return false;
    bool moved = false;
    for (const auto* tensors : {&op.factors->inputs, &op.factors->outputs}) {
      for (const TensorFactors& tensor : *tensors) {
        if (tensor.value < 0 || !is_carried(tensor.value)) continue;
        const auto splits = splits_[static_cast<std::size_t>(tensor.value)];
        for (const Split& split : splits)
          if (const auto own = factor_of(tensor, *op.factors, split)) moved = add(op, *own) || moved;
      }
    }
    for (const FactorSplit& split : std::vector<FactorSplit>(op.splits)) {
      for (const auto* tensors : {&op.factors->inputs, &op.factors->outputs}) {
        for (const TensorFactors& tensor : *tensors) {
          if (tensor.value < 0 || !is_carried(tensor.value)) continue;
          const auto form = form_of(tensor, *op.factors, split);
          if (form && form->kind == Form::Kind::Shard) moved = add(tensor.value, form->split) || moved;
        }
      }
    }
    return moved;
  }

  OpChoices choices_of(OpId id, const OpState& state) const {
    const Op& op = graph_.ops[static_cast<std::size_t>(id)];
    OpChoices result = describe(graph_, op);
    const double whole = nominal_seconds(graph_, op, result);
    Choice replicated;
    replicated.reads.assign(result.reads.size(), replicate());
    replicated.writes.assign(result.writes.size(), replicate());
    replicated.seconds = whole;
    result.choices.push_back(replicated);
    if (!state.factors) return result;
    for (const FactorSplit& split : state.splits) add_split(*state.factors, split, whole, result);
    for (std::size_t g = 0; g < state.factors->linear.size(); ++g) add_linear(op, *state.factors, g, whole, result);
    if (op.target == "aten::cross_entropy_loss") add_cross_entropy(op, whole, result);
    if (op.target == "aten::scaled_dot_product_attention" && step_.kind == AxisKind::Context) add_ring(whole, result);
    return result;
  }

  [[nodiscard]] double share(std::int64_t extent) const {
    return static_cast<double>(part_of_extent(extent, step_.size, 0).size) / static_cast<double>(extent);
  }

  [[nodiscard]] bool is_floating(ValueId v) const {
    return is_floating_point(graph_.values[static_cast<std::size_t>(v)].dtype);
  }

  static Form form_of_kind(PlacementKind kind, const std::optional<Form>& split) {
    return kind == PlacementKind::Shard ? *split : kind == PlacementKind::PartialSum ? partial() : replicate();
  }

  void add_split(const OpFactors& factors, const FactorSplit& split, double whole, OpChoices& result) const {
    const OpPlacement placement = place_shard(factors, split.factor);
    Choice choice;
    choice.kind = Choice::Kind::Split;
    choice.split = split;
    choice.seconds = whole * share(split.extent);
    bool any_shard = false;
    for (std::size_t i = 0; i < factors.inputs.size(); ++i) {
      choice.reads.push_back(form_of_kind(placement.inputs[i], form_of(factors.inputs[i], factors, split)));
      any_shard = any_shard || choice.reads.back().kind == Form::Kind::Shard;
    }
    for (std::size_t o = 0; o < factors.outputs.size(); ++o) {
      choice.writes.push_back(form_of_kind(placement.outputs[o], form_of(factors.outputs[o], factors, split)));
      const ValueId v = factors.outputs[o].value;
      if (choice.writes.back() == partial() && !(v >= 0 && is_floating(v))) return;
      any_shard = any_shard || choice.writes.back().kind == Form::Kind::Shard;
    }
    if (any_shard && choice.writes.size() == result.writes.size()) result.choices.push_back(std::move(choice));
  }

  void add_linear(const Op& op, const OpFactors& factors, std::size_t group, double whole, OpChoices& result) const {
    for (const ValueId v : op.outputs)
      if (v >= 0 && !is_floating(v)) return;
    const OpPlacement placement = place_partial(factors, group);
    Choice choice;
    choice.kind = Choice::Kind::Linear;
    choice.group = group;
    choice.seconds = whole;
    for (const PlacementKind kind : placement.inputs) choice.reads.push_back(form_of_kind(kind, std::nullopt));
    for (const PlacementKind kind : placement.outputs) choice.writes.push_back(form_of_kind(kind, std::nullopt));
    if (choice.writes.size() == result.writes.size()) result.choices.push_back(std::move(choice));
  }

  // Classes split: coxswain::cross_entropy.
  void add_cross_entropy(const Op& op, double whole, OpChoices& result) const {
    const auto weight = std::find_if(op.arguments.begin(), op.arguments.end(),
                                     [](const model::Argument& a) { return a.name == "weight"; });
    if (weight != op.arguments.end() && std::holds_alternative<model::ValueRef>(weight->value)) return;
    if (result.reads.size() != 2) return;
    const auto classes = sizes_of(graph_, result.reads[0].value);
    if (is_floating(result.reads[1].value) || classes.size() < 2 || !can_split(classes[1])) return;
    Choice choice;
    choice.kind = Choice::Kind::CrossEntropy;
    choice.reads = {shard({1, 1, classes[1], 1}), replicate()};
    choice.writes = {replicate()};
    choice.seconds = whole * share(classes[1]);
    result.choices.push_back(std::move(choice));
  }

  // Rows of queries and keys split alike: coxswain::ring_attention.
  void add_ring(double whole, OpChoices& result) const {
    if (result.reads.size() < 3) return;
    const auto query = sizes_of(graph_, result.reads[0].value), key = sizes_of(graph_, result.reads[1].value);
    const int rows = static_cast<int>(query.size()) - 2;
    if (query.size() != 4 || key.size() != 4 || query[2] != key[2] || !can_split(query[2])) return;
    Choice choice;
    choice.kind = Choice::Kind::RingAttention;
    const Form split = shard({rows, 1, query[2], 1});
    choice.reads = {split, split, split};
    if (result.reads.size() == 4) {
      const auto mask = sizes_of(graph_, result.reads[3].value);
      // The ring's kernel has no gradient of a mask.
      if (mask.size() < 2 || graph_.values[static_cast<std::size_t>(result.reads[3].value)].requires_grad) return;
      const int row = static_cast<int>(mask.size()) - 2;
      choice.reads.push_back(mask[mask.size() - 2] == 1 ? replicate() : shard({row, 1, query[2], 1}));
    }
    choice.writes = {split};
    choice.seconds = whole * share(query[2]);
    result.choices.push_back(std::move(choice));
  }

  const ModelGraph& graph_;
  const MeshStep step_;
  std::vector<std::vector<Split>> splits_;  // by value
  std::vector<char> trainable_;
  std::map<OpId, OpState> ops_;
};

}  // namespace

double nominal_seconds(const ModelGraph& graph, const Op& op, const OpChoices& described) {
  const ShardRule* rule = find_shard_rule(op.target);
  if (rule != nullptr && rule->family == RuleFamily::View) return 0;
  double bytes = 0, flop = 0;
  const auto count = [&](ValueId v) {
    bytes += product(sizes_of(graph, v)) *
             static_cast<double>(size_of(graph.values[static_cast<std::size_t>(v)].dtype).value);
  };
  for (const Read& read : described.reads) count(read.value);
  for (const int o : described.writes) count(op.outputs[static_cast<std::size_t>(o)]);
  const bool multiplies =
      rule != nullptr && (rule->family == RuleFamily::Matmul || rule->family == RuleFamily::Attention ||
                          rule->family == RuleFamily::Convolution);
  if (described.factors && multiplies) {
    flop = 2;
    for (const Factor& factor : described.factors->factors) flop *= static_cast<double>(factor.size);
  }
  return kPasses * (flop / kFlopPerSecond + bytes / kBytesPerSecond);
}

OpChoices describe(const ModelGraph& graph, const Op& op) {
  OpChoices result;
  result.factors = bind_transition(graph, op);
  if (!result.factors) result.factors = bind_rule(graph, op, graph.static_batch);
  result.reads = reads_of(op, result.factors);
  for (std::size_t o = 0; o < op.outputs.size(); ++o)
    if (op.outputs[o] >= 0) result.writes.push_back(static_cast<int>(o));
  return result;
}

std::map<OpId, OpChoices> list_choices(const ModelGraph& graph, const BlockRun& run, const MeshStep& step) {
  return Lister(graph, run, step).list();
}

bool is_influenced(const ModelGraph& graph, const Op& op) {
  return std::any_of(op.outputs.begin(), op.outputs.end(), [&](ValueId v) {
    return v >= 0 && graph.values[static_cast<std::size_t>(v)].depends_on_parameter;
  });
}

std::vector<std::int64_t> sizes_of(const ModelGraph& graph, ValueId value) {
  std::vector<std::int64_t> sizes;
  for (const model::Dim& dim : graph.values[static_cast<std::size_t>(value)].dims) sizes.push_back(dim.constant());
  return sizes;
}

int edge_dim(const std::vector<std::int64_t>& sizes, const Replica& replica) {
  const auto axes = mesh_axes(replica);
  const std::int64_t devices = std::int64_t{replica.tensor} * replica.context;
  for (std::size_t d = 1; d < sizes.size(); ++d) {
    if (sizes[d] % kSamples == 0) continue;
    const bool uneven = axes.size() == 1 && sizes[d] >= devices;
    if (uneven || sizes[d] % devices == 0) return static_cast<int>(d);
  }
  return -1;
}

std::vector<int> find_edge_dims(const ModelGraph& graph, const Replica& replica) {
  std::vector<int> dims;
  for (std::size_t v = 0; v < graph.values.size(); ++v)
    dims.push_back(edge_dim(sizes_of(graph, static_cast<ValueId>(v)), replica));
  return dims;
}

Form edge_form(const ModelGraph& graph, ValueId value, const MeshStep& step) {
  const int dim = (*step.edge_dims)[static_cast<std::size_t>(value)];
  if (dim < 0) return replicate();
  return shard({dim, 1, sizes_of(graph, value)[static_cast<std::size_t>(dim)], 1});
}

}  // namespace coxswain::plan
