#include "model/finish.h"

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "model/finish_parts.h"
#include "model/op_values.h"

namespace coxswain::model {
namespace {

/// Operators whose output carries no gradient although it is floating point.
constexpr std::array<std::string_view, 14> kGradientFree{
    "aten::detach",    "aten::zeros_like", "aten::ones_like", "aten::full_like", "aten::empty_like",
    "aten::rand_like", "aten::randn_like", "aten::new_zeros", "aten::new_ones",  "aten::new_full",
    "aten::new_empty", "aten::bernoulli",  "aten::sign",      "aten::heaviside"};

bool is_gradient_free(const Op& op) {
  const std::string_view name = base_name(op.target);
  for (const std::string_view free : kGradientFree)
    if (free == name) return true;
  return false;
}

std::string describe(const ModelGraph& graph, ValueId value) {
  if (value < 0 || value >= static_cast<int>(graph.values.size())) return "value " + std::to_string(value);
  return graph.values[value].name;
}

/// Every value is produced, or given, before it is used.
Result<void> check_order(const ModelGraph& graph) {
  std::vector<char> known(graph.values.size(), 0);
  const auto is_value = [&](ValueId value) { return value >= 0 && value < static_cast<int>(known.size()); };
  std::vector<Error> problems;
  const auto give = [&](ValueId value, const std::string& name) {
    if (is_value(value))
      known[value] = 1;
    else
      problems.push_back({ErrorCode::InvalidArgument, "'" + name + "' names no value of the graph", "", "",
                          std::to_string(value), ""});
  };
  for (const Parameter& parameter : graph.parameters) give(parameter.value, parameter.name);
  for (const Buffer& buffer : graph.buffers) give(buffer.value, buffer.name);
  for (const Input& input : graph.inputs) give(input.value, input.name);
  for (const Op& op : graph.ops) {
    for_each_input(op, [&](ValueId value) {
      if (!is_value(value) || known[value] == 0)
        problems.push_back({ErrorCode::InvalidArgument, "operator " + op.target + " uses a value before it is produced",
                            op.module_path, "", describe(graph, value), ""});
    });
    for (const ValueId value : op.outputs)
      if (value != -1) give(value, "output of " + op.target);
  }
  for (const LossTerm& term : graph.loss) {
    if (!is_value(term.numerator) || known[term.numerator] == 0)
      problems.push_back(
          {ErrorCode::InvalidArgument, "the loss is never produced", "loss", "", describe(graph, term.numerator), ""});
    if (term.denominator && (!is_value(*term.denominator) || known[*term.denominator] == 0))
      problems.push_back({ErrorCode::InvalidArgument, "the loss denominator is never produced", "loss", "",
                          describe(graph, *term.denominator), ""});
  }
  if (problems.empty()) return {};
  return combine_errors(ErrorCode::InvalidArgument, "the operator list is inconsistent", std::move(problems));
}

void remove_dead_ops(ModelGraph& graph) {
  std::vector<char> needed(graph.values.size(), 0);
  for (const LossTerm& term : graph.loss) {
    needed[term.numerator] = 1;
    if (term.denominator) needed[*term.denominator] = 1;
  }
  std::vector<char> keep(graph.ops.size(), 0);
  for (std::size_t i = graph.ops.size(); i-- > 0;) {
    const Op& op = graph.ops[i];
    for (const ValueId output : op.outputs)
      if (output >= 0 && needed[output] != 0) keep[i] = 1;
    if (keep[i] != 0) for_each_input(op, [&](ValueId value) { needed[value] = 1; });
  }
  std::vector<Op> kept;
  kept.reserve(graph.ops.size());
  for (std::size_t i = 0; i < graph.ops.size(); ++i)
    if (keep[i] != 0) kept.push_back(std::move(graph.ops[i]));
  graph.ops = std::move(kept);
}

/// A frozen parameter counts for `depends_on_parameter` too: stages that lack it cannot recompute what it influences.
void mark_dependence(ModelGraph& graph) {
  for (Value& value : graph.values) {
    value.depends_on_parameter = false;
    value.requires_grad = false;
  }
  for (const Parameter& parameter : graph.parameters) {
    Value& value = graph.values[parameter.value];
    value.depends_on_parameter = true;
    value.requires_grad = parameter.trainable && is_floating_point(value.dtype);
  }
  for (const Op& op : graph.ops) {
    bool depends = false, gradient = false;
    for_each_input(op, [&](ValueId value) {
      depends = depends || graph.values[value].depends_on_parameter;
      gradient = gradient || graph.values[value].requires_grad;
    });
    gradient = gradient && op.grad_enabled && !is_gradient_free(op);
    for (const ValueId output : op.outputs) {
      if (output < 0) continue;
      graph.values[output].depends_on_parameter = depends;
      graph.values[output].requires_grad = gradient && is_floating_point(graph.values[output].dtype);
    }
  }
}

}  // namespace

void set_producers(ModelGraph& graph) {
  for (Value& value : graph.values) value.producer = -1;
  for (std::size_t i = 0; i < graph.ops.size(); ++i)
    for (const ValueId output : graph.ops[i].outputs)
      if (output >= 0) graph.values[output].producer = static_cast<OpId>(i);
}

Result<void> finish_graph(ModelGraph& graph) {
  if (graph.loss.empty())
    return Error{ErrorCode::InvalidArgument,
                 "the model returns no loss",
                 "",
                 "a module whose forward returns the loss (a scalar)",
                 "",
                 "compute the loss inside the module and return it"};
  COX_TRY_VOID(check_order(graph));
  remove_dead_ops(graph);
  mark_dependence(graph);
  assign_blocks(graph);
  set_producers(graph);
  sign_blocks(graph);
  find_coupled_ops(graph);
  return {};
}

}  // namespace coxswain::model
