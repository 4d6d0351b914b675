// A search of a large cluster: how far its plan is from the lower bound. Issue row f; bench/planner_scale measures
// seconds and memory too, and the larger clusters.
#include <fstream>
#include <sstream>

#include "cost_model/offload_time.h"
#include "model/load.h"
#include "planner/planner.h"

#include <catch2/catch.hpp>

using namespace coxswain;

namespace {

Json read_json(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  auto json = parse_json(text.str());
  REQUIRE(json.has_value());
  return std::move(*json);
}

}  // namespace

TEST_CASE("1,024 devices of two classes: within 15 % of the lower bound", "[scale_test]") {
  const std::string folder = std::string(COX_SOURCE_DIR) + "/examples/scale/";
  const Json job = read_json(folder + "two_classes_1024.json");
  const auto resources = cluster::resource_graph_from_json(read_json(folder + job.object().at("cluster").string()));
  REQUIRE(resources.has_value());
  const std::int64_t sequence = job.object().at("data").object().at("sequence_length").integer();
  const auto graph =
      model::build_from_config(job.object().at("model").object().at("config"), {.sequence_length = sequence});
  REQUIRE(graph.has_value());
  const auto cost = cost_model::make_cost_model(*graph, *resources, nullptr);
  planner::Request request;
  request.cost = cost.get();
  request.global_batch = job.object().at("batch").object().at("global").integer();
  request.tokens_per_sample = sequence;
  request.precision = plan::Precision::BFloat16;
  request.capabilities = plan::kPlannable;
  const auto found = planner::find_plan(request);
  REQUIRE(found.has_value());
  CHECK(found->optimality_gap > 0);
  CHECK(found->optimality_gap <= 0.15);
  // What goes to the hosts fits there too.
  for (std::size_t s = 0; s < found->plan.stages.size(); ++s) {
    const plan::DeviceId device = found->plan.stages[s].replicas.front().devices.front();
    CHECK(cost_model::estimate_host_memory(*cost, found->plan, static_cast<int>(s), 0) <=
          cost_model::host_memory_of(*resources, device));
  }
}
