// C32: the busiest place of experts, against closed forms and drawn loads.
#include "cost_model/expert_load.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;

TEST_CASE("C32: without variation, or with one place, no device is busier", "[expert_load_test]") {
  CHECK(expected_imbalance(8, 1, 0.5) == 1);
  CHECK(expected_imbalance(8, 4, 0) == 1);
}

TEST_CASE("C32: two places differ by the mean of a normal's magnitude", "[expert_load_test]") {
  // Two experts, one each: loads 1 +- x, x of standard deviation cv: E|x| = cv sqrt(2 / pi). Blom's is 5 % above.
  CHECK(expected_imbalance(2, 2, 0.2) - 1 == Approx(0.2 * std::sqrt(2 / M_PI)).epsilon(0.06));
}

TEST_CASE("C32: the busiest place is that of drawn loads", "[expert_load_test]") {
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  constexpr int kDraws = 20000;
  for (const auto& [experts, places] : {std::pair{8, 2}, {8, 4}, {8, 8}, {64, 8}, {64, 16}}) {
    const double cv = 0.15;
    double sum = 0, squares = 0;
    std::vector<double> loads(static_cast<std::size_t>(experts));
    for (int draw = 0; draw < kDraws; ++draw) {
      for (double& load : loads) load = 1 + cv * normal(random);
      const double mean = std::accumulate(loads.begin(), loads.end(), 0.0) / experts;
      double variance = 0, most = 0;
      for (const double load : loads) variance += std::pow(load / mean - 1, 2) / experts;
      const int each = experts / places;
      for (int p = 0; p < places; ++p)
        most = std::max(most, std::accumulate(&loads[p * each], &loads[p * each] + each, 0.0) / each / mean);
      sum += most / kDraws;
      squares += variance / kDraws;
    }
    INFO(experts << " experts over " << places);
    CHECK(expected_imbalance(experts, places, std::sqrt(squares)) - 1 == Approx(sum - 1).epsilon(0.06));
  }
}
