#include "cost_model/mesh_facts.h"

#include <optional>
#include <string_view>
#include <utility>

#include "common/ensure.h"

namespace coxswain::cost_model {
namespace {

using collective::CollectiveKind;

const model::Argument* find_argument(const model::Op& op, std::string_view name) {
  for (const model::Argument& argument : op.arguments)
    if (argument.name == name) return &argument;
  return nullptr;
}

model::ValueId value_of(const model::Op& op, std::string_view name) {
  const model::Argument* argument = find_argument(op, name);
  COX_ENSURE(argument != nullptr, op.target, std::string(name));
  return std::get<model::ValueRef>(argument->value).id;
}

plan::AxisSet axes_of(const model::Op& op) {
  return static_cast<plan::AxisSet>(std::get<model::Dim>(find_argument(op, "axes")->value).constant());
}

std::optional<CollectiveKind> collective_of(std::string_view target) {
  if (target == "coxswain::all_reduce") return CollectiveKind::AllReduce;
  if (target == "coxswain::all_gather") return CollectiveKind::AllGather;
  if (target == "coxswain::reduce_scatter") return CollectiveKind::ReduceScatter;
  if (target == "coxswain::all_to_all") return CollectiveKind::AllToAll;
  return std::nullopt;
}

}  // namespace

CollectiveKind dual_of(CollectiveKind kind) {
  if (kind == CollectiveKind::AllGather) return CollectiveKind::ReduceScatter;
  if (kind == CollectiveKind::ReduceScatter) return CollectiveKind::AllGather;
  return kind;
}

MeshFacts::MeshFacts(plan::LocalBlock local) : local_(std::move(local)) {
  const model::Block& block = local_.graph.blocks[plan::kBlock];
  first_op_ = block.first_op;
  for (model::OpId id = block.first_op; id < block.end_op; ++id)
    add(local_.graph.ops[static_cast<std::size_t>(id)], id - block.first_op);
  for (const model::Parameter& parameter : local_.graph.parameters) {
    std::int64_t elements = 1;
    for (const std::int64_t dim : parameter.dims) elements *= dim;
    elements_.push_back(elements);
  }
  facts_ = std::make_unique<ModelFacts>(local_.graph);
}

MeshFacts::~MeshFacts() = default;

void MeshFacts::add(const model::Op& op, int number) {
  const auto needs_gradient = [&](model::ValueId value) {
    return local_.graph.values[static_cast<std::size_t>(value)].requires_grad;
  };
  if (op.target == "coxswain::ring_attention") {
    rings_.push_back({value_of(op, "key"), value_of(op, "value"), number});
    return;
  }
  if (op.target == "coxswain::cross_entropy") {
    // The greatest logit of each row, then a sum and the target's logit (with smoothing the sum of all).
    const auto* smoothing = std::get_if<double>(&find_argument(op, "label_smoothing")->value);
    const bool smooths = smoothing != nullptr && *smoothing > 0;
    const model::ValueId rows = value_of(op, "target");
    transitions_.push_back({CollectiveKind::AllReduce, axes_of(op), -1, rows, 1, false});
    transitions_.push_back({CollectiveKind::AllReduce, axes_of(op), -1, rows, smooths ? 3 : 2, false});
    return;
  }
  const auto kind = collective_of(op.target);
  if (!kind) return;
  const model::ValueId self = value_of(op, "self"), output = op.outputs.front();
  // A gather's payload is what all have then; the others' what a device brings.
  transitions_.push_back(
      {*kind, axes_of(op), *kind == CollectiveKind::AllGather ? output : self, -1, 0, needs_gradient(output)});
}

Bytes MeshFacts::payload(const MeshTransition& transition, std::int64_t samples, plan::Precision precision) const {
  if (transition.value >= 0) return facts_->value_bytes(transition.value, samples, precision);
  return size_of(DType::Float32) * (model::num_elements(local_.graph, transition.rows, samples) * transition.numbers);
}

Bytes MeshFacts::ring_bytes(const MeshRing& ring, std::int64_t samples, plan::Precision precision) const {
  return facts_->value_bytes(ring.key, samples, precision) + facts_->value_bytes(ring.value, samples, precision);
}

}  // namespace coxswain::cost_model
