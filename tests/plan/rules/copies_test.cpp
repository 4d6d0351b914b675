#include "tests/plan/rules/cases.h"

#include <catch2/catch.hpp>

using namespace coxswain::tests;

namespace {

constexpr RuleCase kCases[] = {
    {"aten::cat", "{f[4,6],f[3,6]}"},
    {"aten::cat", "{f[4,6],f[4,2],f[4,1]},-1"},
    {"aten::stack", "{f[4,6],f[4,6]}"},
    {"aten::stack", "{f[4,6],f[4,6],f[4,6]},-1"},
    {"aten::pad", "f[4,6],(1,1)"},
    {"aten::pad", "f[2,4,6],(0,0,2,0),'reflect'"},
    {"aten::constant_pad_nd", "f[4,6],(1,2),0.5"},
    {"aten::constant_pad_nd", "f[4,6],(0,0,1,0)"},
    {"aten::repeat", "f[4,6],(2,3)"},
    {"aten::repeat", "f[6],(4,1)"},
    {"aten::repeat", "f[2,3],(3,1,2)"},
    {"aten::repeat_interleave.self_int", "f[4,6],2,1"},
    {"aten::repeat_interleave.self_int", "f[4,6],3"},
    {"aten::repeat_interleave.self_int", "f[2,3,4],2,1,output_size=6"},
    {"aten::flip", "f[4,6],(1)"},
    {"aten::flip", "f[4,6,3],(0,2)"},
    {"aten::roll", "f[4,6],(1),(1)"},
    {"aten::roll", "f[4,6],(2)"},
    {"aten::roll", "f[4,6,3],(1,2),(0,2)"},
    {"aten::tril", "f[3,4,6]"},
    {"aten::tril", "f[4,4],1"},
    {"aten::triu", "f[3,4,6],1"},
    {"aten::triu", "b[2,4,4]"},
    {"aten::slice_scatter", "f[4,6],f[4,2],1,1,3"},
    {"aten::slice_scatter", "f[4,6,2],f[2,6,2],0,0,2"},
    {"aten::select_scatter", "f[4,6],f[6],0,1"},
    {"aten::select_scatter", "f[4,6,3],f[4,3],1,2"},
    {"aten::one_hot", "i9[4,6],9"},
    {"aten::one_hot", "i9[5],9"},
};

}  // namespace

std::span<const RuleCase> coxswain::tests::copy_cases() { return kCases; }

TEST_CASE("joined dims stay whole, repeated ones are products") {
  CHECK(bound_text({"aten::repeat", "f[2,3],(3,1,2)"}) == "[n1 n2] -> [r0 n1 (r2 n2)]");
  CHECK(bound_text({"aten::repeat_interleave.self_int", "f[4,6],3"}) == "[n0 n1] -> [(n0 n1 r)]");
  CHECK(bound_text({"aten::cat", "{f[4,6],f[3,6]}"}) == "[r b1], [r b1] -> [t b1]; whole r; whole r; whole t");
}
