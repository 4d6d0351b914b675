#include "launcher/control/trace_steps.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

TEST_CASE("a range of steps is two numbers of the job", "[trace_steps]") {
  CHECK(parse_trace_steps("3-4", 20).value() == TraceSteps{3, 4});
  CHECK(parse_trace_steps("1-20", 20).value() == TraceSteps{1, 20});
  CHECK(parse_trace_steps("7-7", 20).value() == TraceSteps{7, 7});
  CHECK(trace_file({3, 4}) == "trace/steps_3-4.json");
  CHECK_FALSE(TraceSteps{}.any());
}

TEST_CASE("anything else is refused with the range that would do", "[trace_steps]") {
  for (const char* text : {"", "-", "5", "5-", "-5", "0-", "0-3", "5-2", "1-21", "21-22", "1-2-3", " 1-2", "1-2 ",
                           "a-b", "+1-2", "1.5-2", "1-99999999999999999999"}) {
    INFO("'" << text << "'");
    const auto steps = parse_trace_steps(text, 20);
    REQUIRE_FALSE(steps);
    CHECK(steps.error().code == ErrorCode::InvalidArgument);
    CHECK(steps.error().expected == "A-B with 1 <= A <= B <= 20 (the job's train.steps)");
    CHECK_FALSE(steps.error().got.empty());
    CHECK_FALSE(steps.error().hint.empty());
  }
  CHECK(parse_trace_steps("5-2", 20).error().hint == "--trace-steps 2-5");
  CHECK(parse_trace_steps("5", 20).error().hint == "--trace-steps 5-5");
  CHECK(parse_trace_steps("18-22", 20).error().hint == "--trace-steps 18-20, or more train.steps in the job");
  CHECK(parse_trace_steps("0-3", 2).error().hint == "two steps of the job, the earlier one first: --trace-steps 1-2");
}

TEST_CASE("a generation is looked at early, and again ten times as late, while enough steps follow", "[trace_steps]") {
  using Looks = std::vector<TraceSteps>;
  CHECK(looked_steps(1, 16).empty());
  CHECK(looked_steps(1, 17) == Looks{{4, 7}});
  CHECK(looked_steps(1, 43) == Looks{{4, 7}});
  CHECK(looked_steps(1, 44) == Looks{{4, 7}, {31, 34}});
  CHECK(looked_steps(101, 1000) == Looks{{104, 107}, {131, 134}, {401, 404}});
  CHECK(looked_steps(1, 1'000'000).size() == 6);
}
