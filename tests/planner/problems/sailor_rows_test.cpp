// Rows of replicas over pools against all rows there are.
#include "planner/problems/sailor_rows.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>

#include "planner/problems/sailor_model.h"

using namespace coxswain::planner;

namespace {

using Rows = std::vector<std::vector<int>>;

/// The slowest reduction; infinite where rows break a rule.
double slowest(const std::vector<SailorRow>& rows, std::vector<int> room, const Rows& filled) {
  double longest = 0;
  if (filled.size() != rows.size()) return kNever;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    if (filled[r].size() != static_cast<std::size_t>(rows[r].count)) return kNever;
    for (std::size_t i = 0; i < filled[r].size(); ++i) {
      if ((room[static_cast<std::size_t>(filled[r][i])] -= rows[r].tp) < 0) return kNever;
      const auto pools = static_cast<int>(rows[r].pools.size());
      if (i > 0)
        longest = std::max(longest, rows[r].seconds[static_cast<std::size_t>(filled[r][i - 1] * pools + filled[r][i])]);
    }
  }
  return longest;
}

/// Over all rows, one replica after the other. Pools are numbered as their places.
double brute_force(const std::vector<SailorRow>& rows, const std::vector<int>& room, Rows& filled, std::size_t r = 0) {
  if (r == rows.size()) return slowest(rows, room, filled);
  if (filled[r].size() == static_cast<std::size_t>(rows[r].count)) return brute_force(rows, room, filled, r + 1);
  double best = kNever;
  for (const int pool : rows[r].pools) {
    filled[r].push_back(pool);
    best = std::min(best, brute_force(rows, room, filled, r));
    filled[r].pop_back();
  }
  return best;
}

}  // namespace

TEST_CASE("the slow zone goes to the short reduction, a zone of slow inner links between another's replicas",
          "[sailor_rows_test]") {
  // Zone 1 is slow inside, fast to zone 0; zone 2 takes twice as long as the others; the second row has half the bytes.
  const std::vector<double> seconds = {1, 1, 2, 1, 3, 2, 2, 2, 2};
  std::vector<double> half;
  for (const double each : seconds) half.push_back(each / 2);
  const std::vector<SailorRow> rows = {{{0, 1, 2}, 1, 4, seconds}, {{0, 1, 2}, 1, 4, half}};
  const std::vector<int> room = {2, 2, 4};
  REQUIRE(least_row_limit(rows, room) == 1);
  const auto filled = fill_rows(rows, room, 1);
  REQUIRE(filled);
  CHECK(slowest(rows, room, *filled) == 1);
  CHECK(std::count((*filled)[1].begin(), (*filled)[1].end(), 2) == 4);
  CHECK(!fill_rows(rows, room, 0.5));
}

TEST_CASE("GPUs are counted by tensor-parallel degree", "[sailor_rows_test]") {
  const std::vector<SailorRow> rows = {{{0, 1}, 4, 3, {1, 5, 5, 1}}};
  CHECK(least_row_limit(rows, {12, 0}) == 1);
  CHECK(least_row_limit(rows, {11, 4}) == 5);
  CHECK(least_row_limit(rows, {7, 7}) == kNever);
}

TEST_CASE("rows keep the rules, and half of them at least have the least limit", "[sailor_rows_test]") {
  std::mt19937 random(3);
  int best_found = 0, found = 0;
  for (int i = 0; i < 200; ++i) {
    std::vector<SailorRow> rows;
    for (const int count : {4, 3}) {
      SailorRow row{{0, 1, 2}, 1, count, {}};
      // As between zones: links are about as fast one way as the other.
      std::vector<double> links;
      for (int link = 0; link < 6; ++link) links.push_back(1 + static_cast<int>(random() % 6));
      for (const std::size_t link : {0, 1, 2, 1, 3, 4, 2, 4, 5}) row.seconds.push_back(links[link]);
      rows.push_back(std::move(row));
    }
    const std::vector<int> room = {3, 2, 3};
    Rows filled(rows.size());
    const double best = brute_force(rows, room, filled), limit = least_row_limit(rows, room);
    if (limit == kNever) continue;
    const auto rows_found = fill_rows(rows, room, limit);
    REQUIRE(rows_found);
    CHECK(slowest(rows, room, *rows_found) <= limit);
    CHECK(best <= limit);
    ++found;
    best_found += limit == best ? 1 : 0;
  }
  CHECK(found == 200);
  CHECK(best_found >= 100);
}
