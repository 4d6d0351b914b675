// C4, C5, C11, C13, C28 on numbers counted by hand.
#include "cost_model/roofline.h"

#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

namespace {

cluster::DeviceClass curved_device() {
  cluster::DeviceClass device = make_device("d", 1 << 30, 1000, 100);
  device.matmul_rates = {{DType::Float32, 10, {FlopPerSecond(200), {}}},
                         {DType::Float32, 1000, {FlopPerSecond(800), {}}}};
  return device;
}

}  // namespace

TEST_CASE("C5: the rate follows the curve in log(size)", "[roofline_test]") {
  const cluster::DeviceClass device = curved_device();
  const auto rate = [&](double size) { return matmul_rate(device, plan::Precision::Float32, size).value; };
  CHECK(rate(10) == Approx(200));
  CHECK(rate(100) == Approx(500));  // half way between 10 and 1000 in log
  CHECK(rate(1000) == Approx(800));
  CHECK(rate(1e6) == Approx(800));  // stays
  CHECK(rate(5) == Approx(100));    // proportional below
  cluster::DeviceClass plain = make_device("d", 1, 1000, 100);
  CHECK(matmul_rate(plain, plan::Precision::Float32, 3).value == Approx(1000));
  plain.peak_bfloat16.value = FlopPerSecond(4000);
  CHECK(matmul_rate(plain, plan::Precision::BFloat16, 3).value == Approx(4000));
}

TEST_CASE("C5: float16 has a curve of its own, else bfloat16's rates", "[roofline_test]") {
  cluster::DeviceClass device = make_device("d", 1, 1000, 100);
  const auto rate = [&](plan::Precision precision) { return matmul_rate(device, precision, 10).value; };
  CHECK(rate(plan::Precision::Float16) == Approx(1000));  // no 16-bit arithmetic
  device.peak_bfloat16.value = FlopPerSecond(4000);
  CHECK(rate(plan::Precision::Float16) == Approx(4000));
  device.matmul_rates.push_back({DType::Float16, 10, {FlopPerSecond(3000), cluster::Source::Measured}});
  CHECK(rate(plan::Precision::Float16) == Approx(3000));
  CHECK(rate(plan::Precision::BFloat16) == Approx(4000));
  // A V100 or T4: bfloat16 at the float32 rate, float16 at its curve.
  device.peak_bfloat16.value = FlopPerSecond(0);
  CHECK(rate(plan::Precision::Float16) == Approx(3000));
  CHECK(rate(plan::Precision::BFloat16) == Approx(1000));
  CHECK(matmul_peak(device, plan::Precision::Float16).value == Approx(3000));
}

TEST_CASE("C4: an operator takes the greater of arithmetic and memory traffic", "[roofline_test]") {
  const cluster::DeviceClass device = make_device("d", 1, 1000, 100);
  CHECK(estimate_op(device, plan::Precision::Float32, model::OpClass::Matmul, Flop(5000), Bytes(100)).value ==
        Approx(5));
  CHECK(estimate_op(device, plan::Precision::Float32, model::OpClass::Matmul, Flop(5000), Bytes(1000)).value ==
        Approx(10));
  CHECK(estimate_op(device, plan::Precision::Float32, model::OpClass::Pointwise, Flop(0), Bytes(50)).value ==
        Approx(0.5));
}

TEST_CASE("C11: a block adds its operators, two products in the backward of a linear", "[roofline_test]") {
  // Arithmetic alone counts: memory is infinitely fast.
  const model::ModelGraph graph = make_chain(2, 16);
  const ModelFacts facts(graph);
  cluster::DeviceClass device = make_device("d", 1 << 30, 1000, 1e18);
  const double matmul = 2.0 * 4 * 16 * 16 / 1000;  // 4 samples
  BlockTime time = estimate_block_roofline(facts, device, {2, 0, 4});
  CHECK(time.forward.value == Approx(matmul).epsilon(0.05));  // relu is a little more
  CHECK(time.backward.value == Approx(2 * matmul).epsilon(0.05));
  CHECK_FALSE(time.measured);
  // Two operators forward, three backward (two products, one relu).
  device.launch_overhead.value = Seconds(100);
  const BlockTime launched = estimate_block_roofline(facts, device, {2, 0, 4});
  CHECK(launched.forward.value - time.forward.value == Approx(200));
  CHECK(launched.backward.value - time.backward.value == Approx(300));
}

TEST_CASE("C11: bfloat16 halves what moves, and what is kept where nothing is float32", "[roofline_test]") {
  const model::ModelGraph graph = make_chain(2, 16);
  const ModelFacts facts(graph);
  const cluster::DeviceClass device = make_device("d", 1 << 30, 1e18, 100);
  const BlockTime full = estimate_block_roofline(facts, device, {2, 0, 4, plan::Precision::Float32});
  const BlockTime half = estimate_block_roofline(facts, device, {2, 0, 4, plan::Precision::BFloat16});
  CHECK(half.forward.value == Approx(full.forward.value / 2));
  CHECK(half.saved.value * 2 == full.saved.value);
}

TEST_CASE("C28: W is the products with parameters, and all of one whose data needs no gradient", "[roofline_test]") {
  const model::ModelGraph graph = make_chain(2, 16);
  const ModelFacts facts(graph);
  cluster::DeviceClass device = make_device("d", 1 << 30, 1000, 1e18);
  const double matmul = 2.0 * 4 * 16 * 16 / 1000;
  const BlockTime second = estimate_block_roofline(facts, device, {2, 0, 4});
  CHECK(second.weight.value == Approx(matmul));
  const BlockTime first = estimate_block_roofline(facts, device, {1, 0, 4});
  CHECK(first.weight.value == Approx(matmul));
  CHECK(first.backward.value == Approx(matmul).epsilon(0.05));
  device.launch_overhead.value = Seconds(100);
  CHECK(estimate_block_roofline(facts, device, {2, 0, 4}).weight.value == Approx(matmul + 100));
}

TEST_CASE("C13: clipping and AdamW move 32 bytes a parameter", "[roofline_test]") {
  cluster::DeviceClass device = make_device("d", 1, 1000, 64);
  CHECK(estimate_optimizer_roofline(device, 10).value == Approx(5));
  device.launch_overhead.value = Seconds(1);
  CHECK(estimate_optimizer_roofline(device, 10).value == Approx(6));
}
