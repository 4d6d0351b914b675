// Operators on single elements: bound by the bytes that they read and write.
#include "model/op_rules.h"

namespace coxswain::model {
namespace {

constexpr OpRule pointwise(std::string_view target, std::array<Saved, 3> saves = {}) {
  return {target, OpClass::Pointwise, Layout::Pointwise, saves};
}

constexpr OpRule kRules[] = {
    // Linear in their inputs: nothing is kept.
    pointwise("aten::add"),
    pointwise("aten::sub"),
    pointwise("aten::rsub"),
    pointwise("aten::neg"),
    pointwise("aten::clone"),
    pointwise("aten::masked_fill", {{{"mask"}}}),
    pointwise("aten::where", {{{"condition"}}}),
    pointwise("aten::lerp", {{{"weight"}, {"self", "weight"}, {"end", "weight"}}}),
    pointwise("aten::real"),
    pointwise("aten::floor"),
    pointwise("aten::ceil"),
    pointwise("aten::round"),
    pointwise("aten::trunc"),
    pointwise("aten::sign"),
    pointwise("aten::nan_to_num", {{{"self"}}}),
    // Products keep the other factor where it is needed.
    pointwise("aten::mul", {{{"self", "other"}, {"other", "self"}}}),
    pointwise("aten::div", {{{"self", "other"}, {"other"}}}),
    pointwise("aten::true_divide", {{{"self", "other"}, {"other"}}}),
    pointwise("aten::addcmul", {{{"tensor1", "tensor2"}, {"tensor2", "tensor1"}}}),
    pointwise("aten::addcdiv", {{{"tensor1", "tensor2"}, {"tensor2"}}}),
    pointwise("aten::maximum", {{{"self"}, {"other"}}}),
    pointwise("aten::minimum", {{{"self"}, {"other"}}}),
    pointwise("aten::max.other", {{{"self"}, {"other"}}}),
    pointwise("aten::min.other", {{{"self"}, {"other"}}}),
    pointwise("aten::fmod", {{{"self", "other"}, {"other", "other"}}}),
    pointwise("aten::remainder", {{{"self", "other"}, {"other", "other"}}}),
    pointwise("aten::atan2", {{{"self"}, {"other"}}}),
    pointwise("aten::hypot", {{{"self"}, {"other"}, {"out"}}}),
    // Powers and square roots.
    pointwise("aten::pow.Tensor_Scalar", {{{"self"}}}),
    pointwise("aten::pow.Scalar", {{{"exponent"}, {"out"}}}),
    pointwise("aten::pow.Tensor_Tensor", {{{"self"}, {"exponent"}, {"out"}}}),
    pointwise("aten::square", {{{"self"}}}),
    pointwise("aten::sqrt", {{{"out"}}}),
    pointwise("aten::rsqrt", {{{"out"}}}),
    pointwise("aten::reciprocal", {{{"out"}}}),
    // Functions that keep their result.
    pointwise("aten::exp", {{{"out"}}}),
    pointwise("aten::expm1", {{{"out"}}}),
    pointwise("aten::tanh", {{{"out"}}}),
    pointwise("aten::sigmoid", {{{"out"}}}),
    pointwise("aten::relu", {{{"out"}}}),
    pointwise("aten::exp2", {{{"out"}}}),
    // Functions that keep their input.
    pointwise("aten::gelu", {{{"self"}}}),
    pointwise("aten::silu", {{{"self"}}}),
    pointwise("aten::mish", {{{"self"}}}),
    pointwise("aten::elu", {{{"self"}}}),
    pointwise("aten::selu", {{{"self"}}}),
    pointwise("aten::celu", {{{"self"}}}),
    pointwise("aten::leaky_relu", {{{"self"}}}),
    pointwise("aten::hardtanh", {{{"self"}}}),
    pointwise("aten::relu6", {{{"self"}}}),
    pointwise("aten::hardswish", {{{"self"}}}),
    pointwise("aten::hardsigmoid", {{{"self"}}}),
    pointwise("aten::softplus", {{{"self"}}}),
    pointwise("aten::log_sigmoid", {{{"self"}}}),
    pointwise("aten::threshold", {{{"self"}}}),
    pointwise("aten::log", {{{"self"}}}),
    pointwise("aten::log1p", {{{"self"}}}),
    pointwise("aten::log2", {{{"self"}}}),
    pointwise("aten::abs", {{{"self"}}}),
    pointwise("aten::sin", {{{"self"}}}),
    pointwise("aten::cos", {{{"self"}}}),
    pointwise("aten::tan", {{{"out"}}}),
    pointwise("aten::sinh", {{{"self"}}}),
    pointwise("aten::cosh", {{{"self"}}}),
    pointwise("aten::atan", {{{"self"}}}),
    pointwise("aten::erf", {{{"self"}}}),
    pointwise("aten::erfc", {{{"self"}}}),
    pointwise("aten::clamp", {{{"self"}, {"min"}, {"max"}}}),
    pointwise("aten::clamp_min", {{{"self"}}}),
    pointwise("aten::clamp_max", {{{"self"}}}),
    pointwise("aten::logit", {{{"self"}}}),
    pointwise("aten::glu", {{{"self"}}}),
    pointwise("aten::prelu", {{{"self"}, {"weight"}}}),
    pointwise("aten::xlogy", {{{"self"}, {"other"}}}),
    // No gradient: comparisons, logic, integers.
    pointwise("aten::eq"),
    pointwise("aten::ne"),
    pointwise("aten::lt"),
    pointwise("aten::le"),
    pointwise("aten::gt"),
    pointwise("aten::ge"),
    pointwise("aten::logical_and"),
    pointwise("aten::logical_or"),
    pointwise("aten::logical_not"),
    pointwise("aten::logical_xor"),
    pointwise("aten::bitwise_and"),
    pointwise("aten::bitwise_or"),
    pointwise("aten::bitwise_not"),
    pointwise("aten::bitwise_xor"),
    pointwise("aten::__and__"),
    pointwise("aten::__or__"),
    pointwise("aten::__xor__"),
    pointwise("aten::floor_divide"),
    pointwise("aten::isnan"),
    pointwise("aten::isinf"),
    pointwise("aten::isfinite"),
    pointwise("aten::bernoulli"),
    // Our engine draws the mask from a counter and draws it again in backward: nothing is kept.
    {"aten::dropout", OpClass::Pointwise, Layout::Dropout},
    {"aten::native_dropout", OpClass::Pointwise, Layout::Dropout},
    {"aten::to", OpClass::Pointwise, Layout::Convert},
    {"aten::_to_copy", OpClass::Pointwise, Layout::Pointwise},
    {"aten::type_as", OpClass::Pointwise, Layout::Convert},
    {"aten::contiguous", OpClass::Pointwise, Layout::Contiguous},
};

}  // namespace

std::span<const OpRule> pointwise_rules() { return kRules; }

}  // namespace coxswain::model
