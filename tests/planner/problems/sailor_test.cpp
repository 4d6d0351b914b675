// What an answer promises.
#include "tests/planner/problems/sailor_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::planner::sailor_test;

TEST_CASE("strict answers divide the batch", "[sailor_test]") {
  const SailorInstance instance = make_instance(1, 4, {{0, 0, 3}});
  const auto free = solve_sailor(instance, {}), strict = solve_sailor(instance, {.strict = true});
  REQUIRE(free);
  REQUIRE(strict);
  const auto num_replicas_of = [](const ContestAnswer& answer) {
    return answer.answer["stages"].array()[0]["replicas"].array()[0]["count"].integer();
  };
  CHECK(4 % num_replicas_of(*strict) == 0);
  CHECK(free->score >= strict->score);
}

TEST_CASE("an answer says what it takes, and when it rounds the batch up", "[sailor_test]") {
  const SailorInstance instance = make_instance(1, 5, {{0, 0, 3}});  // 2 micro-batches on three replicas, 5 on one
  const auto free = solve_sailor(instance, {}), strict = solve_sailor(instance, {.strict = true});
  REQUIRE(free);
  REQUIRE(strict);
  CHECK(free->rounds_batch_up);
  CHECK(!strict->rounds_batch_up);
  CHECK(free->unit == "iterations per second");
  CHECK(free->step_seconds == Approx(1 / free->score));
  CHECK(free->notes.size() == strict->notes.size() + 1);
}

TEST_CASE("limits that no plan keeps are an error", "[sailor_test]") {
  SailorInstance instance = make_instance(2, 4, {{0, 0, 4}});
  instance.min_iterations_per_second = 100;
  const auto answer = solve_sailor(instance, {});
  REQUIRE_FALSE(answer);
  CHECK(answer.error().code == ErrorCode::ResourceExhausted);
}

TEST_CASE("equal instances give equal answers", "[sailor_test]") {
  std::mt19937 random(3);
  const SailorInstance instance = random_instance(random, {{0, 0, 6}, {1, 0, 4}, {0, 1, 5}});
  const auto once = solve_sailor(instance, {}), again = solve_sailor(instance, {});
  REQUIRE(once);
  REQUIRE(again);
  CHECK(to_text(once->answer) == to_text(again->answer));
}
