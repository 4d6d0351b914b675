#include "plan/estimate.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

Estimate sample_estimate() {
  Estimate estimate;
  estimate.step = Seconds(0.5);
  estimate.tokens_per_second = 1000;
  estimate.model_flops_utilization = 0.25;
  estimate.bubble_fraction = 0.125;
  estimate.forward = Seconds(0.1);
  estimate.backward = Seconds(0.2);
  estimate.recompute = Seconds(0.01);
  estimate.communication_exposed = Seconds(0.02);
  estimate.bubble = Seconds(0.0625);
  estimate.optimizer = Seconds(0.03);
  DeviceEstimate device;
  device.role = 1;
  device.ranks = {2, 3};
  device.device = "cpu-0.4";
  device.peak_memory = Bytes(1111110);
  device.parts = {Bytes(1), Bytes(10), Bytes(100), Bytes(1000), Bytes(10000), Bytes(100000), Bytes(1000000)};
  device.capacity = Bytes(9999999);
  device.busy_fraction = 0.75;
  estimate.devices.push_back(device);
  return estimate;
}

TEST_CASE("an estimate has the members of the interface", "[estimate]") {
  CHECK(
      coxswain::to_text(to_json(sample_estimate())) ==
      R"({"bubble_fraction":0.125,"devices":[{"busy_fraction":0.75,"capacity_bytes":9999999,"device":"cpu-0.4",)"
      R"("parts":{"activations":1000,"gradients":10,"margin":1000000,"optimizer":100,"parameters":1,"transfers":10000,"workspace":100000},)"
      R"("peak_memory_bytes":1111110,"ranks":[2,3],"role":1}],"model_flops_utilization":0.25,)"
      R"("parts":{"backward":0.2,"bubble":0.0625,"communication_exposed":0.02,"forward":0.1,"optimizer":0.03,"recompute":0.01},)"
      R"("step_seconds":0.5,"tokens_per_second":1000.0})");
}

TEST_CASE("an estimate reads back", "[estimate]") {
  const Estimate estimate = sample_estimate();
  const auto json = parse_json(coxswain::to_text(to_json(estimate)));
  REQUIRE(json);
  const auto read = estimate_from_json(*json);
  REQUIRE(read);
  CHECK(*read == estimate);
}

TEST_CASE("the cost of a step stands in an estimate only when it is known", "[estimate]") {
  Estimate estimate = sample_estimate();
  CHECK(coxswain::to_text(to_json(estimate)).find("usd") == std::string::npos);
  estimate.cost_per_step = cluster::Usd(0.25);
  const Json json = to_json(estimate);
  CHECK(json["cost_per_step_usd"].number() == 0.25);
  CHECK(*estimate_from_json(json) == estimate);
}

TEST_CASE("a broken estimate names every problem", "[estimate]") {
  Json json = to_json(sample_estimate());
  json["step_seconds"] = Json("soon");
  json["parts"].object().erase("bubble");
  json["devices"].array()[0]["ranks"].array()[1] = Json(-3);
  json["devices"].array()[0]["parts"]["spare"] = Json(1);
  const auto read = estimate_from_json(json);
  REQUIRE_FALSE(read);
  std::vector<std::string> paths;
  for (const Error& detail : read.error().details) paths.push_back(detail.path);
  CHECK_THAT(paths, Catch::UnorderedEquals(std::vector<std::string>{"estimate.step_seconds", "estimate.parts.bubble",
                                                                    "estimate.devices[0].ranks[1]",
                                                                    "estimate.devices[0].parts.spare"}));
}

}  // namespace
}  // namespace coxswain::plan
