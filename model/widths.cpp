#include "model/widths.h"

#include <algorithm>

#include "model/op_values.h"

namespace coxswain::model {
namespace {

bool asks_for_float32(const Op& op) {
  return std::any_of(op.arguments.begin(), op.arguments.end(), [](const Argument& argument) {
    const auto* dtype = std::get_if<DType>(&argument.value);
    return dtype != nullptr && *dtype == DType::Float32;
  });
}

}  // namespace

Widths::Widths(const ModelGraph& graph, OpId first, OpId end, Width width) : graph_(graph) {
  if (width == Width::Stored) return;
  narrow_.assign(graph.values.size(), 0);
  for (std::size_t value = 0; value < graph.values.size(); ++value) {
    const OpId producer = graph.values[value].producer;
    const bool outside = producer >= 0 && (producer < first || producer >= end);
    narrow_[value] = outside && graph.values[value].depends_on_parameter && graph.values[value].dtype == DType::Float32;
  }
  for (OpId id = first; id < end; ++id) follow(graph.ops[id]);
}

ComputeRule Widths::rule_of(const Op& op) const {
  const bool influenced = std::any_of(op.outputs.begin(), op.outputs.end(), [&](ValueId value) {
    return value >= 0 && graph_.values[value].depends_on_parameter;
  });
  return mixed() && influenced ? compute_rule_of(op.target) : ComputeRule::AsStored;
}

// What lowering does: an operator that follows is float32 where an activation that it reads is, or where it asks.
void Widths::follow(const Op& op) {
  const ComputeRule rule = rule_of(op);
  if (rule == ComputeRule::AsStored) return;
  bool any_wide = false;
  for_each_input(op, [&](ValueId value) {
    const Value& input = graph_.values[value];
    any_wide = any_wide || (input.producer >= 0 && input.depends_on_parameter && input.dtype == DType::Float32 &&
                            narrow_[value] == 0);
  });
  const bool follows = rule == ComputeRule::Follow || rule == ComputeRule::Float32Inside;
  const bool wide = rule == ComputeRule::Float32 || (follows && (any_wide || asks_for_float32(op)));
  for (const ValueId value : op.outputs)
    if (value >= 0) narrow_[value] = !wide && graph_.values[value].dtype == DType::Float32;
  // Parameters that are read as copies.
  const bool reads_masters = rule == ComputeRule::Float32 || rule == ComputeRule::Float32Rounded ||
                             rule == ComputeRule::Float32Inside || (rule == ComputeRule::Follow && any_wide);
  if (reads_masters) return;
  for_each_input(op, [&](ValueId value) {
    const Value& input = graph_.values[value];
    if (input.producer < 0 && input.depends_on_parameter && input.dtype == DType::Float32) narrow_[value] = 1;
  });
}

std::optional<Bytes> Widths::computed(const Op& op) const {
  switch (rule_of(op)) {
    case ComputeRule::AsStored:
    case ComputeRule::Float32Inside: return std::nullopt;
    case ComputeRule::Float32:
    case ComputeRule::Float32Rounded: return size_of(DType::Float32);
    case ComputeRule::Follow: {
      std::optional<Bytes> widest;
      for_each_input(op, [&](ValueId value) {
        const Value& input = graph_.values[value];
        if (input.producer < 0 || !input.depends_on_parameter || input.dtype != DType::Float32) return;
        widest = std::max(widest.value_or(Bytes(0)), element(value));
      });
      return widest;
    }
    default: return Bytes(kNarrow);
  }
}

bool Widths::casts(const Op& op, ValueId value) const {
  const Value& input = graph_.values[value];
  if (!mixed() || input.dtype != DType::Float32) return false;
  // A parameter has its copy.
  if (input.producer < 0 && input.depends_on_parameter) return false;
  const auto wanted = computed(op);
  return wanted && *wanted != element(value);
}

bool Widths::rounds(const Op& op) const { return rule_of(op) == ComputeRule::Float32Rounded; }

}  // namespace coxswain::model
