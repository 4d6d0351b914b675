#include "tests/plan/rules/cases.h"

#include <catch2/catch.hpp>

using namespace coxswain::tests;

namespace {

constexpr RuleCase kCases[] = {
    {"aten::view", "f[2,2,6],(4,6)"},
    {"aten::view", "f[24],(2,-1)"},
    {"aten::view", "f[4,6],(2,2,3,2)"},
    {"aten::_unsafe_view", "f[2,2,6],(4,6)"},
    {"aten::_unsafe_view", "f[24],(2,-1)"},
    {"aten::_unsafe_view", "f[4,6],(2,2,3,2)"},
    {"aten::reshape", "f[2,2,6],(4,6)"},
    {"aten::reshape", "f[24],(2,-1)"},
    {"aten::reshape", "f[4,6],(2,2,3,2)"},
    {"aten::view", "f[4,6],(6,4)"},
    {"aten::view", "f[4,1,6],(4,6,1)"},
    {"aten::view", "f[4,6,5],(8,3,5)"},
    {"aten::view", "i9[12],(3,4)"},
    {"aten::reshape", "f[2,3,10],(2,5,6)"},
    {"aten::flatten.using_ints", "f[2,3,4],1"},
    {"aten::flatten.using_ints", "f[2,3,4],0,1"},
    {"aten::unflatten.int", "f[4,6],1,(2,3)"},
    {"aten::unflatten.int", "f[6,4],0,(2,-1)"},
    {"aten::ravel", "f[4,6]"},
    {"aten::ravel", "f[2,3,2]"},
    {"aten::view_as", "f[4,6],f[4,2,3]"},
    {"aten::reshape_as", "f[4,6],f[2,2,6]"},
    {"aten::reshape_as", "f[6],f[6,1]"},
    {"aten::view_as", "f[24],f[4,6]"},
    {"aten::transpose.int", "f[4,6,3],0,2"},
    {"aten::transpose.int", "f[4,6],-1,-2"},
    {"aten::swapaxes", "f[4,6],0,1"},
    {"aten::swapdims", "f[4,6,2],1,2"},
    {"aten::permute", "f[2,4,6],(2,0,1)"},
    {"aten::permute", "f[2,3,4,5],(0,2,1,-1)"},
    {"aten::t", "f[4,6]"},
    {"aten::t", "f[4]"},
    {"aten::numpy_T", "f[4,6]"},
    {"aten::mT", "f[2,4,6]"},
    {"aten::mT", "f[4,6]"},
    {"aten::numpy_T", "f[2,3]"},
    {"aten::unsqueeze", "f[4,6],1"},
    {"aten::unsqueeze", "f[4,6],-1"},
    {"aten::squeeze.dim", "f[4,1,6],1"},
    {"aten::squeeze.dims", "f[1,4,1],(0,2)"},
    {"aten::expand", "f[4,1],(4,6)"},
    {"aten::expand", "f[6],(4,-1)"},
    {"aten::expand", "f[2,1,3],(2,4,-1)"},
    {"aten::broadcast_to", "f[4,1],(2,4,6)"},
    {"aten::broadcast_to", "f[6],(4,6)"},
    {"aten::expand_as", "f[4,1],f[4,6]"},
    {"aten::expand_as", "f[6],f[2,6]"},
    {"aten::slice.Tensor", "f[4,6],1,0,3"},
    {"aten::slice.Tensor", "f[4,6],0,0,9223372036854775807"},
    {"aten::slice.Tensor", "f[4,6],1,1,6,2"},
    {"aten::narrow", "f[4,6],1,2,3"},
    {"aten::narrow", "f[4,6],1,0,6"},
    {"aten::select.int", "f[4,6],0,1"},
    {"aten::select.int", "f[4,6,3],1,-1"},
    {"aten::unbind.int", "f[3,4]"},
    {"aten::unbind.int", "f[4,3,2],1"},
    {"aten::split.Tensor", "f[4,12],4,1"},
    {"aten::split.Tensor", "f[10,3],4"},
    {"aten::split_with_sizes", "f[4,12],(4,4,4),1"},
    {"aten::split_with_sizes", "f[4,12],(8,2,2),-1"},
    {"aten::split.sizes", "f[10,3],(4,6)"},
    {"aten::chunk", "f[4,12],3,1"},
    {"aten::chunk", "f[10,3],4"},
    {"aten::chunk", "f[8,3],2"},
    {"aten::tensor_split.sections", "f[10,3],3"},
    {"aten::tensor_split.indices", "f[10,3],(2,5)"},
};

}  // namespace

std::span<const RuleCase> coxswain::tests::view_cases() { return kCases; }

TEST_CASE("views share the digits of row-major order") {
  CHECK(bound_text({"aten::view", "f[4,6],(2,2,3,2)"}) == "[(d3 d2) (d1 d0)] -> [d3 d2 d1 d0]");
  CHECK(bound_text({"aten::view", "f[2,2,6],(4,6)"}) == "[d2 d1 d0] -> [(d2 d1) d0]");
  CHECK(bound_text({"aten::view", "f[4,6],(6,4)"}) ==
        "[x4 (x1 d0)] -> [x3 (x2 d0)]; whole x1; whole x2; whole x3; whole x4");
  CHECK(bound_text({"aten::split_with_sizes", "f[4,12],(4,4,4),1"}) ==
        "[d0 (pieces d1)] -> [d0 d1], [d0 d1], [d0 d1]; whole pieces");
  CHECK(bound_text({"aten::squeeze", "f[4,1]"}) == "replicated");
}
