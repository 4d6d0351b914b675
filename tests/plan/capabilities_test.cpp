#include "plan/capabilities.h"

#include "tests/support/graph_builder.h"
#include "tests/support/plan_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {

TEST_CASE("what a plan needs is named, and everything runnable can be planned", "[capabilities]") {
  Plan plan = make_plan(make_chain_graph(), make_cpu_cluster({4}), {.cuts = {3}, .samples = {{3, 3}, {6}}});
  CHECK(list_beyond(plan, kRunnable).empty());
  plan.stages[1].replicas[0].tensor = 2;
  plan.stages[0].zero_stage = 1;
  plan.precision = Precision::BFloat16;
  CHECK(list_beyond(plan, kRunnable) == std::vector<std::string>{"tensor parallelism", "ZeRO"});
  Capabilities float32_only = kRunnable;
  float32_only.bfloat16 = false;
  CHECK(list_beyond(plan, float32_only) == std::vector<std::string>{"tensor parallelism", "ZeRO", "bfloat16"});
  CHECK(list_beyond(plan, kPlannable).empty());
  plan.stages[1].replicas[0].tensor = 128;
  CHECK(list_beyond(plan, kPlannable) == std::vector<std::string>{"tensor parallelism"});
}

TEST_CASE("context, expert, selective recompute and offload are planned, not run", "[capabilities]") {
  Plan plan = make_plan(make_chain_graph(), make_cpu_cluster({4}), {.cuts = {3}, .samples = {{3, 3}, {6}}});
  plan.stages[1].replicas[0].context = 2;
  plan.stages[0].replicas[1].expert = 2;
  plan.stages[0].recompute[1] = Recompute::Selective;
  plan.stages[1].offload = Offload::Activations;
  CHECK(list_beyond(plan, kRunnable) ==
        std::vector<std::string>{"context parallelism", "expert parallelism", "selective recompute", "offload"});
  CHECK(list_beyond(plan, kPlannable).empty());
}

TEST_CASE("schedules with a split backward are planned, not run", "[capabilities]") {
  Plan plan = make_plan(make_chain_graph(), make_cpu_cluster({2}),
                        {.cuts = {3}, .samples = {{4}, {4}}, .schedule = ScheduleKind::ZeroBubbleH2});
  CHECK(list_beyond(plan, kRunnable) == std::vector<std::string>{"zero-bubble schedules"});
  CHECK(list_beyond(plan, kPlannable).empty());
  CHECK_FALSE(has_schedule(kRunnable, ScheduleKind::ZeroBubbleH1));
  CHECK(has_schedule(kPlannable, ScheduleKind::ZeroBubbleH1));
  plan.schedule = ScheduleKind::Interleaved;
  CHECK(list_beyond(plan, kRunnable) == std::vector<std::string>{"interleaved schedules"});
  CHECK(list_beyond(plan, kPlannable).empty());
  CHECK(has_schedule(kPlannable, ScheduleKind::ZeroBubbleV));
  Capabilities without_chunks = kPlannable;
  without_chunks.chunks = false;
  CHECK_FALSE(has_schedule(without_chunks, ScheduleKind::ZeroBubbleV));
  CHECK(has_schedule(kRunnable, ScheduleKind::GPipe));
  CHECK(has_schedule(kRunnable, ScheduleKind::OneForwardOneBackward));
}

}  // namespace coxswain::plan
