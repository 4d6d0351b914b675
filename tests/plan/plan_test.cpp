#include "plan/plan.h"

#include "common/ensure.h"
#include "tests/support/graph_builder.h"
#include "tests/support/plan_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

TEST_CASE("enumerators read back from their text", "[plan]") {
  for (const char* text : {"gpipe", "1f1b", "interleaved", "zbh1", "zbh2", "zbv"}) {
    REQUIRE(parse_schedule_kind(text));
    CHECK(to_text(*parse_schedule_kind(text)) == text);
  }
  CHECK(parse_recompute("full") == Recompute::Full);
  CHECK(to_text(Recompute::None) == "none");
  CHECK(parse_precision("bfloat16") == Precision::BFloat16);
  CHECK(parse_precision("float16") == Precision::Float16);
  CHECK(computed_dtype(Precision::Float16) == DType::Float16);
  CHECK(is_mixed(Precision::Float16));
  CHECK_FALSE(is_mixed(Precision::Float32));
  CHECK(to_text(Precision::Float32) == "float32");
  CHECK(parse_offload("activations") == Offload::Activations);
  CHECK(to_text(Offload::Optimizer) == "optimizer");
  CHECK_FALSE(parse_schedule_kind("1F1B"));
}

TEST_CASE("ranks count by stage, replica and position", "[plan]") {
  Plan plan;
  plan.stages.resize(2);
  // Mesh sizes 1, 2 and 3: ranks 0 | 1 2 | 3 4 5.
  plan.stages[0].replicas.resize(2);
  plan.stages[0].replicas[0].devices = {{0, 10}};
  plan.stages[0].replicas[1].devices = {{0, 11}, {0, 12}};
  plan.stages[1].replicas.resize(1);
  plan.stages[1].replicas[0].devices = {{1, 0}, {1, 1}, {1, 2}};
  CHECK(num_ranks(plan) == 6);
  CHECK(rank_of(plan, {0, 1, 1}) == 2);
  CHECK(rank_of(plan, {1, 0, 2}) == 5);
  CHECK(device_of(plan, 2) == DeviceId{0, 12});
  CHECK(device_of(plan, 3) == DeviceId{1, 0});
  for (int rank = 0; rank < 6; ++rank) CHECK(rank_of(plan, place_of(plan, rank)) == rank);
  CHECK_THROWS_AS(place_of(plan, 6), EnsureFailure);
}

TEST_CASE("a replica's samples begin where those before it end", "[plan]") {
  Stage stage;
  for (const std::int64_t samples : {1, 10, 100}) {
    stage.replicas.emplace_back();
    stage.replicas.back().samples = samples;
  }
  CHECK(first_sample(stage, 0) == 0);
  CHECK(first_sample(stage, 1) == 1);
  CHECK(first_sample(stage, 2) == 11);
}

}  // namespace
}  // namespace coxswain::plan
