#include "tests/plan/rules/cases.h"

#include <catch2/catch.hpp>

using namespace coxswain::tests;

namespace {

constexpr RuleCase kCases[] = {
    {"aten::embedding", "f[9,6],i9[4]"},
    {"aten::embedding", "f[9,6],i9[2,5]"},
    {"aten::embedding", "f[9,4],i9[4,3],3"},
    {"aten::embedding", "f[9,4],i9[6],-1,true"},
    {"aten::index_select", "f[9,6],0,i9[4]"},
    {"aten::index_select", "f[4,9,3],1,i9[5]"},
    {"aten::gather", "f[4,9],1,i9[4,3]"},
    {"aten::gather", "f[9,4,2],0,i9[5,4,2]"},
    {"aten::gather", "f[4,9],1,i9[2,3]"},
    {"aten::take_along_dim", "f[4,9],i9[4,3],1"},
    {"aten::take_along_dim", "f[9,4],i9[5,4],0"},
    {"aten::scatter.src", "f[4,9],1,i9[4,1],f[4,1]"},
    {"aten::scatter.value", "f[4,9],1,i9[4,3],0.5"},
    {"aten::scatter_add", "f[4,9],1,i9[4,6],f[4,6]"},
    {"aten::scatter_add", "f[9,4],0,i9[5,4],f[5,4]"},
    {"aten::index_add", "f[9,6],0,i9[4],f[4,6]"},
    {"aten::index_add", "f[4,9,2],1,i9[6],f[4,6,2],alpha=2"},
    {"aten::index.Tensor", "f[9,6],{i9[4]}"},
    {"aten::index.Tensor", "f[9,9,6],{i9[4],i9[4]}"},
    {"aten::index.Tensor", "f[4,9,6],{none,i9[3,2]}"},
    {"aten::index.Tensor", "f[9,4,9],{i9[6],none,i9[6]}"},
    {"aten::index.Tensor", "f[9,9,3],{i9[4,1],i9[5]}"},
    {"aten::index_put", "f[9,6],{i9[4]},f[4,6],true"},
    {"aten::index_put", "f[9,6],{i9[1]},f[6],false"},
    {"aten::index_put", "f[4,9,3],{none,i9[5]},f[4,5,3],true"},
    {"aten::index_put", "f[4,9,3],{none,i9[1]},f[4,1,3]"},
};

}  // namespace

std::span<const RuleCase> coxswain::tests::index_cases() { return kCases; }

TEST_CASE("a table's rows are masked, indices are free") {
  CHECK(bound_text({"aten::embedding", "f[9,6],i9[2,5]"}) == "[v e], [n0 n1] -> [n0 n1 e]; masked v");
  CHECK(bound_text({"aten::embedding", "f[9,6],i9[2,5],3"}) == "[v e], [n0 n1] -> [n0 n1 e]; whole v");
  CHECK(bound_text({"aten::index.Tensor", "f[9,4,9],{i9[6],none,i9[6]}"}) ==
        "[r b1 r], [n0], [n0] -> [n0 b1]; whole r; whole r");
  CHECK(bound_text({"aten::index.Tensor", "f[9,4],{b[9]}"}) == "replicated");
}
