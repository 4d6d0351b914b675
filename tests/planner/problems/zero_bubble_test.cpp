#include "planner/problems/zero_bubble.h"

#include <catch2/catch.hpp>

namespace coxswain::planner {
namespace {

Json instance(const char* devices, const char* chunks, const char* forward, const char* limit) {
  return *parse_json(std::string(R"({"id": "x", "devices": )") + devices +
                     R"(, "microbatches": 2, "chunks_per_device": )" + chunks + R"(, "seconds": {"F": )" + forward +
                     R"(, "B": [20, 20], "W": [5, 5.5]}, "seconds_communication": 1,
                        "memory": {"F": 2, "B": -1, "W": -1}, "memory_limit": )" +
                     limit + "}");
}

TEST_CASE("a zero-bubble instance is read as it stands", "[zero_bubble]") {
  const auto parsed = parse_zero_bubble(instance("2", "1", "[10, 11]", "4.0"), "");
  REQUIRE(parsed.has_value());
  plan::ZeroBubbleProblem expected;
  expected.devices = {{Seconds(10), Seconds(20), Seconds(5)}, {Seconds(11), Seconds(20), Seconds(5.5)}};
  expected.num_micro_batches = 2;
  expected.communication = Seconds(1);
  expected.memory_limit = 4;
  CHECK(parsed->problem == expected);
}

TEST_CASE("a zero-bubble answer names every action", "[zero_bubble]") {
  const auto solver = load_zero_bubble(instance("2", "1", "[10, 10]", "2"), "");
  REQUIRE(solver.has_value());
  const auto answer = (*solver)({});
  REQUIRE(answer.has_value());
  // The limit leaves one order. Device 0: F -10, B 42-62, W -67, and the same again.
  CHECK(to_text(answer->answer) == R"({"devices":["F0 B0 W0 F1 B1 W1","F0 B0 W0 F1 B1 W1"]})");
  CHECK(answer->score == Approx(2 * 67));
}

TEST_CASE("actions of a V name their chunk", "[zero_bubble]") {
  const auto solver = load_zero_bubble(instance("2", "2", "[10, 10]", "4"), "");
  REQUIRE(solver.has_value());
  const auto answer = (*solver)({});
  REQUIRE(answer.has_value());
  const std::string& text = answer->answer["devices"].array()[0].string();
  CHECK(text.substr(0, 4) == "F0.0");
  CHECK(text.find("W1.1") != std::string::npos);
}

TEST_CASE("all problems of a zero-bubble instance are listed", "[zero_bubble]") {
  const auto parsed = parse_zero_bubble(instance("2", "3", "[10, -1]", "\"much\""), "");
  REQUIRE_FALSE(parsed.has_value());
  CHECK(parsed.error().details.size() == 3);
  CHECK_FALSE(parse_zero_bubble(instance("2", "1", "[10]", "4"), "").has_value());
}

TEST_CASE("a limit below one micro-batch is an error", "[zero_bubble]") {
  const auto solver = load_zero_bubble(instance("2", "1", "[10, 10]", "1.5"), "");
  REQUIRE(solver.has_value());
  const auto answer = (*solver)({});
  REQUIRE_FALSE(answer.has_value());
  CHECK(answer.error().code == ErrorCode::ResourceExhausted);
}

}  // namespace
}  // namespace coxswain::planner
