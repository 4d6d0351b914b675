#include "plan/layout/held_rows.h"

#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using plan::Cut;
using Rows = std::vector<std::vector<std::int64_t>>;

}  // namespace

TEST_CASE("without a cut a part is the whole") {
  const std::vector<std::int64_t> whole{2, 3};
  CHECK(plan::held_rows(whole, {}) == Rows{{0, 1}, {0, 1, 2}});
}

TEST_CASE("a cut of the extent takes its rows in every outer one, with all that lies inside") {
  // GPT-2's fused projection: (3, 4 heads, 2 deep), heads 1 and 2.
  const std::vector<std::int64_t> whole{24, 5};
  const std::vector<Cut> cuts{{0, 3, 4, 2, 1, {{1, 2}}}};
  CHECK(plan::held_rows(whole, cuts) == Rows{{2, 3, 4, 5, 10, 11, 12, 13, 18, 19, 20, 21}, {0, 1, 2, 3, 4}});
}

TEST_CASE("two runs, and a cut of what another one left") {
  const std::vector<std::int64_t> whole{8};
  std::vector<Cut> cuts{{0, 1, 8, 1, 1, {{0, 2}, {6, 2}}}};
  CHECK(plan::held_rows(whole, cuts) == Rows{{0, 1, 6, 7}});
  cuts.push_back({0, 1, 4, 1, 2, {{1, 2}}});
  CHECK(plan::held_rows(whole, cuts) == Rows{{1, 6}});
}

TEST_CASE("ascending numbers as runs") {
  const std::vector<std::int64_t> rows{4, 5, 9};
  CHECK(plan::runs_of_rows(rows) == std::vector<Cut::Run>{{4, 2}, {9, 1}});
  CHECK(plan::runs_of_rows(std::vector<std::int64_t>{}).empty());
}

}  // namespace coxswain::tests
