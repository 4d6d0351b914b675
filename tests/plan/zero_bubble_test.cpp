#include "plan/zero_bubble.h"

#include <set>
#include <tuple>

#include "tests/plan/zero_bubble_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

using Actions = std::vector<ZeroBubbleAction>;
constexpr auto F = ActionKind::Forward, B = ActionKind::BackwardInput, W = ActionKind::BackwardWeight;

/// Every action once, in an order that runs, within the limit.
void check_order(const ZeroBubbleProblem& problem, const ZeroBubbleSchedule& schedule) {
  const auto num_actions = static_cast<std::size_t>(3 * problem.num_micro_batches * problem.num_chunks);
  for (const Actions& actions : schedule.order) {
    std::set<std::tuple<ActionKind, int, int>> seen;
    for (const auto& action : actions) seen.insert({action.kind, action.micro_batch, action.chunk});
    CHECK(actions.size() == num_actions);
    CHECK(seen.size() == num_actions);
  }
  const auto times = estimate_zero_bubble(problem, schedule.order);
  REQUIRE(times.has_value());
  CHECK(times->longest_span == schedule.times.longest_span);
  CHECK(schedule.lower_bound.value <= schedule.times.longest_span.value * (1 + 1e-9));
  for (const double peak : times->peak_memory) CHECK(peak <= problem.memory_limit + 1e-9);
}

TEST_CASE("an order runs as its rules say", "[zero_bubble]") {
  ZeroBubbleProblem problem = even_problem(2, 1, 1, 3, 2);
  problem.devices[1] = {Seconds(100), Seconds(200), Seconds(400)};
  // F 0-10, over the link 13, F 13-113, B 113-313, W 313-713; back 316, B 316-326, W 326-336.
  const Actions actions{{F, 0, 0}, {B, 0, 0}, {W, 0, 0}};
  const auto times = estimate_zero_bubble(problem, {actions, actions});
  REQUIRE(times.has_value());
  CHECK(times->span == std::vector<Seconds>{Seconds(336), Seconds(700)});
  CHECK(times->longest_span == Seconds(700));
  CHECK(times->peak_memory == std::vector<double>{2, 2});
}

TEST_CASE("a V turns round on the last device without a transfer", "[zero_bubble]") {
  const ZeroBubbleProblem problem = even_problem(1, 1, 2, 3, 4);
  const auto times =
      estimate_zero_bubble(problem, {{{F, 0, 0}, {F, 0, 1}, {B, 0, 1}, {B, 0, 0}, {W, 0, 1}, {W, 0, 0}}});
  REQUIRE(times.has_value());
  CHECK(times->longest_span == Seconds(60));
  CHECK(times->peak_memory == std::vector<double>{4});
}

TEST_CASE("an order that waits for itself has no times", "[zero_bubble]") {
  const ZeroBubbleProblem problem = even_problem(1, 1, 1, 0, 2);
  CHECK_FALSE(estimate_zero_bubble(problem, {{{B, 0, 0}, {F, 0, 0}, {W, 0, 0}}}).has_value());
}

TEST_CASE("two devices get the best of all orders", "[zero_bubble]") {
  std::mt19937 random(5);
  for (int i = 0; i < 60; ++i) {
    ZeroBubbleProblem problem = random_problem(random, 1, 3);
    problem.num_chunks = 1;
    problem.devices.resize(2, {Seconds(7), Seconds(8), Seconds(6)});
    problem.memory_limit = 2 + static_cast<int>(random() % 6);
    const auto schedule = make_zero_bubble_schedule(problem);
    REQUIRE(schedule.has_value());
    check_order(problem, *schedule);
    CHECK(schedule->times.longest_span.value == Approx(brute_force(problem)));
  }
}

TEST_CASE("a V of two devices and one micro-batch gets the best of all orders", "[zero_bubble]") {
  for (const double communication : {0.0, 2.0, 30.0}) {
    const ZeroBubbleProblem problem = even_problem(2, 1, 2, communication, 4);
    const auto schedule = make_zero_bubble_schedule(problem);
    REQUIRE(schedule.has_value());
    check_order(problem, *schedule);
    CHECK(schedule->times.longest_span.value == Approx(brute_force(problem)));
  }
}

TEST_CASE("published cases reach the bubble that memory forces", "[zero_bubble]") {
  // ZB-H1: m (f + b + w) + (p - 1)(f + b - w) for even times; ZB-H2, with twice the memory: no bubble.
  CHECK(make_zero_bubble_schedule(even_problem(4, 12, 1, 0, 8))->times.longest_span == Seconds(12 * 30 + 3 * 10));
  CHECK(make_zero_bubble_schedule(even_problem(4, 12, 1, 0, 16))->times.longest_span == Seconds(12 * 30));
  // ZB-V with the memory of 1F1B and free communication: no bubble.
  CHECK(make_zero_bubble_schedule(even_problem(4, 12, 2, 0, 16))->times.longest_span == Seconds(12 * 60));
}

TEST_CASE("any pipeline gets a valid order, always the same", "[zero_bubble]") {
  std::mt19937 random(11);
  for (int i = 0; i < 80; ++i) {
    const ZeroBubbleProblem problem = random_problem(random, 5, 9);
    const auto schedule = make_zero_bubble_schedule(problem);
    REQUIRE(schedule.has_value());
    check_order(problem, *schedule);
    if (i % 10 == 0) CHECK(make_zero_bubble_schedule(problem)->order == schedule->order);
  }
}

TEST_CASE("a limit without an order says the least that has one", "[zero_bubble]") {
  for (const int chunks : {1, 2}) {
    const ZeroBubbleProblem problem = even_problem(3, 4, chunks, 1, 2 * chunks - 0.5);
    const auto refused = make_zero_bubble_schedule(problem);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == ErrorCode::ResourceExhausted);
    CHECK(refused.error().expected == "at least " + std::to_string(2.0 * chunks));
    const ZeroBubbleProblem least = even_problem(3, 4, chunks, 1, 2 * chunks);
    const auto schedule = make_zero_bubble_schedule(least);
    REQUIRE(schedule.has_value());
    check_order(least, *schedule);
  }
}

TEST_CASE("memory changes of any size fit", "[zero_bubble]") {
  for (const int chunks : {1, 2}) {
    ZeroBubbleProblem problem = even_problem(3, 6, chunks, 1, 0.7 * chunks);
    problem.forward_memory = 0.7;
    problem.input_memory = -0.6;
    problem.weight_memory = -0.1;
    for (const double more : {0.0, 0.1, 0.65, 5.0}) {
      problem.memory_limit = 0.7 * chunks + more;
      const auto schedule = make_zero_bubble_schedule(problem);
      REQUIRE(schedule.has_value());
      check_order(problem, *schedule);
    }
    // What is never given back adds up: the last of 6 x chunks forwards stands on the others' rests.
    problem.weight_memory = 0;
    problem.memory_limit = 100;
    const auto schedule = make_zero_bubble_schedule(problem);
    REQUIRE(schedule.has_value());
    check_order(problem, *schedule);
    problem.memory_limit = 0.7 * chunks + 0.1;
    CHECK_FALSE(make_zero_bubble_schedule(problem).has_value());
  }
}

TEST_CASE("all that is wrong with a problem is listed", "[zero_bubble]") {
  ZeroBubbleProblem problem = even_problem(2, 0, 3, -1, 4);
  problem.devices[1].input = Seconds(-5);
  problem.weight_memory = 1;
  const auto refused = make_zero_bubble_schedule(problem);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == ErrorCode::InvalidArgument);
  CHECK(refused.error().details.size() == 5);
}

}  // namespace
}  // namespace coxswain::plan
