#include "tests/support/graph_builder.h"
#include "tests/support/plan_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

Plan two_stages(const model::ModelGraph& graph) {
  return make_plan(graph, make_cpu_cluster({3}), {.cuts = {3}, .samples = {{4}, {3, 1}}, .count = 3});
}

std::size_t index_of(const std::vector<Action>& actions, const std::string& text) {
  for (std::size_t i = 0; i < actions.size(); ++i) {
    if (to_text(actions[i]) == text) return i;
  }
  FAIL("no action " << text);
  return 0;
}

void swap_actions(std::vector<Action>& actions, const std::string& a, const std::string& b) {
  std::swap(actions[index_of(actions, a)], actions[index_of(actions, b)]);
}

std::vector<std::string> messages(const std::vector<Error>& errors) {
  std::vector<std::string> texts;
  for (const Error& error : errors) texts.push_back(error.message);
  return texts;
}

TEST_CASE("derived lists run to their end", "[check_order]") {
  const auto graph = make_chain_graph();
  CHECK(check_order(two_stages(graph), graph).empty());
}

TEST_CASE("no schedule gets stuck without buffers, for any stages, chunks, micro-batches and credits",
          "[check_order]") {
  for (const ScheduleKind kind :
       {ScheduleKind::ZeroBubbleH1, ScheduleKind::ZeroBubbleH2, ScheduleKind::Interleaved, ScheduleKind::ZeroBubbleV}) {
    for (int num_stages = 1; num_stages <= 9; ++num_stages) {
      for (const int chunks : {1, 2, 3, 4}) {
        if (has_chunks(kind) != (chunks > 1) || (kind == ScheduleKind::ZeroBubbleV && chunks > 2)) continue;
        const auto graph = make_chain_graph({.num_layers = std::max(1, num_stages * chunks - 2), .tied = false});
        PlanOptions options;
        options.schedule = kind;
        options.num_chunks = chunks;
        for (int part = 1; part < num_stages * chunks; ++part) options.cuts.push_back(part);
        options.samples.assign(static_cast<std::size_t>(num_stages), {1});
        for (const int count : {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 17, 26, 35}) {
          for (const int credits : {1, 2, 3}) {
            options.count = count;
            options.receive_credits = credits;
            const Plan plan = make_plan(graph, make_cpu_cluster({9}), options);
            CAPTURE(to_text(kind), num_stages, chunks, count, credits);
            const auto errors = check_order(plan, graph);
            CHECK(errors.empty());
          }
        }
      }
    }
  }
}

TEST_CASE("evaluation does not get stuck either", "[check_order]") {
  for (const ScheduleKind kind : {ScheduleKind::Interleaved, ScheduleKind::ZeroBubbleV}) {
    for (int num_stages = 2; num_stages <= 6; ++num_stages) {
      const auto graph = make_chain_graph({.num_layers = 2 * num_stages - 2, .tied = false});
      PlanOptions options{.schedule = kind, .receive_credits = 1, .num_chunks = 2};
      for (int part = 1; part < num_stages * 2; ++part) options.cuts.push_back(part);
      options.samples.assign(static_cast<std::size_t>(num_stages), {1});
      for (const int count : {1, 5, 12, 17}) {
        options.count = count;
        Plan plan = make_plan(graph, make_cpu_cluster({6}), options);
        for (Role& role : plan.roles) role.actions = evaluation_actions(plan, role.stage);
        CAPTURE(to_text(kind), num_stages, count);
        CHECK(check_order(plan, graph).empty());
      }
    }
  }
}

TEST_CASE("a receive of another chunk than was sent is refused", "[check_order]") {
  const auto graph = make_chain_graph();
  Plan plan = make_plan(
      graph, make_cpu_cluster({2}),
      {.cuts = {1, 2, 4}, .samples = {{4}, {4}}, .count = 2, .schedule = ScheduleKind::Interleaved, .num_chunks = 2});
  REQUIRE(check_order(plan, graph).empty());
  auto& actions = plan.roles[1].actions;
  swap_actions(actions, "RECV_F1", "RECV_F0.1");
  CHECK(messages(check_order(plan, graph)).front() == "send and receive do not match");
}

TEST_CASE("ends of an edge in another order do not match", "[check_order]") {
  const auto graph = make_chain_graph();
  Plan plan = two_stages(graph);
  swap_actions(plan.roles[0].actions, "SEND_F0", "SEND_F1");
  const auto errors = check_order(plan, graph);
  REQUIRE_FALSE(errors.empty());
  CHECK(errors.front().message == "send and receive do not match");
  CHECK(errors.front().code == ErrorCode::InvalidArgument);
}

TEST_CASE("a missing end is named with its rank, and nothing else is", "[check_order]") {
  const auto graph = make_chain_graph();
  Plan plan = two_stages(graph);
  auto& actions = plan.roles[1].actions;
  SECTION("receive") {
    actions.erase(actions.begin() + static_cast<std::ptrdiff_t>(index_of(actions, "RECV_F2")));
    const auto errors = check_order(plan, graph);
    REQUIRE(messages(errors) == std::vector<std::string>{"send has no receive"});
    CHECK(errors[0].path.find("(rank 0, SEND_F2)") != std::string::npos);
    CHECK(errors[0].expected == "the other end in the list of rank 1");
  }
  SECTION("send") {
    actions.erase(actions.begin() + static_cast<std::ptrdiff_t>(index_of(actions, "SEND_B2")));
    const auto errors = check_order(plan, graph);
    REQUIRE(messages(errors) == std::vector<std::string>{"receive has no send"});
    CHECK(errors[0].path.find("(rank 0, RECV_B2)") != std::string::npos);
  }
  SECTION("collective") {
    actions.erase(actions.begin() + static_cast<std::ptrdiff_t>(index_of(actions, "REDUCE_LOSS_COUNT")));
    // Rank 2 is at the count, rank 1 comes with its first bucket: two different collectives.
    const auto errors = check_order(plan, graph);
    REQUIRE(errors.size() == 1);
    CHECK(errors[0].path.find("rank ") != std::string::npos);
  }
}

TEST_CASE("collectives of one group in two orders are refused", "[check_order]") {
  const auto graph = make_chain_graph();
  Plan plan = two_stages(graph);
  swap_actions(plan.roles[2].actions, "REDUCE_GRAD[4,6)", "REDUCE_GRAD[3,4)");
  const auto errors = check_order(plan, graph);
  REQUIRE_FALSE(errors.empty());
  CHECK(errors.front().message == "members of a group are at different collectives");
}

TEST_CASE("crossed collectives of two groups deadlock", "[check_order]") {
  // Ranks 1 and 2 agree on each group's order, but rank 2 wants the tied sum (with rank 0) before its bucket.
  const auto graph = make_chain_graph();
  Plan plan = two_stages(graph);
  for (const std::size_t role : {std::size_t{1}, std::size_t{2}}) {
    auto& actions = plan.roles[role].actions;
    const Action tied = actions[index_of(actions, "REDUCE_TIED0")];
    if (role == 2) {
      actions.erase(actions.begin() + static_cast<std::ptrdiff_t>(index_of(actions, "REDUCE_TIED0")));
      actions.insert(actions.begin() + static_cast<std::ptrdiff_t>(index_of(actions, "REDUCE_GRAD[4,6)")), tied);
    }
  }
  const auto errors = check_order(plan, graph);
  REQUIRE_FALSE(errors.empty());
  for (const std::string& message : messages(errors)) CHECK(message == "deadlock: this rank never ends its list");
}

TEST_CASE("a backward before its forward deadlocks", "[check_order]") {
  const auto graph = make_chain_graph();
  Plan plan = make_plan(graph, make_cpu_cluster({1}), {.count = 2});
  swap_actions(plan.roles[0].actions, "F1[0,6)", "B1[0,6)");
  const auto errors = check_order(plan, graph);
  REQUIRE(errors.size() == 1);
  CHECK(errors[0].got.find("B1[0,6) (after F1[0,6))") != std::string::npos);
}

TEST_CASE("schedules that disagree deadlock where no buffer holds them apart", "[check_order]") {
  // The first stage wants the first gradient back before it sends a second micro-batch; the second stage wants both
  // micro-batches before it gives a gradient.
  const auto graph = make_chain_graph();
  Plan plan = make_plan(graph, make_cpu_cluster({2}), {.cuts = {3}, .samples = {{4}, {4}}, .count = 2});
  const std::vector<Action> eager{
      {ActionKind::Forward, 0}, {ActionKind::Backward, 0}, {ActionKind::Forward, 1}, {ActionKind::Backward, 1}};
  const std::vector<Action> late{
      {ActionKind::Forward, 0}, {ActionKind::Forward, 1}, {ActionKind::Backward, 0}, {ActionKind::Backward, 1}};
  fill_roles(plan, graph, Bytes(1), {eager, late});
  const auto errors = check_order(plan, graph);
  CHECK(messages(errors) == std::vector<std::string>(2, "deadlock: this rank never ends its list"));
  fill_roles(plan, graph, Bytes(1), {late, eager});
  CHECK(check_order(plan, graph).empty());
}

}  // namespace
}  // namespace coxswain::plan
