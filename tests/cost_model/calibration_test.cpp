// Corrections from a run's metrics: C63 time, C64 memory, and every problem of a bad file.
#include "cost_model/calibration.h"

#include "tests/cost_model/fake_cost.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

namespace {

std::string line(int step, double measured, int generation = 1) {
  return to_text(Json(JsonObject{{"step", step},
                                 {"generation", generation},
                                 {"step_seconds", measured},
                                 {"predicted_step_seconds", 1.0},
                                 {"peak_memory_bytes", JsonArray{Json(1500)}},
                                 {"predicted_peak_memory_bytes", JsonArray{Json(1000)}}})) +
         "\n";
}

/// Steps 1 to 4 are warm-up and slow; the median of the others is 1.2 s.
std::string metrics() {
  std::string text;
  for (int step = 1; step <= 4; ++step) text += line(step, 9);
  for (const double measured : {1.2, 1.1, 1.2, 1.3, 7.0}) text += line(5, measured);
  return text;
}

cluster::ResourceGraph resources() {
  return make_cluster({make_device("a", 1 << 30), make_device("b", 1 << 30)}, {1, 1}, 1, make_link("l", 0, 1e9),
                      make_link("o", 0, 1));
}

Json plan_file() {
  plan::Estimate estimate;
  estimate.step = Seconds(1);
  estimate.communication_exposed = Seconds(0.2);
  plan::DeviceEstimate device;
  device.device = "a";
  device.ranks = {0};
  device.parts.parameters = Bytes(300);
  device.parts.optimizer = Bytes(200);
  estimate.devices = {device};
  return JsonObject{{"estimate", plan::to_json(estimate)}};
}

}  // namespace

TEST_CASE("without a plan every class is corrected by the ratio of medians", "[calibration_test]") {
  const auto calibration = read_calibration(resources(), metrics(), nullptr);
  REQUIRE(calibration.has_value());
  CHECK(calibration->measured.value == Approx(1.2));
  CHECK(calibration->classes[0].time_ratio == Approx(1.2));
  CHECK(calibration->classes[1].time_ratio == Approx(1.2));
  CHECK(calibration->classes[0].memory_ratio == Approx(1.5));
  CHECK(last_generation(metrics()) == 1);
}

TEST_CASE("C63, C64: with a plan communication and what stays are left as they are", "[calibration_test]") {
  const Json file = plan_file();
  const auto calibration = read_calibration(resources(), metrics(), &file);
  REQUIRE(calibration.has_value());
  // (1.2 - 0.2) / (1.0 - 0.2), (1500 - 500) / (1000 - 500); the run had no b.
  CHECK(calibration->classes[0].time_ratio == Approx(1.25));
  CHECK(calibration->classes[0].memory_ratio == Approx(2.0));
  CHECK(calibration->classes[1].time_ratio == 1);
  CHECK_FALSE(calibration->classes[1].ran);
  REQUIRE(calibration->notes.size() == 4);
  CHECK(calibration->notes[1] == "a: compute x 1.250, memory of activations x 2.000");

  const model::ModelGraph graph = make_chain(2, 8);
  const cluster::ResourceGraph cluster = resources();
  FakeCost base(graph, cluster);
  base.saved = {10, 10, 10, 10};
  base.optimizer_per_parameter = 1;
  const auto cost = make_calibrated_cost(base, *calibration);
  const BlockTime time = cost->estimate_block({1, 0, 2});
  CHECK(time.forward.value == Approx(2.5));
  CHECK(time.backward.value == Approx(5.0));
  CHECK(time.saved.value == 40);
  CHECK(cost->estimate_block({1, 1, 2}).forward.value == Approx(2.0));
  CHECK(cost->estimate_optimizer(8, 0).value == Approx(10));
  CHECK(cost->estimate_transfer(Bytes(100), {0, 0}, {1, 0}) == base.estimate_transfer(Bytes(100), {0, 0}, {1, 0}));
}

TEST_CASE("the last generation counts", "[calibration_test]") {
  std::string text = metrics();
  for (int step = 5; step < 9; ++step) text += line(step, 2.0, 2);
  CHECK(read_calibration(resources(), text, nullptr)->classes[0].time_ratio == Approx(2.0));
  CHECK(last_generation(text) == 2);
}

TEST_CASE("all problems of bad metrics are listed with their lines", "[calibration_test]") {
  const auto bad = read_calibration(resources(), "no json\n{\"step\": -1, \"step_seconds\": 0}\n", nullptr);
  REQUIRE_FALSE(bad.has_value());
  CHECK(bad.error().code == ErrorCode::InvalidArgument);
  // Line 1; and in line 2 step, generation, two times and two lists.
  REQUIRE(bad.error().details.size() == 7);
  CHECK(bad.error().details[0].path == "line 1");
  CHECK(bad.error().details[1].path == "line 2  step");
  const auto few = read_calibration(resources(), line(7, 1.2), nullptr);
  REQUIRE_FALSE(few.has_value());
  std::string far;
  for (int step = 5; step < 9; ++step) far += line(step, 100);
  CHECK_FALSE(read_calibration(resources(), far, nullptr).has_value());
}
