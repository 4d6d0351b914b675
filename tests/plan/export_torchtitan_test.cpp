// TOML as torchtitan 0.2 documents its job configuration.
#include "tests/plan/export_plans.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::plan;

namespace {

Exported torchtitan(const Plan& plan) { return export_torchtitan(shape_of(plan)); }

bool has_line(const Exported& exported, const std::string& line) {
  return ("\n" + exported.text).find("\n" + line + "\n") != std::string::npos;
}

}  // namespace

TEST_CASE("torchtitan: a plan that it can express", "[export_torchtitan_test]") {
  Plan plan = make_export_plan({.layers = {5, 3}, .data = 2, .tensor = 4});
  plan.precision = Precision::BFloat16;
  for (Stage& stage : plan.stages) {
    stage.zero_stage = 3;
    for (Recompute& recompute : stage.recompute) recompute = Recompute::None;
  }
  const Exported exported = torchtitan(plan);
  CHECK(exported.not_expressed.empty());
  // local_batch_size is what one replica gets of the whole step where there is a pipeline: 4 micro-batches of 2.
  CHECK(without_comments(exported.text) ==
        "[training]\n"
        "local_batch_size = 8\n"
        "global_batch_size = 16\n"
        "dtype = \"float32\"\n"
        "mixed_precision_param = \"bfloat16\"\n"
        "[parallelism]\n"
        "data_parallel_replicate_degree = 1\n"
        "data_parallel_shard_degree = 2\n"
        "fsdp_reshard_after_forward = \"always\"\n"
        "tensor_parallel_degree = 4\n"
        "context_parallel_degree = 1\n"
        "expert_parallel_degree = 1\n"
        "pipeline_parallel_degree = 2\n"
        "pipeline_parallel_microbatch_size = 2\n"
        "pipeline_parallel_schedule = \"1F1B\"\n"
        "module_fqns_per_model_part = [\n"
        "  [\"tok_embeddings\", \"layers.0\", \"layers.1\", \"layers.2\", \"layers.3\", \"layers.4\"],\n"
        "  [\"layers.5\", \"layers.6\", \"layers.7\", \"norm\", \"output\"],\n"
        "]\n"
        "[activation_checkpoint]\n"
        "mode = \"none\"\n");
}

TEST_CASE("torchtitan: pure data parallel is DDP, anything else FSDP", "[export_torchtitan_test]") {
  Exported exported = torchtitan(make_export_plan({.data = 4}));
  CHECK(exported.not_expressed.empty());
  CHECK(has_line(exported, "data_parallel_replicate_degree = 4"));
  CHECK(has_line(exported, "data_parallel_shard_degree = 1"));
  CHECK(has_line(exported, "local_batch_size = 2"));  // without a pipeline it is the micro-batch, accumulated
  CHECK(has_line(exported, "global_batch_size = 32"));
  CHECK(has_line(exported, "mixed_precision_param = \"float32\""));

  exported = torchtitan(make_export_plan({.data = 4, .tensor = 2}));
  CHECK(has_line(exported, "data_parallel_replicate_degree = 1"));
  CHECK(has_line(exported, "data_parallel_shard_degree = 4"));
  CHECK(has_line(exported, "fsdp_reshard_after_forward = \"never\""));
  CHECK(tells(exported.not_expressed, "ZeRO 0: torchtitan"));

  Plan plan = make_export_plan({.data = 4, .tensor = 2});
  plan.stages[0].zero_stage = 2;
  exported = torchtitan(plan);
  CHECK(exported.not_expressed.empty());
  CHECK(has_line(exported, "fsdp_reshard_after_forward = \"never\""));
}

TEST_CASE("torchtitan: schedules by PyTorch's names", "[export_torchtitan_test]") {
  Plan plan = make_export_plan({.layers = {4, 4}});
  const std::vector<std::pair<ScheduleKind, std::string>> names{{ScheduleKind::GPipe, "GPipe"},
                                                                {ScheduleKind::OneForwardOneBackward, "1F1B"},
                                                                {ScheduleKind::Interleaved, "Interleaved1F1B"},
                                                                {ScheduleKind::ZeroBubbleV, "ZBVZeroBubble"}};
  for (const auto& [schedule, name] : names) {
    plan.schedule = schedule;
    const Exported exported = torchtitan(plan);
    CHECK(has_line(exported, "pipeline_parallel_schedule = \"" + name + "\""));
    CHECK(exported.not_expressed.empty());
  }
  plan.schedule = ScheduleKind::ZeroBubbleH2;
  CHECK(has_line(torchtitan(plan), "pipeline_parallel_schedule = \"1F1B\""));
  CHECK(tells(torchtitan(plan).not_expressed, "schedule zbh2"));
}

TEST_CASE("torchtitan: recompute of all, of some, of parts", "[export_torchtitan_test]") {
  ExportShape shape = shape_of(make_export_plan({}));
  shape.stages = {{8, 8, 0}};
  CHECK(has_line(export_torchtitan(shape), "mode = \"full\""));
  CHECK(export_torchtitan(shape).not_expressed.empty());
  shape.stages = {{8, 3, 0}};  // every second is the least that recomputes as many
  CHECK(has_line(export_torchtitan(shape), "mode = \"selective\""));
  CHECK(has_line(export_torchtitan(shape), "selective_ac_option = \"2\""));
  CHECK(tells(export_torchtitan(shape).not_expressed, "recompute of 3 of 8 blocks"));
  shape.stages = {{8, 0, 8}};
  CHECK(has_line(export_torchtitan(shape), "selective_ac_option = \"op\""));
}

TEST_CASE("torchtitan: one replica of several devices computes in float32", "[export_torchtitan_test]") {
  Plan plan = make_export_plan({.tensor = 2});
  CHECK(torchtitan(plan).not_expressed.empty());
  plan.precision = Precision::BFloat16;
  CHECK(tells(torchtitan(plan).not_expressed, "mixed precision on one replica"));
  plan = make_export_plan({});
  plan.precision = Precision::BFloat16;  // a single device casts by itself
  CHECK(torchtitan(plan).not_expressed.empty());
}

TEST_CASE("torchtitan: offload is FSDP's, of parameters too", "[export_torchtitan_test]") {
  Plan plan = make_export_plan({.data = 2});
  plan.stages[0].offload = Offload::Optimizer;
  const Exported exported = torchtitan(plan);
  CHECK(has_line(exported, "enable_cpu_offload = true"));
  CHECK(has_line(exported, "data_parallel_shard_degree = 2"));
  CHECK(tells(exported.not_expressed, "offload of the optimizer alone"));
  plan.stages[0].offload = Offload::Activations;
  CHECK(tells(torchtitan(plan).not_expressed, "offload of activations"));
}

TEST_CASE("torchtitan: float16 becomes bfloat16, and that is told", "[export_torchtitan_test]") {
  Plan plan = make_export_plan({});
  plan.precision = Precision::Float16;
  const Exported exported = torchtitan(plan);
  CHECK(tells(exported.not_expressed, "float16 and its loss scale"));
  CHECK(has_line(exported, "mixed_precision_param = \"bfloat16\""));
}
