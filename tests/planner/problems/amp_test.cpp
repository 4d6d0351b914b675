// AMP's formulas by closed forms, the answer against every plan of a small instance, and what the reader refuses.
#include "planner/problems/amp.h"

#include <algorithm>

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;

namespace {

constexpr const char* kSmall = R"({
  "id": "small", "about": "two unlike nodes", "global_batch": 4,
  "nodes": [{"gpus": 2, "inter_numbers_per_s": 40, "intra_numbers_per_s": 400},
            {"gpus": 2, "inter_numbers_per_s": 10, "intra_numbers_per_s": 100}],
  "units": [
    {"name": "in", "parameters": 30, "embedding": true, "output_numbers_per_sample": 8, "output_divided_by_tp": false},
    {"name": "a", "parameters": 12, "embedding": false, "output_numbers_per_sample": 4, "output_divided_by_tp": true},
    {"name": "b", "parameters": 24, "embedding": false, "output_numbers_per_sample": 16, "output_divided_by_tp": false},
    {"name": "out", "parameters": 30, "embedding": true, "output_numbers_per_sample": 2, "output_divided_by_tp": true}],
  "forward_seconds_per_sample": {"1": [0.25, 1, 2, 0.5], "2": [0.25, 0.75, 1.5, 0.25]}})";

AmpInstance small() {
  const auto json = parse_json(kSmall);
  REQUIRE(json.has_value());
  auto instance = parse_amp(*json, "small.json");
  REQUIRE(instance.has_value());
  return *instance;
}

/// Least seconds of the shape over all cuts.
double least_seconds(const AmpInstance& instance, const AmpShape& shape) {
  double best = 1e300;
  const int num_units = static_cast<int>(instance.units.size());
  for (int cuts = 0; cuts < 1 << (num_units - 1); ++cuts) {
    std::vector<int> split{1};
    for (int i = 0; i + 1 < num_units; ++i) {
      if ((cuts >> i & 1) != 0) split.push_back(0);
      ++split.back();
    }
    if (static_cast<int>(split.size()) != shape.pp) continue;
    best = std::min(best, estimate_amp_seconds(instance, {shape, split}));
  }
  return best;
}

AmpPlan plan_of(const Json& json) {
  AmpPlan plan{{static_cast<int>(json["tp"].integer()), static_cast<int>(json["dp"].integer()),
                static_cast<int>(json["pp"].integer()), json["microbatch"].integer()},
               {}};
  for (const Json& units : json["split"].array()) plan.split.push_back(static_cast<int>(units.integer()));
  return plan;
}

}  // namespace

TEST_CASE("the terms of a step add up by hand", "[amp_test]") {
  // Two stages of two replicas: stage 0 on node 0, stage 1 on node 1; two micro-batches of one sample.
  // Stages take 3 x 1.25 and 3 x 2.5. The cut sends 4 numbers at 10. Stage 0 reduces 42 at 400, stage 1 54 at 100.
  const double expected = 1 * 7.5 + 11.25 + 0.4 + std::max(42.0 / 400, 54.0 / 100);
  CHECK(estimate_amp_seconds(small(), {{1, 2, 2, 1}, {2, 2}}) == Approx(expected).epsilon(1e-12));
  // One stage of four replicas: one embedding counts; the link looked at is that of ranks 3 and 0.
  CHECK(estimate_amp_seconds(small(), {{1, 4, 1, 1}, {4}}) == Approx(11.25 + 2 * 3.0 / (4 * 10) * 66).epsilon(1e-12));
}

TEST_CASE("every shape is ranked with its best cut", "[amp_test]") {
  const AmpInstance instance = small();
  const auto answer = solve_amp(instance, {});
  REQUIRE(answer.has_value());
  const JsonArray& plans = answer->answer["plans"].array();
  REQUIRE(plans.size() == list_shapes(instance).size());
  double before = 0;
  for (const Json& json : plans) {
    const AmpPlan plan = plan_of(json);
    const double seconds = estimate_amp_seconds(instance, plan);
    CHECK(seconds == Approx(least_seconds(instance, plan.shape)).epsilon(1e-11));
    CHECK(seconds >= before - 1e-11);
    before = seconds;
  }
  CHECK(answer->score == estimate_amp_seconds(instance, plan_of(plans.front())));
}

TEST_CASE("shapes fill the GPUs and divide the batch", "[amp_test]") {
  // tp 1: dp 1 2 4; tp 2: dp 1 2. Micro-batches: 3 + 2 + 1 and 3 + 2.
  CHECK(list_shapes(small()).size() == 11);
  AmpInstance instance = small();
  instance.units.resize(3);
  for (auto& [tp, seconds] : instance.forward_seconds) seconds.resize(3);
  CHECK(list_shapes(instance).size() == 8);  // four stages need four units
  instance.forward_seconds = {{3, {1, 1, 1}}};
  CHECK(solve_amp(instance, {}).error().code == ErrorCode::ResourceExhausted);
}

TEST_CASE("measured times change no byte of an answer", "[amp_test]") {
  auto json = parse_json(kSmall);
  REQUIRE(json.has_value());
  const ContestOptions own{.own_cost_model = true};
  const auto without = (*load_amp(*json, "small.json"))(own);
  (*json)["measured"] = JsonArray{
      JsonObject{{"tp", 2}, {"dp", 1}, {"pp", 2}, {"microbatch", 4}, {"split", JsonArray{2, 2}}, {"seconds", 0.001}}};
  const auto with = (*load_amp(*json, "small.json"))(own);
  REQUIRE(without.has_value());
  REQUIRE(with.has_value());
  CHECK(to_text(without->answer) == to_text(with->answer));
}

TEST_CASE("all problems of an AMP instance are listed", "[amp_test]") {
  const auto json = parse_json(R"({"global_batch": 0, "nodes": [{"gpus": 0, "inter_numbers_per_s": 0,
    "intra_numbers_per_s": 1}], "units": [{"parameters": -1, "embedding": 1, "output_numbers_per_sample": 1,
    "output_divided_by_tp": true}], "forward_seconds_per_sample": {"x": [1], "2": [], "1": ["a"]}})");
  REQUIRE(json.has_value());
  const auto instance = parse_amp(*json, "dir/bad.json");
  REQUIRE_FALSE(instance.has_value());
  std::vector<std::string> paths;
  for (const Error& problem : instance.error().details) paths.push_back(problem.path);
  std::sort(paths.begin(), paths.end());
  CHECK(paths == std::vector<std::string>{"bad.json.forward_seconds_per_sample.1[0]",
                                          "bad.json.forward_seconds_per_sample.2",
                                          "bad.json.forward_seconds_per_sample.x", "bad.json.global_batch",
                                          "bad.json.nodes[0].gpus", "bad.json.nodes[0].inter_numbers_per_s",
                                          "bad.json.units[0].embedding", "bad.json.units[0].parameters"});
}
