// Operators on single elements: every dim is free, what is broadcast is read by all parts.
#include "plan/rules/families.h"
#include "plan/rules/notation.h"

namespace coxswain::plan {
namespace {

using enum RuleFamily;

// Two halves of one dim: each part takes its rows of both.
std::optional<OpFactors> bind_glu(const OpReader& op, const ShardRule& rule) {
  const auto along = op.integer("dim");
  if (!along || op.outputs().empty()) return std::nullopt;
  Assembly assembly(op, rule);
  auto dims = name_dims(assembly, "d", op.outputs().front().sizes);
  assembly.set_outputs(dims);
  std::vector<int>& halves = dims[wrap(*along, dims.size())];
  const std::vector<int> half = assembly.whole("half", 2);
  halves.insert(halves.begin(), half.begin(), half.end());
  assembly.set_input(0, std::move(dims));
  return assembly.finish();
}

// Takes the dtype of another tensor, of any shape.
std::optional<OpFactors> bind_like(const OpReader& op, const ShardRule& rule) {
  Assembly assembly(op, rule);
  const auto dims = name_dims(assembly, "d", op.sizes(0));
  assembly.set_input(0, dims);
  assembly.set_outputs(dims);
  for (std::size_t other = 1; other < op.inputs().size(); ++other)
    assembly.set_whole_input(static_cast<int>(other), "other");
  return assembly.finish();
}

constexpr ShardRule kRules[] = {
    {"aten::neg", Pointwise, "[d..] -> [d..]; linear self", bind_pointwise},
    {"aten::clone", Pointwise, "[d..] -> [d..]; linear self", bind_pointwise},
    {"aten::real", Pointwise, "[d..] -> [d..]; linear self", bind_pointwise},
    {"aten::floor", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::ceil", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::round", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::trunc", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::sign", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::nan_to_num", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::square", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::sqrt", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::rsqrt", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::reciprocal", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::exp", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::expm1", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::tanh", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::sigmoid", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::relu", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::exp2", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::gelu", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::silu", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::mish", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::elu", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::selu", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::celu", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::leaky_relu", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::hardtanh", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::relu6", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::hardswish", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::hardsigmoid", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::softplus", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::log_sigmoid", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::threshold", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::log", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::log1p", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::log2", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::abs", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::sin", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::cos", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::tan", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::sinh", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::cosh", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::atan", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::erf", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::erfc", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::logit", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::logical_not", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::bitwise_not", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::isnan", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::isinf", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::isfinite", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::to", Pointwise, "[d..] -> [d..]; linear self", bind_pointwise},
    {"aten::_to_copy", Pointwise, "[d..] -> [d..]; linear self", bind_pointwise},
    {"aten::contiguous", Pointwise, "[d..] -> [d..]; linear self", bind_pointwise},
    {"aten::alias", Pointwise, "[d..] -> [d..]; linear self", bind_pointwise},
    {"aten::detach", Pointwise, "[d..] -> [d..]; linear self", bind_pointwise},
    {"aten::lift_fresh", Pointwise, "[d..] -> [d..]; linear self", bind_pointwise},
    {"aten::positive", Pointwise, "[d..] -> [d..]; linear self", bind_pointwise},
    {"aten::dropout", Pointwise, "[d..] -> [d..]; linear input", bind_pointwise},
    {"aten::add", Pointwise, "[d..], [d..] -> [d..]; linear self+other", bind_pointwise},
    {"aten::sub", Pointwise, "[d..], [d..] -> [d..]; linear self+other", bind_pointwise},
    {"aten::rsub", Pointwise, "[d..], [d..] -> [d..]; linear self+other", bind_pointwise},
    {"aten::mul", Pointwise, "[d..], [d..] -> [d..]; linear self, other", bind_pointwise},
    {"aten::div", Pointwise, "[d..], [d..] -> [d..]; linear self", bind_pointwise},
    {"aten::true_divide", Pointwise, "[d..], [d..] -> [d..]; linear self", bind_pointwise},
    {"aten::maximum", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::minimum", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::fmod", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::remainder", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::atan2", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::hypot", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::pow.Tensor_Scalar", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::pow.Scalar", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::pow.Tensor_Tensor", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::xlogy", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::eq", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::ne", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::lt", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::le", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::gt", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::ge", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::logical_and", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::logical_or", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::logical_xor", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::bitwise_and", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::bitwise_or", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::bitwise_xor", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::__and__", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::__or__", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::__xor__", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::floor_divide", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::masked_fill", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::fill", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::copy", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::div.Tensor_mode", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::div.Scalar_mode", Pointwise, "[d..] -> [d..]", bind_pointwise},
    {"aten::where", Pointwise, "[d..], [d..]?, [d..]? -> [d..]; linear self+other", bind_pointwise},
    {"aten::lerp", Pointwise, "[d..], [d..]?, [d..]? -> [d..]; linear self+end", bind_pointwise},
    {"aten::addcmul", Pointwise, "[d..], [d..]?, [d..]? -> [d..]; linear self+tensor1, self+tensor2", bind_pointwise},
    {"aten::addcdiv", Pointwise, "[d..], [d..]?, [d..]? -> [d..]; linear self+tensor1", bind_pointwise},
    {"aten::clamp", Pointwise, "[d..], [d..]?, [d..]? -> [d..]", bind_pointwise},
    {"aten::clamp_min", Pointwise, "[d..], [d..]?, [d..]? -> [d..]", bind_pointwise},
    {"aten::clamp_max", Pointwise, "[d..], [d..]?, [d..]? -> [d..]", bind_pointwise},
    {"aten::glu", Pointwise, "[a.. (half d) b..] -> [a.. d b..]; whole half", bind_glu},
    {"aten::type_as", Pointwise, "[d..], [other..] -> [d..]; whole other; linear self", bind_like},
    {"aten::to.other", Pointwise, "[d..], [other..] -> [d..]; whole other; linear self", bind_like},
    {"aten::broadcast_tensors", Pointwise, "[d..], [d..] -> [d..], [d..]", bind_pointwise},
    // The weight is one number, or one a channel.
    {"aten::prelu", Pointwise, "[n c s..], [c] -> [n c s..]"},
};

}  // namespace

std::span<const ShardRule> pointwise_rules() { return kRules; }

}  // namespace coxswain::plan
