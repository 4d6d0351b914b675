#include "tests/plan/rules/cases.h"

#include <catch2/catch.hpp>

using namespace coxswain::tests;

namespace {

constexpr RuleCase kCases[] = {
    {"aten::layer_norm", "f[2,5,6],(6),f[6],f[6]"},
    {"aten::layer_norm", "f[4,6],(6)"},
    {"aten::layer_norm", "f[4,3,6],(3,6),f[3,6]"},
    {"aten::native_layer_norm", "f[4,3,6],(6),f[6],f[6],0.00001"},
    {"aten::native_layer_norm", "f[4,6],(6),none,none,0.001"},
    {"aten::rms_norm", "f[2,5,6],(6),f[6]"},
    {"aten::rms_norm", "f[4,6],(6),none,0.001"},
    {"aten::group_norm", "f[3,6,4],2,f[6],f[6]"},
    {"aten::group_norm", "f[2,6,3,3],3"},
    {"aten::group_norm", "f[4,6],6,f[6],f[6]"},
    {"aten::group_norm", "f[4,6,2],1,f[6],f[6]"},
    {"aten::batch_norm", "f[4,6],f[6],f[6],c[6],c[6],true,0.1,0.001,false"},
    {"aten::batch_norm", "f[4,6,5],f[6],f[6],none,none,true,0.1,0.001,false"},
    {"aten::batch_norm", "f[4,6,3,3],f[6],f[6],c[6],c[6],false,0.1,0.001,false"},
    {"aten::instance_norm", "f[4,6,5],f[6],f[6],none,none,true,0.1,0.001,false"},
    {"aten::instance_norm", "f[2,3,4,4],none,none,none,none,true,0.1,0.001,false"},
    {"aten::instance_norm", "f[4,6,5],f[6],f[6],c[6],c[6],false,0.1,0.001,false"},
};

}  // namespace

std::span<const RuleCase> coxswain::tests::normalisation_cases() { return kCases; }

TEST_CASE("what a mean is taken over stays whole") {
  CHECK(bound_text({"aten::layer_norm", "f[4,3,6],(3,6),f[3,6]"}) ==
        "[b0 r1 r2], [r1 r2] -> [b0 r1 r2]; whole r1; whole r2");
  CHECK(bound_text({"aten::group_norm", "f[3,6,4],2,f[6],f[6]"}) ==
        "[n (g k) s2], [(g k)], [(g k)] -> [n (g k) s2]; whole k; whole s2");
  CHECK(bound_text({"aten::batch_norm", "f[4,6,5],f[6],f[6],c[6],c[6],false,0.1,0.001,false"}) ==
        "[n0 c1 s2], [c1], [c1], [c1], [c1] -> [n0 c1 s2]");
  CHECK(bound_text({"aten::batch_norm", "f[4,6],f[6],f[6],c[6],c[6],true,0.1,0.001,false"}) ==
        "[n0 c1], [c1], [c1], [c1], [c1] -> [n0 c1]; whole n0");
}
