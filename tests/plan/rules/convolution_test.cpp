#include "tests/plan/rules/cases.h"

#include <catch2/catch.hpp>

using namespace coxswain::tests;

namespace {

constexpr RuleCase kCases[] = {
    {"aten::conv1d", "f[2,4,8],f[6,4,3],f[6]"},
    {"aten::conv1d", "f[4,8],f[6,4,3],f[6]"},
    {"aten::conv1d", "f[2,6,8],f[6,1,3],f[6],padding=1,groups=6"},
    {"aten::conv1d", "f[2,8,7],f[4,4,3],none,groups=2"},
    {"aten::conv2d", "f[2,4,6,6],f[6,4,3,3],f[6],2,1"},
    {"aten::conv2d", "f[3,4,5,5],f[8,2,3,3],f[8],groups=2"},
    {"aten::conv2d.padding", "f[2,3,5,5],f[4,3,3,3],f[4],padding='same'"},
    {"aten::conv3d", "f[2,2,4,4,4],f[4,2,2,2,2],f[4]"},
    {"aten::conv3d", "f[2,3,4,4,4],f[2,3,2,2,2]"},
    {"aten::convolution", "f[2,4,6],f[6,4,3],f[6],(1),(0),(1),false,(0),1"},
    {"aten::convolution", "f[2,4,6,6],f[4,3,3,3],f[6],(2,2),(1,1),(1,1),true,(0,0),2"},
    {"aten::convolution", "f[2,4,6,6],f[6,2,3,3],none,(1,1),(1,1),(1,1),false,(0,0),2"},
    {"aten::max_pool1d", "f[2,4,8],2"},
    {"aten::max_pool1d", "f[4,8],3,1"},
    {"aten::max_pool2d", "f[2,4,6,6],2"},
    {"aten::max_pool2d", "f[3,6,6],3,2,1"},
    {"aten::avg_pool1d", "f[2,4,8],2"},
    {"aten::avg_pool1d", "f[4,8],3,1"},
    {"aten::avg_pool2d", "f[2,4,6,6],2"},
    {"aten::avg_pool2d", "f[3,6,6],3,2,1"},
    {"aten::adaptive_avg_pool1d", "f[2,4,8],3"},
    {"aten::adaptive_avg_pool1d", "f[4,8],1"},
    {"aten::adaptive_avg_pool2d", "f[2,4,6,6],(1,1)"},
    {"aten::adaptive_avg_pool2d", "f[4,6,6],(3,2)"},
    {"aten::upsample_nearest2d", "f[2,4,3,3],(6,6)"},
    {"aten::upsample_nearest2d.vec", "f[2,4,3,3],none,(2.0,2.0)"},
    {"aten::upsample_bilinear2d", "f[2,4,3,3],(6,5),false"},
    {"aten::upsample_bilinear2d", "f[2,3,4,3],(6,5),true"},
};

}  // namespace

std::span<const RuleCase> coxswain::tests::convolution_cases() { return kCases; }

TEST_CASE("groups are free, channels of a group are summed") {
  CHECK(bound_text({"aten::conv1d", "f[2,8,7],f[4,4,3],f[4],groups=2"}) ==
        "[n (g i) s], [(g o) i k], [(g o)] -> [n (g o) t]; sum i; whole s; whole t; whole k");
  CHECK(bound_text({"aten::conv2d", "f[2,4,6,6],f[6,4,3,3]"}) ==
        "[n i s s], [o i k k] -> [n o t t]; sum i; whole s; whole t; whole k; whole s; whole t; whole k");
}
