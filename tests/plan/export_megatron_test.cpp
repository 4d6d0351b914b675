// Arguments as Megatron-LM's own help and documentation name them.
#include "tests/plan/export_plans.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::plan;

namespace {

Exported megatron(const Plan& plan) { return export_megatron(shape_of(plan)); }

bool has_line(const Exported& exported, const std::string& line) {
  return ("\n" + exported.text).find("\n" + line + "\n") != std::string::npos;
}

}  // namespace

TEST_CASE("Megatron-LM: a plan that it can express", "[export_megatron_test]") {
  Plan plan = make_export_plan({.layers = {4, 4}, .data = 2, .tensor = 4});
  plan.precision = Precision::BFloat16;
  for (Stage& stage : plan.stages) stage.zero_stage = 1;
  const Exported exported = megatron(plan);
  CHECK(exported.not_expressed.empty());
  CHECK(exported.text ==
        "# Megatron-LM: arguments of its training scripts (names of August 2026)\n"
        "# ranks 0-3: node 0, big 0-3\n"
        "# ranks 4-7: node 1, big 4-7\n"
        "# ranks 8-11: node 2, big 8-11\n"
        "# ranks 12-15: node 3, big 12-15\n"
        "--tensor-model-parallel-size 4\n"
        "--pipeline-model-parallel-size 2\n"
        "--sequence-parallel\n"
        "--micro-batch-size 2\n"
        "--global-batch-size 16\n"
        "--use-distributed-optimizer\n"
        "--overlap-grad-reduce\n"
        "--bf16\n");
}

TEST_CASE("Megatron-LM: cuts become the simplest argument that says them", "[export_megatron_test]") {
  CHECK(without_comments(megatron(make_export_plan({.layers = {8}})).text) ==
        "--tensor-model-parallel-size 1\n--pipeline-model-parallel-size 1\n--micro-batch-size 2\n"
        "--global-batch-size 8\n");
  const Exported ends = megatron(make_export_plan({.layers = {1, 2, 2, 3}}));
  CHECK(has_line(ends, "--decoder-first-pipeline-num-layers 1"));
  CHECK(has_line(ends, "--decoder-last-pipeline-num-layers 3"));
  const Exported two = megatron(make_export_plan({.layers = {5, 3}}));
  CHECK(has_line(two, "--decoder-first-pipeline-num-layers 5"));
  CHECK(has_line(two, "--decoder-last-pipeline-num-layers 3"));
  CHECK(
      has_line(megatron(make_export_plan({.layers = {1, 4, 2, 1}})), "--pipeline-model-parallel-layout Et|tttt|tt|tL"));
  // A stage of the epilogue alone has no transformer layer, which only a layout can say.
  CHECK(has_line(megatron(make_export_plan({.layers = {8, 0}})), "--pipeline-model-parallel-layout Etttttttt|L"));
  CHECK(ends.not_expressed.empty());
}

TEST_CASE("Megatron-LM: ranks by replica", "[export_megatron_test]") {
  Plan plan = make_export_plan({.layers = {4, 4}, .data = 2, .tensor = 2});
  std::swap(plan.stages[0].replicas[1].devices, plan.stages[1].replicas[0].devices);
  const Exported exported = megatron(plan);
  CHECK(has_line(exported, "--use-tp-pp-dp-mapping"));
  CHECK(has_line(exported, "# ranks 4-7: node 1, big 4-7"));
  CHECK(exported.not_expressed.empty());
  std::swap(plan.stages[1].replicas[0].devices, plan.stages[1].replicas[1].devices);
  CHECK(tells(megatron(plan).not_expressed, "where the ranks are"));
}

TEST_CASE("Megatron-LM: virtual stages", "[export_megatron_test]") {
  Plan plan = make_export_plan({.layers = {2, 2, 2, 2}});
  plan.schedule = ScheduleKind::Interleaved;
  plan.stages[2].replicas = plan.stages[0].replicas;
  plan.stages[3].replicas = plan.stages[1].replicas;
  const Exported exported = megatron(plan);
  CHECK(has_line(exported, "--pipeline-model-parallel-size 2"));
  CHECK(has_line(exported, "--num-virtual-stages-per-pipeline-rank 2"));
  CHECK(exported.not_expressed.empty());
}

TEST_CASE("Megatron-LM: schedules that Megatron-LM lacks", "[export_megatron_test]") {
  Plan plan = make_export_plan({.layers = {4, 4}});
  for (const auto& [schedule, word] : {std::pair{ScheduleKind::GPipe, "gpipe"}, {ScheduleKind::ZeroBubbleH1, "zbh1"}}) {
    plan.schedule = schedule;
    CHECK(tells(megatron(plan).not_expressed, std::string("schedule ") + word + ": Megatron-LM runs 1f1b"));
  }
}

TEST_CASE("Megatron-LM: ZeRO 2 and 3 are Megatron-FSDP", "[export_megatron_test]") {
  Plan plan = make_export_plan({.data = 4});
  plan.stages[0].zero_stage = 2;
  Exported exported = megatron(plan);
  CHECK(has_line(exported, "--use-megatron-fsdp"));
  CHECK(has_line(exported, "--use-distributed-optimizer"));
  CHECK(has_line(exported, "--data-parallel-sharding-strategy optim_grads"));
  CHECK(has_line(exported, "--ckpt-format fsdp_dtensor"));
  plan.stages[0].zero_stage = 3;
  CHECK(has_line(megatron(plan), "--data-parallel-sharding-strategy optim_grads_params"));
}

TEST_CASE("Megatron-LM: recompute of all, of the same number a stage, of unlike numbers", "[export_megatron_test]") {
  Plan plan = make_export_plan({.layers = {4, 4}});
  const auto recompute = [&plan](std::size_t stage, std::size_t first, std::size_t count) {
    for (std::size_t i = first; i < first + count; ++i) plan.stages[stage].recompute[i] = Recompute::Full;
  };
  recompute(0, 1, 2);  // entry 0 is the prologue
  recompute(1, 0, 2);
  Exported exported = megatron(plan);
  CHECK(has_line(exported, "--recompute-granularity full"));
  CHECK(has_line(exported, "--recompute-method block"));
  CHECK(has_line(exported, "--recompute-num-layers 2"));
  CHECK(exported.not_expressed.empty());

  recompute(0, 3, 1);
  exported = megatron(plan);
  CHECK(has_line(exported, "--recompute-num-layers 3"));
  CHECK(tells(exported.not_expressed, "recomputed blocks per stage ([3, 2])"));

  recompute(0, 1, 4);
  recompute(1, 0, 4);
  exported = megatron(plan);
  CHECK(has_line(exported, "--recompute-method uniform"));
  CHECK(has_line(exported, "--recompute-num-layers 1"));
  CHECK(exported.not_expressed.empty());

  recompute(1, 4, 1);  // the epilogue
  CHECK(tells(megatron(plan).not_expressed, "prologue or epilogue"));
}

TEST_CASE("Megatron-LM: selective recompute is for all layers", "[export_megatron_test]") {
  ExportShape shape = shape_of(make_export_plan({.layers = {4, 4}}));
  shape.stages = {{4, 0, 4}, {4, 0, 4}};
  Exported exported = export_megatron(shape);
  CHECK(has_line(exported, "--recompute-modules core_attn layernorm"));
  CHECK(has_line(exported, "--recompute-granularity selective"));
  CHECK(exported.text.find("--recompute-method") == std::string::npos);
  CHECK(exported.not_expressed.size() == 1);
  CHECK(tells(exported.not_expressed, "all but contractions and fused attention"));
  shape.stages[1].selective = 1;
  CHECK(tells(export_megatron(shape).not_expressed, "selective recompute of 5 of 8 blocks"));
}

TEST_CASE("Megatron-LM: offload", "[export_megatron_test]") {
  Plan plan = make_export_plan({.data = 2});
  plan.stages[0].offload = Offload::Optimizer;
  const Exported optimizer = megatron(plan);
  for (const char* line : {"--optimizer-cpu-offload", "--optimizer-offload-fraction 1.0",
                           "--use-precision-aware-optimizer", "--use-distributed-optimizer"})
    CHECK(has_line(optimizer, line));
  plan.stages[0].offload = Offload::Activations;
  const Exported activations = megatron(plan);
  CHECK(has_line(activations, "--fine-grained-activation-offloading"));
  CHECK(tells(activations.not_expressed, "NVTE_CPU_OFFLOAD_V1=1"));
}

TEST_CASE("Megatron-LM: context and expert degrees", "[export_megatron_test]") {
  ExportShape shape = shape_of(make_export_plan({}));
  shape.context = 2;
  shape.expert = 4;
  const Exported exported = export_megatron(shape);
  CHECK(has_line(exported, "--context-parallel-size 2"));
  CHECK(has_line(exported, "--expert-model-parallel-size 4"));
}

TEST_CASE("Megatron-LM: float16 has our loss scale", "[export_megatron_test]") {
  Plan plan = make_export_plan({});
  plan.precision = Precision::Float16;
  const Exported exported = megatron(plan);
  for (const char* line : {"--fp16", "--initial-loss-scale 65536", "--loss-scale-window 2000", "--hysteresis 1"})
    CHECK(has_line(exported, line));
  CHECK_FALSE(has_line(exported, "--bf16"));
}
