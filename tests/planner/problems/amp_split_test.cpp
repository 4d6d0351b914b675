// The best cut of a chain, against every cut and a formula of the test's own; the peer's costs by closed forms.
#include "planner/problems/amp_split.h"

#include <algorithm>
#include <random>

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;

namespace {

AmpSplitCosts random_costs(std::mt19937& random, int num_units, int num_stages) {
  std::uniform_real_distribution<double> number(0, 2);
  AmpSplitCosts costs;
  costs.num_stages = num_stages;
  costs.rounds = std::uniform_int_distribution<int>(0, 5)(random);
  for (int i = 0; i < num_units; ++i) {
    costs.unit_seconds.push_back(number(random));
    costs.unit_parameters.push_back(number(random));
    costs.unit_embedding.push_back(number(random) < 0.5);
    costs.unit_output.push_back(number(random));
    costs.unit_activation.push_back(number(random));
  }
  for (int j = 0; j < num_stages; ++j) {
    costs.slowness.push_back(0.5 + number(random));
    costs.cut_seconds_per_number.push_back(number(random));
    costs.sync_seconds_per_parameter.push_back(number(random));
  }
  costs.blocking_sends = number(random) < 1;
  costs.hidden_fraction = number(random) < 1 ? 0 : 0.5;
  costs.state_bytes_per_parameter = 1;
  costs.device_bytes = 4 + 4 * number(random);
  costs.extra_seconds = number(random);
  return costs;
}

/// Seconds of the cut, or a negative number when a stage does not fit.
double seconds_of(const AmpSplitCosts& costs, const std::vector<int>& split) {
  double slowest = 0, sum = 0, sync = 0, earlier = 0, before = 0;
  std::size_t unit = 0;
  for (std::size_t j = 0; j < split.size(); ++j) {
    double compute = 0, parameters = 0, embedding = 0, activation = 0;
    for (int i = 0; i < split[j]; ++i, ++unit) {
      compute += costs.unit_seconds[unit] * costs.slowness[j];
      (costs.unit_embedding[unit] ? embedding : parameters) = costs.unit_embedding[unit]
                                                                  ? std::max(embedding, costs.unit_parameters[unit])
                                                                  : parameters + costs.unit_parameters[unit];
      activation += costs.unit_activation[unit];
    }
    const double in_flight =
        std::min<double>(static_cast<double>(costs.rounds + 1), static_cast<double>(split.size() - j));
    if (parameters + embedding + activation * in_flight > costs.device_bytes) return -1;
    const double cut = j + 1 == split.size() ? 0 : costs.unit_output[unit - 1] * costs.cut_seconds_per_number[j];
    const double stage = compute + (costs.blocking_sends ? cut + before : 0);
    before = cut;
    slowest = std::max(slowest, stage);
    sum += stage + (costs.blocking_sends ? 0 : cut);
    sync = std::max(sync, (parameters + embedding) * costs.sync_seconds_per_parameter[j] - earlier);
    earlier += compute * costs.hidden_fraction;
  }
  return static_cast<double>(costs.rounds) * slowest + sum + sync + costs.extra_seconds;
}

void try_all(const AmpSplitCosts& costs, std::vector<int>& split, int left, double& best) {
  if (static_cast<int>(split.size()) + 1 == costs.num_stages) {
    split.push_back(left);
    const double seconds = seconds_of(costs, split);
    if (seconds >= 0 && (best < 0 || seconds < best)) best = seconds;
    split.pop_back();
    return;
  }
  for (int units = 1; units + costs.num_stages - static_cast<int>(split.size()) - 1 <= left; ++units) {
    split.push_back(units);
    try_all(costs, split, left - units, best);
    split.pop_back();
  }
}

}  // namespace

TEST_CASE("no cut of a random chain is faster than the one found", "[amp_split_test]") {
  std::mt19937 random(7);
  int num_fitting = 0, num_misfits = 0;
  for (int round = 0; round < 300; ++round) {
    const int num_units = std::uniform_int_distribution<int>(1, 9)(random);
    const AmpSplitCosts costs = random_costs(random, num_units, 1 + round % std::min(num_units, 4));
    std::vector<int> split;
    double best = -1;
    try_all(costs, split, num_units, best);
    const auto found = find_amp_split(costs);
    REQUIRE(found.has_value() == (best >= 0));
    ++(found ? num_fitting : num_misfits);
    if (!found) continue;
    CHECK(found->seconds == Approx(best).epsilon(1e-9));
    CHECK(seconds_of(costs, found->split) == Approx(best).epsilon(1e-9));
  }
  CHECK(num_fitting > 50);
  CHECK(num_misfits > 20);
}

TEST_CASE("memory is free when no activations are given", "[amp_split_test]") {
  std::mt19937 random(8);
  AmpSplitCosts costs = random_costs(random, 4, 2);
  costs.device_bytes = 0;
  CHECK_FALSE(find_amp_split(costs).has_value());
  costs.unit_activation.clear();
  CHECK(find_amp_split(costs).has_value());
}

TEST_CASE("the peer's cuts are the mean over replicas of the slowest shard", "[amp_split_test]") {
  // Ranks 0 1 2 | 3 4 5 | 6 7: stage 0 = ranks 0 to 3, stage 1 = 4 to 7; dp 2, tp 2.
  AmpInstance instance;
  instance.nodes = {{3, 10, 100}, {3, 5, 1000}, {2, 4, 50}};
  instance.units = {{8, false, 6, true}, {20, true, 6, false}};
  instance.forward_seconds[2] = {1, 2};
  instance.global_batch = 12;
  const AmpSplitCosts costs = peer_split_costs(instance, {2, 2, 2, 3});
  CHECK(costs.rounds == 1);
  CHECK(costs.unit_seconds == std::vector<double>{9, 18});
  CHECK(costs.unit_output == std::vector<double>{9, 18});
  CHECK(costs.unit_parameters == std::vector<double>{4, 10});
  // Replica 0: 0 -> 4 and 1 -> 5 at 5. Replica 1: 2 -> 6 at 4, 3 -> 7 at 4.
  CHECK(costs.cut_seconds_per_number[0] == Approx((1.0 / 5 + 1.0 / 4) / 2));
  // Stage 0: 2 -> 0 at 100, 3 -> 1 at 5. Stage 1: 6 -> 4 and 7 -> 5 at 4.
  CHECK(costs.sync_seconds_per_parameter[0] == Approx(1.0 / 5));
  CHECK(costs.sync_seconds_per_parameter[1] == Approx(1.0 / 4));
}
