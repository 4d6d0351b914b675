// The grammar of --constrain.
#include "planner/planner.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;

TEST_CASE("keys, aliases, alternatives and lists are read", "[constraints_test]") {
  const auto found = parse_constraints({"dp=2,4", "pipeline=1", "micro=8", "samples=[20,12]", "recompute=[0,3]",
                                        "schedule=gpipe,1f1b", "cuts=[2,5]", "zero=0", "offload=none"});
  REQUIRE(found.has_value());
  CHECK(found->data == std::vector<int>{2, 4});
  CHECK(found->pipeline == std::vector<int>{1});
  CHECK(found->micro == std::vector<std::int64_t>{8});
  CHECK(found->samples == std::vector<std::int64_t>{20, 12});
  CHECK(found->recompute == "[0,3]");
  CHECK(found->schedule ==
        std::vector<plan::ScheduleKind>{plan::ScheduleKind::GPipe, plan::ScheduleKind::OneForwardOneBackward});
  CHECK(found->cuts == "[2,5]");
  CHECK(parse_constraints({"cuts=even"})->cuts == "even");
}

TEST_CASE("several constraints may stand in one text", "[constraints_test]") {
  const auto found = parse_constraints({"tensor=4,data=1,2,cuts=[2,5],recompute=[0,3]", "micro=2"});
  REQUIRE(found.has_value());
  CHECK(found->tensor == std::vector<int>{4});
  CHECK(found->data == std::vector<int>{1, 2});
  CHECK(found->cuts == "[2,5]");
  CHECK(found->recompute == "[0,3]");
  CHECK(found->micro == std::vector<std::int64_t>{2});
}

TEST_CASE("every bad constraint is named at once", "[constraints_test]") {
  const auto found = parse_constraints({"dp", "colour=1", "micro=x", "micro=0", "schedule=best", "cuts=[5,2]",
                                        "recompute=some", "samples=20", "zero=4", "offload=disk"});
  REQUIRE(!found.has_value());
  CHECK(found.error().code == ErrorCode::InvalidArgument);
  REQUIRE(found.error().details.size() == 10);
  CHECK(found.error().details[1].path == "plan.colour");
  CHECK(found.error().details[4].expected == "gpipe, 1f1b, interleaved, zbh1, zbh2, zbv, csv:FILE");
  CHECK(found.error().details[5].message == "cuts must ascend");
}

TEST_CASE("what a constraint names is searched, and else what was searched before", "[constraints_test]") {
  CHECK(searched_capabilities({}) == plan::kUnasked);
  const auto searched = [](const std::string& text) { return searched_capabilities(*parse_constraints({text})); };
  for (const char* text : {"recompute=none", "recompute=full", "recompute=[1]", "schedule=gpipe"})
    CHECK(searched(text) == plan::kUnasked);
  CHECK(searched("recompute=selective").selective_recompute);
  CHECK_FALSE(searched("recompute=selective").offload);
  CHECK(searched("offload=activations").offload);
  CHECK_FALSE(searched("offload=activations").selective_recompute);
}

TEST_CASE("a schedule may come from a file, whose name is taken as it is", "[constraints_test]") {
  const auto found = parse_constraints({"schedule=csv:a folder/order,1.csv"});
  REQUIRE(found.has_value());
  CHECK(found->schedule_file == "a folder/order,1.csv");
  CHECK(found->schedule.empty());
  CHECK(parse_constraints({"schedule=csv:"}).error().expected == "csv:FILE");
}
