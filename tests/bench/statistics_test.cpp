// Numbers that benches sum up with, by hand.
#include "bench/support/bench.h"

#include <catch2/catch.hpp>

using namespace coxswain::bench;

TEST_CASE("the median of an even number of values is the mean of the middle two") {
  CHECK(median({5, 1, 3}) == 3);
  CHECK(median({4, 1, 3, 2}) == 2.5);
}

TEST_CASE("Spearman's correlation is of ranks") {
  CHECK(spearman({1, 2, 3, 4, 5}, {1, 10, 100, 1000, 10000}) == 1);
  CHECK(spearman({1, 2, 3}, {3, 2, 1}) == -1);
  // 1 - 6 sum d^2 / (n (n^2 - 1)) with d = 1, 1, 1, 1, 0.
  CHECK(spearman({10, 20, 30, 40, 50}, {2, 1, 4, 3, 5}) == Approx(0.8));
  // Ranks 1, 2.5, 2.5, 4 with 1, 2, 3, 4: Pearson of these is 4.5 / sqrt(4.5 x 5).
  CHECK(spearman({1, 2, 2, 3}, {1, 2, 3, 4}) == Approx(0.9486832981));
  CHECK(spearman({1, 1}, {1, 2}) == 0);
}
