// Operators that multiply and add: the only ones whose FLOPs count (C1).
#include "model/op_rules.h"

namespace coxswain::model {
namespace {

using enum OpClass;
using enum Layout;
using enum FlopRule;

constexpr OpRule kRules[] = {
    // A saved operand that is a parameter costs nothing; the filter is in storage.cpp.
    {"aten::linear", Matmul, Dense, {{{"input", "weight"}, {"weight", "input"}}}, Contraction},
    {"aten::addmm", Matmul, Dense, {{{"mat1", "mat2"}, {"mat2", "mat1"}}}, Contraction},
    {"aten::mm", Matmul, Dense, {{{"self", "mat2"}, {"mat2", "self"}}}, Contraction},
    {"aten::mv", Matmul, Dense, {{{"self", "vec"}, {"vec", "self"}}}, Contraction},
    {"aten::dot", Matmul, Dense, {{{"self", "tensor"}, {"tensor", "self"}}}, Contraction},
    {"aten::bmm", Matmul, Dense, {{{"self", "mat2"}, {"mat2", "self"}}}, Contraction},
    {"aten::baddbmm", Matmul, Dense, {{{"batch1", "batch2"}, {"batch2", "batch1"}}}, Contraction},
    {"aten::matmul", Matmul, BatchMatmul, {{{"self", "other"}, {"other", "self"}}}, Contraction},
    {"aten::einsum", Matmul, Dense, {{{"tensors"}}}, Contraction},
    {"aten::bilinear", Matmul, Dense, {{{"input1"}, {"input2"}, {"weight"}}}, Contraction},
    {"aten::convolution", OpClass::Convolution, Dense, {{{"input", "weight"}, {"weight", "input"}}}, FlopRule::Convolution},
    {"aten::conv1d", OpClass::Convolution, Dense, {{{"input", "weight"}, {"weight", "input"}}}, FlopRule::Convolution},
    {"aten::conv2d", OpClass::Convolution, Dense, {{{"input", "weight"}, {"weight", "input"}}}, FlopRule::Convolution},
    {"aten::conv3d", OpClass::Convolution, Dense, {{{"input", "weight"}, {"weight", "input"}}}, FlopRule::Convolution},
    {"aten::scaled_dot_product_attention", OpClass::Attention, Layout::Attention, {{{"query"}, {"key"}, {"value"}}}, FlopRule::Attention, Hidden::Attention},
};

}  // namespace

std::span<const OpRule> contraction_rules() { return kRules; }

}  // namespace coxswain::model
