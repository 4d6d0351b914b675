#include "tests/support/graph_builder.h"
#include "tests/support/plan_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

Plan three_stages(ScheduleKind schedule) {
  return make_plan(make_chain_graph(), make_cpu_cluster({4}),
                   {.cuts = {2, 4}, .samples = {{4}, {4}, {2, 2}}, .count = 3, .schedule = schedule});
}

TEST_CASE("a plan prints one cell a unit of time", "[schedule_csv]") {
  // By hand: every action takes the first unit after its stage's last one and its neighbour's half.
  CHECK(to_schedule_csv(three_stages(ScheduleKind::OneForwardOneBackward)) ==
        "0F0,0F1,0F2,,,0B0,,0B1,,0B2\n"
        ",1F0,1F1,,1B0,1F2,1B1,,1B2\n"
        ",,2F0,2B0,2F1,2B1,2F2,2B2\n");
  CHECK(to_schedule_csv(three_stages(ScheduleKind::ZeroBubbleH1)) ==
        "0F0,0F1,0F2,,,0I0,0W0,0I1,0W1,0I2,0W2\n"
        ",1F0,1F1,,1I0,1F2,1I1,1W0,1I2,1W1,1W2\n"
        ",,2F0,2I0,2F1,2I1,2F2,2I2,2W0,2W1,2W2\n");
  CHECK(to_schedule_csv(three_stages(ScheduleKind::GPipe)) ==
        "0F0,0F1,0F2,,,,,0B0,0B1,0B2\n"
        ",1F0,1F1,1F2,,,1B0,1B1,1B2\n"
        ",,2F0,2F1,2F2,2B0,2B1,2B2\n");
}

TEST_CASE("what was printed reads back into the same roles", "[schedule_csv]") {
  for (const ScheduleKind kind : {ScheduleKind::GPipe, ScheduleKind::OneForwardOneBackward, ScheduleKind::ZeroBubbleH1,
                                  ScheduleKind::ZeroBubbleH2}) {
    const Plan plan = three_stages(kind);
    const auto schedule = read_schedule_csv(to_schedule_csv(plan));
    REQUIRE(schedule);
    Plan again = plan;
    fill_roles(again, make_chain_graph(), Bytes(1), schedule->stages);
    CHECK(again == plan);
  }
}

}  // namespace
}  // namespace coxswain::plan
