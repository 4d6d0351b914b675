#include "plan/capabilities.h"

#include "tests/support/graph_builder.h"
#include "tests/support/plan_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {

TEST_CASE("what a plan needs is named, and everything runnable can be planned", "[capabilities]") {
  Plan plan = make_plan(make_chain_graph(), make_cpu_cluster({4}), {.cuts = {3}, .samples = {{3, 3}, {6}}});
  CHECK(list_beyond(plan, kRunnable).empty());
  plan.stages[1].replicas[0].tensor = 2;
  plan.stages[0].zero_stage = 3;
  plan.precision = Precision::BFloat16;
  CHECK(list_beyond(plan, kRunnable).empty());
  Capabilities float32_only = kRunnable;
  float32_only.bfloat16 = false;
  float32_only.max_zero_stage = 2;
  float32_only.max_tensor = 1;
  CHECK(list_beyond(plan, float32_only) == std::vector<std::string>{"tensor parallelism", "ZeRO", "bfloat16"});
  CHECK(list_beyond(plan, kPlannable).empty());
  plan.stages[1].replicas[0].tensor = 128;
  CHECK(list_beyond(plan, kRunnable) == std::vector<std::string>{"tensor parallelism"});
  CHECK(list_beyond(plan, kPlannable) == std::vector<std::string>{"tensor parallelism"});
}

TEST_CASE("every axis, selective recompute and offload run, and are not searched unasked", "[capabilities]") {
  Plan plan = make_plan(make_chain_graph(), make_cpu_cluster({4}), {.cuts = {3}, .samples = {{3, 3}, {6}}});
  plan.stages[1].replicas[0].context = 2;
  plan.stages[0].replicas[1].expert = 2;
  plan.stages[0].recompute[1] = Recompute::Selective;
  plan.stages[1].offload = Offload::Activations;
  CHECK(list_beyond(plan, kRunnable).empty());
  CHECK(list_beyond(plan, kUnasked) ==
        std::vector<std::string>{"context parallelism", "expert parallelism", "selective recompute", "offload"});
  CHECK(list_beyond(plan, kPlannable).empty());
}

TEST_CASE("every schedule runs, and where one does not it is named", "[capabilities]") {
  Plan plan = make_plan(make_chain_graph(), make_cpu_cluster({2}),
                        {.cuts = {3}, .samples = {{4}, {4}}, .schedule = ScheduleKind::ZeroBubbleH2});
  for (const ScheduleKind kind : {ScheduleKind::GPipe, ScheduleKind::OneForwardOneBackward, ScheduleKind::Interleaved,
                                  ScheduleKind::ZeroBubbleH1, ScheduleKind::ZeroBubbleH2, ScheduleKind::ZeroBubbleV}) {
    CHECK(has_schedule(kRunnable, kind));
    CHECK(has_schedule(kPlannable, kind));
  }
  CHECK(list_beyond(plan, kRunnable).empty());
  const Capabilities neither{.zero_bubble = false, .chunks = false};
  CHECK(list_beyond(plan, neither) == std::vector<std::string>{"zero-bubble schedules"});
  plan.schedule = ScheduleKind::Interleaved;
  CHECK(list_beyond(plan, neither) == std::vector<std::string>{"interleaved schedules"});
  const Capabilities without_chunks{.zero_bubble = true, .chunks = false};
  CHECK(has_schedule(without_chunks, ScheduleKind::ZeroBubbleH1));
  CHECK_FALSE(has_schedule(without_chunks, ScheduleKind::ZeroBubbleV));
  CHECK(has_schedule(neither, ScheduleKind::GPipe));
  CHECK(has_schedule(neither, ScheduleKind::OneForwardOneBackward));
}

}  // namespace coxswain::plan
