// Our analytic model of AMP's clusters: each term by closed form.
#include "planner/problems/amp_model.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;

namespace {

constexpr double kTcp = 1448.0 / 1538;
constexpr double kAdamOnT4 = 28 / 320e9;  // seconds per parameter

/// Two transformer layers of 1024 tokens by 1024 columns between tied embeddings, on two nodes of two T4.
AmpInstance two_nodes() {
  AmpInstance instance;
  instance.nodes = {{2, 1e9, 2e9}, {2, 1e9, 2e9}};
  const AmpUnit layer{12.0 * 1024 * 1024, false, 1024.0 * 1024, false};
  instance.units = {{5e6, true, 1024.0 * 1024, false}, layer, layer, {5e6, true, 5e6, true}};
  instance.forward_seconds[1] = {0.001, 0.004, 0.004, 0.002};
  instance.global_batch = 8;
  return instance;
}

}  // namespace

TEST_CASE("waves of tiles are counted", "[amp_model_test]") {
  // 40 processors, 8 rows of tiles: 192, 64, 256, 64 tiles in 5, 2, 7, 2 waves of depth 1, 1, 1, 4: 22 in all. Two
  // samples: 10, 4, 13, 4 waves: 43.
  CHECK(wave_efficiency(1, 1024, 1024, 1, 40) == 1);
  CHECK(wave_efficiency(2, 1024, 1024, 1, 40) == Approx(43.0 / 44));
}

TEST_CASE("the profile with tensor parallelism tells what a collective attains", "[amp_model_test]") {
  AmpInstance instance = two_nodes();
  CHECK(attained_intra_fraction(instance) == 1);
  // Half the work takes 2 ms. Two all-reduces move 2 x 2 x 1/2 x 2^20 numbers: 1.048576 ms at the nominal rate.
  instance.forward_seconds[2] = {0.001, 0.002 + 0.004, 0.002 + 0.004, 0.002};
  CHECK(attained_intra_fraction(instance) == Approx(1.048576e-3 / 0.004));
  // Forward and backward take three times the work and twice the collectives.
  const AmpSplitCosts costs = model_split_costs(instance, {2, 2, 1, 1});
  CHECK(costs.unit_seconds[1] == Approx(3 * 0.002 + 2 * 0.004));
}

TEST_CASE("rings share the link out of their node", "[amp_model_test]") {
  AmpInstance instance = two_nodes();
  instance.forward_seconds[2] = instance.forward_seconds[1];
  for (std::size_t i : {1U, 2U}) instance.forward_seconds[2][i] = 0.002 + 1.048576e-3;  // fraction 1
  // One ring over four GPUs: the slowest link is the wire, used by one ring.
  CHECK(model_split_costs(instance, {1, 4, 1, 1}).sync_seconds_per_parameter[0] ==
        Approx(2 * 3.0 / 4 / (1e9 * kTcp) + kAdamOnT4));
  // Two rings of two, each through the same wire.
  CHECK(model_split_costs(instance, {2, 2, 1, 1}).sync_seconds_per_parameter[0] ==
        Approx(2 * 1.0 / 2 * 2 / (1e9 * kTcp) + kAdamOnT4));
  // Rings inside the nodes.
  CHECK(model_split_costs(instance, {1, 2, 2, 1}).sync_seconds_per_parameter[1] == Approx(1 / 2e9 + kAdamOnT4));
  CHECK(model_split_costs(instance, {1, 1, 4, 1}).sync_seconds_per_parameter[0] == Approx(kAdamOnT4));
}

TEST_CASE("sends of all replicas share the wire, and so do tied embeddings", "[amp_model_test]") {
  const AmpSplitCosts costs = model_split_costs(two_nodes(), {1, 2, 2, 1});
  CHECK(costs.cut_seconds_per_number[0] == Approx(2 / (1e9 * kTcp)));
  CHECK(costs.blocking_sends);
  CHECK(costs.extra_seconds == Approx(5e6 * 2 / (1e9 * kTcp)));
  CHECK(model_split_costs(two_nodes(), {1, 4, 1, 1}).extra_seconds == 0);
}

TEST_CASE("like units share their mean time and fill the memory by the published formula", "[amp_model_test]") {
  AmpInstance instance = two_nodes();
  instance.forward_seconds[1][2] = 0.006;
  const AmpSplitCosts costs = model_split_costs(instance, {1, 1, 4, 1});
  CHECK(costs.unit_seconds[1] == Approx(3 * 0.005));
  CHECK(costs.unit_seconds[2] == Approx(3 * 0.005));
  CHECK(costs.unit_seconds[3] == Approx(3 * 0.002));
  // 2^20 x (16 numbers and 2 masks) and 16 heads x 2^20 x (2 numbers and a mask).
  CHECK(costs.unit_activation[1] == Approx(1024.0 * 1024 * (66 + 16 * 9)));
  CHECK(costs.device_bytes == Approx(15.0 * 1024 * 1024 * 1024));
}

TEST_CASE("nodes with links beyond PCIe 3 hold the faster GPU", "[amp_model_test]") {
  AmpInstance instance = two_nodes();
  instance.nodes[0].intra_numbers_per_second = 5e9;
  const AmpSplitCosts costs = model_split_costs(instance, {1, 2, 2, 1});
  // The profile is the mean of both: t / 15.7 and t / 8.1 average to one.
  CHECK(costs.slowness[0] == Approx(2 / (1 + 15.7 / 8.1)));
  CHECK(costs.slowness[1] == Approx(2 / (1 + 8.1 / 15.7)));
}
