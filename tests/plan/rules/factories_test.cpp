#include "tests/plan/rules/cases.h"

#include <catch2/catch.hpp>

using namespace coxswain::tests;

namespace {

constexpr RuleCase kCases[] = {
    {"aten::zeros", "(4,6)"},
    {"aten::zeros", "(3)"},
    {"aten::ones", "(4,6)"},
    {"aten::ones", "(2,3,5)"},
    {"aten::full", "(4,6),0.5"},
    {"aten::full", "(3,2),2"},
    {"aten::empty.memory_format", "(4,6)"},
    {"aten::empty.memory_format", "(3)"},
    {"aten::new_zeros", "f[2],(4,6)"},
    {"aten::new_zeros", "f[2,2],(5)"},
    {"aten::new_ones", "f[2],(4,6)"},
    {"aten::new_ones", "i9[2],(5)"},
    {"aten::new_full", "f[2],(4,6),0.5"},
    {"aten::new_full", "i9[3],(4),2"},
    {"aten::new_empty", "f[2],(4,6)"},
    {"aten::new_empty", "f[2],(3)"},
    {"aten::zeros_like", "f[4,6]"},
    {"aten::zeros_like", "i9[3]"},
    {"aten::ones_like", "f[4,6]"},
    {"aten::ones_like", "b[4]"},
    {"aten::full_like", "f[4,6],0.5"},
    {"aten::full_like", "i9[4],2"},
    {"aten::empty_like", "f[4,6]"},
    {"aten::empty_like", "f[3]"},
    {"aten::scalar_tensor", "2.5"},
    {"aten::arange", "6"},
    {"aten::arange.start", "1,7"},
    {"aten::arange.start", "0,6"},
    {"aten::arange.start_step", "0,12,2"},
    {"aten::arange.start_step", "10,1,-2"},
    {"aten::linspace", "0.0,1.0,6"},
    {"aten::eye", "4"},
    {"aten::eye.m", "4,6"},
};

}  // namespace

std::span<const RuleCase> coxswain::tests::factory_cases() { return kCases; }

TEST_CASE("every part makes its own rows") {
  CHECK(bound_text({"aten::zeros", "(4,6)"}) == "-> [d0 d1]");
  CHECK(bound_text({"aten::arange.start_step", "0,12,2"}) == "-> [n]; offset n");
  CHECK(bound_text({"aten::arange", "6"}) == "-> [n]; whole n");
}
