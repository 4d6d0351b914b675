#include "tests/plan/rules/cases.h"

#include <catch2/catch.hpp>

using namespace coxswain::tests;

namespace {

constexpr RuleCase kCases[] = {
    {"aten::linear", "f[2,5,6],f[4,6],f[4]"},
    {"aten::linear", "f[3,6],f[4,6]"},
    {"aten::linear", "f[6],f[3,6],f[3]"},
    {"aten::addmm", "f[4],f[3,6],f[6,4]"},
    {"aten::addmm", "f[3,4],f[3,5],f[5,4]"},
    {"aten::addmm", "f[1,4],f[3,5],f[5,4],beta=2,alpha=3"},
    {"aten::mm", "f[4,6],f[6,3]"},
    {"aten::mm", "f[2,5],f[5,4]"},
    {"aten::bmm", "f[4,2,6],f[4,6,3]"},
    {"aten::bmm", "f[3,5,2],f[3,2,4]"},
    {"aten::baddbmm", "f[4,2,3],f[4,2,6],f[4,6,3]"},
    {"aten::baddbmm", "f[2,3],f[4,2,6],f[4,6,3]"},
    {"aten::baddbmm", "f[1,2,3],f[4,2,6],f[4,6,3],alpha=0.5"},
    {"aten::mv", "f[4,6],f[6]"},
    {"aten::mv", "f[3,2],f[2]"},
    {"aten::dot", "f[6],f[6]"},
    {"aten::dot", "f[5],f[5]"},
    {"aten::matmul", "f[2,4,6],f[6,3]"},
    {"aten::matmul", "f[2,3,4,6],f[2,3,6,5]"},
    {"aten::matmul", "f[3,1,4,6],f[2,6,4]"},
    {"aten::matmul", "f[6],f[6]"},
    {"aten::matmul", "f[6],f[2,6,4]"},
    {"aten::matmul", "f[2,4,6],f[6]"},
    {"aten::einsum", "'bhqd,bhkd->bhqk',{f[2,3,4,6],f[2,3,5,6]}"},
    {"aten::einsum", "'...i,oi->...o',{f[2,5,6],f[4,6]}"},
    {"aten::einsum", "'bi,i,o->bo',{f[4,6],f[6],f[3]}"},
    {"aten::einsum", "'ij->ji',{f[4,6]}"},
    {"aten::bilinear", "f[4,3],f[4,6],f[2,3,6],f[2]"},
    {"aten::bilinear", "f[2,3,4],f[2,3,2],f[3,4,2],none"},
    {"transformers::grouped_mm_fallback", "f[8,6],f[3,6,4],s9[3]"},
    {"transformers::grouped_mm_fallback", "f[5,4],f[2,4,6],s6[2]"},
    {"aten::scaled_dot_product_attention", "f[2,4,6,8],f[2,4,5,8],f[2,4,5,8]"},
    {"aten::scaled_dot_product_attention", "f[2,4,6,8],f[2,4,6,8],f[2,4,6,8],none,0.0,true"},
    {"aten::scaled_dot_product_attention", "f[2,4,6,8],f[2,4,5,8],f[2,4,5,8],f[2,1,6,5]"},
    {"aten::scaled_dot_product_attention", "f[2,4,6,8],f[2,4,5,8],f[2,4,5,8],b[6,5]"},
    {"aten::scaled_dot_product_attention", "f[2,6,4,8],f[2,2,4,8],f[2,2,4,8],none,0.0,true,enable_gqa=true"},
    {"aten::scaled_dot_product_attention", "f[2,6,4,8],f[2,3,5,8],f[2,3,5,8],f[2,6,4,5],enable_gqa=true"},
    {"aten::scaled_dot_product_attention", "f[3,4,8],f[3,5,8],f[3,5,6]"},
};

}  // namespace

std::span<const RuleCase> coxswain::tests::product_cases() { return kCases; }

TEST_CASE("an operand's own dims are free, shared ones are summed") {
  CHECK(bound_text({"aten::linear", "f[2,5,6],f[4,6],f[4]"}) == "[b0 b1 i], [o i], [o] -> [b0 b1 o]; sum i");
  CHECK(bound_text({"aten::matmul", "f[3,1,4,6],f[2,6,5]"}) == "[b0 1 m k], [b1 k n] -> [b0 b1 m n]; sum k");
  CHECK(bound_text(
            {"aten::scaled_dot_product_attention", "f[2,6,4,8],f[2,2,4,8],f[2,2,4,8],none,0.0,true,enable_gqa=true"}) ==
        "[b0 (h g) q d], [b0 h s d], [b0 h s v] -> [b0 (h g) q v]; whole q; whole s; whole d");
  CHECK(bound_text({"aten::einsum", "'ii->i',{f[3,3]}"}) == "replicated");
}
