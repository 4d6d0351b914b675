// The configuration as DeepSpeed documents it; what it takes in code is told.
#include "common/json.h"
#include "tests/plan/export_plans.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::plan;

namespace {

Exported deepspeed(const Plan& plan) { return export_deepspeed(shape_of(plan)); }

Json config_of(const Exported& exported) { return *parse_json(exported.text); }

}  // namespace

TEST_CASE("DeepSpeed: a plan that it can express", "[export_deepspeed_test]") {
  Plan plan = make_export_plan({.data = 4});
  plan.precision = Precision::BFloat16;
  plan.stages[0].zero_stage = 2;
  plan.stages[0].offload = Offload::Optimizer;
  const Exported exported = deepspeed(plan);
  CHECK(exported.not_expressed.empty());
  Json expected = *parse_json(R"json({
    "_comments": ["DeepSpeed configuration (names of version 0.19)", "ranks 0-3: node 0, big 0-3"],
    "bf16": {"enabled": true},
    "gradient_accumulation_steps": 4,
    "train_batch_size": 32,
    "train_micro_batch_size_per_gpu": 2,
    "zero_optimization": {
      "offload_optimizer": {"device": "cpu", "pin_memory": true}, "overlap_comm": true, "stage": 2}
})json");
  CHECK(config_of(exported) == expected);
}

TEST_CASE("DeepSpeed: the three batch numbers agree with the data degree", "[export_deepspeed_test]") {
  const Json config = config_of(deepspeed(make_export_plan({.data = 3, .samples = 5, .count = 7})));
  CHECK(config["train_batch_size"].integer() == 3 * 5 * 7);
  CHECK(config["train_micro_batch_size_per_gpu"].integer() == 5);
  CHECK(config["gradient_accumulation_steps"].integer() == 7);
}

TEST_CASE("DeepSpeed: a pipeline is code, and ends at ZeRO 1", "[export_deepspeed_test]") {
  Plan plan = make_export_plan({.layers = {5, 3}, .data = 2});
  for (Stage& stage : plan.stages) stage.zero_stage = 3;
  plan.schedule = ScheduleKind::GPipe;
  const Exported exported = deepspeed(plan);
  CHECK(tells(exported.not_expressed, "PipelineModule(layers, num_stages=2"));
  CHECK(tells(exported.not_expressed, "[5, 3]"));
  CHECK(tells(exported.not_expressed, "ZeRO 3 with pipeline stages"));
  CHECK(tells(exported.not_expressed, "schedule gpipe"));
  CHECK(config_of(exported)["zero_optimization"]["stage"].integer() == 1);
  // Everything that is lost stands in the text too.
  const JsonArray& comments = config_of(exported)["_comments"].array();
  CHECK(comments.size() == 2 + exported.not_expressed.size());
}

TEST_CASE("DeepSpeed: tensor parallel is AutoTP without sequence parallel", "[export_deepspeed_test]") {
  const Exported exported = deepspeed(make_export_plan({.tensor = 4}));
  CHECK(config_of(exported)["tensor_parallel"]["autotp_size"].integer() == 4);
  CHECK(tells(exported.not_expressed, "sequence parallel"));
}

TEST_CASE("DeepSpeed: recompute is code", "[export_deepspeed_test]") {
  Plan plan = make_export_plan({});
  for (std::size_t block = 1; block < 4; ++block) plan.stages[0].recompute[block] = Recompute::Full;
  const Exported exported = deepspeed(plan);
  CHECK(config_of(exported)["activation_checkpointing"]["number_checkpoints"].integer() == 3);
  CHECK(!config_of(exported)["activation_checkpointing"]["cpu_checkpointing"].boolean());
  CHECK(tells(exported.not_expressed, "around 3 of 8 blocks ([3] a stage)"));
}

TEST_CASE("DeepSpeed: offload without ZeRO starts at ZeRO 1", "[export_deepspeed_test]") {
  Plan plan = make_export_plan({});
  plan.stages[0].offload = Offload::Optimizer;
  const Exported exported = deepspeed(plan);
  CHECK(config_of(exported)["zero_optimization"]["stage"].integer() == 1);
  CHECK(tells(exported.not_expressed, "offload of the optimizer without ZeRO"));
}

TEST_CASE("DeepSpeed: context and expert degrees", "[export_deepspeed_test]") {
  ExportShape shape = shape_of(make_export_plan({.data = 2}));
  shape.context = 4;
  shape.expert = 2;
  const Exported exported = export_deepspeed(shape);
  CHECK(config_of(exported)["sequence_parallel_size"].integer() == 4);
  CHECK(config_of(exported)["data_parallel_size"].integer() == 2);
  CHECK(tells(exported.not_expressed, "Ulysses"));
  CHECK(tells(exported.not_expressed, "ep_size=2"));
}

TEST_CASE("DeepSpeed: float16 has our loss scale", "[export_deepspeed_test]") {
  Plan plan = make_export_plan({});
  plan.precision = Precision::Float16;
  const Json config = config_of(deepspeed(plan));
  CHECK(config["fp16"]["enabled"].boolean());
  CHECK(config["fp16"]["initial_scale_power"].integer() == 16);
  CHECK_FALSE(config["bf16"]["enabled"].boolean());
}
