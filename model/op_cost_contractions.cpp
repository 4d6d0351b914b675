// Operators that multiply and add: the only ones whose FLOPs count (C1).
#include "model/op_rules.h"

namespace coxswain::model {
namespace {

constexpr OpRule product(std::string_view target, std::array<Saved, 3> saves) {
  return {target, OpClass::Matmul, Layout::Dense, saves, FlopRule::Contraction};
}
constexpr OpRule convolution(std::string_view target) {
  return {
      target, OpClass::Convolution, Layout::Dense, {{{"input", "weight"}, {"weight", "input"}}}, FlopRule::Convolution};
}

constexpr OpRule kRules[] = {
    // A saved operand that is a parameter costs nothing; the filter is in storage.cpp.
    product("aten::linear", {{{"input", "weight"}, {"weight", "input"}}}),
    product("aten::addmm", {{{"mat1", "mat2"}, {"mat2", "mat1"}}}),
    product("aten::mm", {{{"self", "mat2"}, {"mat2", "self"}}}),
    product("aten::mv", {{{"self", "vec"}, {"vec", "self"}}}),
    product("aten::dot", {{{"self", "tensor"}, {"tensor", "self"}}}),
    product("aten::bmm", {{{"self", "mat2"}, {"mat2", "self"}}}),
    product("aten::baddbmm", {{{"batch1", "batch2"}, {"batch2", "batch1"}}}),
    product("transformers::grouped_mm_fallback", {{{"input", "weight"}, {"weight", "input"}}}),
    product("aten::matmul", {{{"self", "other"}, {"other", "self"}}}),
    product("aten::einsum", {{{"tensors"}}}),
    product("aten::bilinear", {{{"input1"}, {"input2"}, {"weight"}}}),
    convolution("aten::convolution"),
    convolution("aten::conv1d"),
    convolution("aten::conv2d"),
    convolution("aten::conv3d"),
    {"aten::scaled_dot_product_attention",
     OpClass::Attention,
     Layout::Attention,
     {{{"query"}, {"key"}, {"value"}}},
     FlopRule::Attention,
     Hidden::Attention},
};

}  // namespace

std::span<const OpRule> contraction_rules() { return kRules; }

}  // namespace coxswain::model
