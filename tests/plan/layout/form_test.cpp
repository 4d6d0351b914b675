#include "plan/layout/form.h"

#include <catch2/catch.hpp>

using namespace coxswain::plan;

namespace {

// A view from (qkv heads depth) in one dim to three: factors 0, 1, 2 of sizes 3, 4, 8.
OpFactors fused_view() {
  OpFactors op;
  for (const std::int64_t size : {3, 4, 8}) {
    Factor factor;
    factor.size = size;
    factor.kind = FactorKind::Free;
    op.factors.push_back(factor);
  }
  op.inputs.push_back({0, -1, 0, {{0, 1, 2}}, false});
  op.outputs.push_back({0, -1, 1, {{0}, {1}, {2}}, false});
  return op;
}

}  // namespace

TEST_CASE("heads of a fused projection are a strided split of its dim", "[form_test]") {
  const OpFactors op = fused_view();
  const auto heads = factor_of(op.outputs[0], op, {1, 1, 4, 1});
  REQUIRE(heads);
  CHECK(*heads == FactorSplit{1, 1, 4, 1});
  CHECK(form_of(op.inputs[0], op, *heads) == shard({0, 3, 4, 8}));
  CHECK(factor_of(op.inputs[0], op, {0, 3, 4, 8}) == *heads);
}

TEST_CASE("a part of a factor keeps what stands around it", "[form_test]") {
  const OpFactors op = fused_view();
  // Pairs of heads: (3, 2, 2, 8) split along the first 2.
  CHECK(factor_of(op.inputs[0], op, {0, 3, 2, 16}) == FactorSplit{1, 1, 2, 2});
  CHECK(form_of(op.outputs[0], op, {1, 1, 2, 2}) == shard({1, 1, 2, 2}));
  // Rows that cross from one factor into the next belong to none.
  CHECK_FALSE(factor_of(op.inputs[0], op, {0, 1, 12, 8}));
  CHECK_FALSE(factor_of(op.inputs[0], op, {0, 1, 5, 1}));
}

TEST_CASE("whole and contiguous factors refuse", "[form_test]") {
  OpFactors op = fused_view();
  op.factors[1].kind = FactorKind::Whole;
  CHECK_FALSE(factor_of(op.outputs[0], op, {1, 1, 4, 1}));
  op.factors[1].kind = FactorKind::Free;
  op.factors[1].contiguous = true;
  CHECK(factor_of(op.outputs[0], op, {1, 1, 2, 2}));
  CHECK_FALSE(factor_of(op.outputs[0], op, {1, 2, 2, 1}));
}

TEST_CASE("parts are as equal as can be", "[form_test]") {
  CHECK(part_of_extent(7, 3, 0) == Cut::Run{0, 3});
  CHECK(part_of_extent(7, 3, 1) == Cut::Run{3, 2});
  CHECK(part_of_extent(7, 3, 2) == Cut::Run{5, 2});
}
