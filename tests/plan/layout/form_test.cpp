#include "plan/layout/form.h"

#include <algorithm>

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

namespace {

std::vector<std::int64_t> rows_of(const std::vector<Cut::Run>& runs) {
  std::vector<std::int64_t> rows;
  for (const Cut::Run& run : runs)
    for (std::int64_t i = 0; i < run.size; ++i) rows.push_back(run.first + i);
  return rows;
}

}  // namespace

TEST_CASE("two runs are the same rows, each once, in as many pieces of nearly equal size", "[form_test]") {
  CHECK(runs_of_extent(8, 2, 0, 2) == std::vector<Cut::Run>{{0, 2}, {6, 2}});
  CHECK(runs_of_extent(8, 2, 1, 2) == std::vector<Cut::Run>{{2, 2}, {4, 2}});
  CHECK(runs_of_extent(8, 2, 1, 1) == std::vector<Cut::Run>{{4, 4}});
  for (std::int64_t extent = 1; extent < 40; ++extent) {
    for (int size = 1; size <= extent && size < 9; ++size) {
      CAPTURE(extent, size);
      std::vector<int> taken(static_cast<std::size_t>(extent), 0);
      std::int64_t least = extent, most = 0;
      for (int index = 0; index < size; ++index) {
        const auto runs = runs_of_extent(extent, size, index, 2);
        REQUIRE(runs.size() == 2);
        CHECK(runs[0].first + runs[0].size <= runs[1].first);
        CHECK(total_rows(runs) == part_of_extent(extent, size, index).size);
        for (const std::int64_t row : rows_of(runs)) ++taken.at(static_cast<std::size_t>(row));
        for (const Cut::Run& run : runs) {
          least = std::min(least, run.size);
          most = std::max(most, run.size);
        }
      }
      CHECK(taken == std::vector<int>(static_cast<std::size_t>(extent), 1));
      CHECK(most - least <= 1);
    }
  }
}

TEST_CASE("members of two runs see as many rows under causality, to one row", "[form_test]") {
  // Row r sees r + 1 rows.
  const auto spread = [](std::int64_t extent, int size, int runs) {
    std::vector<std::int64_t> pairs;
    for (int index = 0; index < size; ++index) {
      pairs.push_back(0);
      for (const std::int64_t row : rows_of(runs_of_extent(extent, size, index, runs))) pairs.back() += row + 1;
    }
    const auto [least, most] = std::minmax_element(pairs.begin(), pairs.end());
    return *most - *least;
  };
  for (std::int64_t extent = 2; extent < 100; ++extent) {
    for (int size = 2; size <= extent && size < 17; ++size) {
      CAPTURE(extent, size);
      CHECK(spread(extent, size, 2) <= (extent % (2 * size) == 0 ? 0 : extent));
    }
  }
  CHECK(spread(96, 4, 1) == 3 * 24 * 24);
}

TEST_CASE("rows of rows are rows of the whole", "[form_test]") {
  const std::vector<Cut::Run> held{{2, 3}, {9, 3}};
  CHECK(runs_of_part(held, {{0, 2}}) == std::vector<Cut::Run>{{2, 2}, {4, 0}});
  CHECK(runs_of_part(held, {{2, 2}}) == std::vector<Cut::Run>{{4, 1}, {9, 1}});
  CHECK(runs_of_part(held, {{4, 2}}) == std::vector<Cut::Run>{{10, 2}, {12, 0}});
  CHECK(runs_of_part({{4, 4}}, {{1, 2}}) == std::vector<Cut::Run>{{5, 2}});
  CHECK(runs_of_part(held, {{1, 1}, {3, 2}}) == std::vector<Cut::Run>{{3, 1}, {9, 2}, {11, 0}});
}

TEST_CASE("parts are as equal as can be", "[form_test]") {
  CHECK(part_of_extent(7, 3, 0) == Cut::Run{0, 3});
  CHECK(part_of_extent(7, 3, 1) == Cut::Run{3, 2});
  CHECK(part_of_extent(7, 3, 2) == Cut::Run{5, 2});
}
