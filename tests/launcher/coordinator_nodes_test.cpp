// Nodes that are lost while a run trains: the others go on under another plan.
#include "tests/launcher/coordinator_bench.h"

using namespace coxswain;
using namespace coxswain::launcher;

TEST_CASE("a lost node: the others stop, find the last checkpoint and go on under a plan without it", "[coordinator]") {
  Bench bench(2, 30, true, 10, 3);
  bench.train(2);
  for (int rank = 0; rank < 4; ++rank) bench.step(10 + rank / 2, rank, 1);
  bench.gone(11);
  REQUIRE(bench.events_of("node_lost").size() == 1);
  CHECK(bench.events_of("node_lost")[0]["node"].integer() == 1);
  CHECK(bench.sent_to(10, control::AgentCommand::kStop).size() == 1);
  CHECK_FALSE(bench.result);
  bench.ended(10);
  CHECK_FALSE(bench.asked_for_plan);
  bench.recover("step_0", 0);
  CHECK(bench.core().lost_nodes() == std::vector<int>{1});
  CHECK(bench.core().planned_without().empty());
  bench.choose(bench.ranks_on(0), {1});
  bench.generation = 2;
  CHECK(bench.core().planned_without() == std::vector<int>{1});
  const auto starts = bench.sent_to(10, control::AgentCommand::kStart);
  REQUIRE(starts.size() == 3);  // measured, trained, trained again
  CHECK(starts[2].start().work().generation() == 2);
  CHECK(starts[2].start().work().world_size() == 2);
  CHECK(starts[2].start().work().checkpoint().from() == "step_0");
  CHECK(bench.sent_to(11, control::AgentCommand::kStart).size() == 2);
  const auto started = bench.events_of("generation_started");
  REQUIRE(started.size() == 2);
  CHECK(started[1]["failed_node"].integer() == 1);
  CHECK(started[1]["failed_rank"].integer() == -1);
  CHECK(started[1]["ranks"].integer() == 2);
  bench.tick(1);
  for (int rank = 0; rank < 2; ++rank) bench.step(10, rank, 1);
  for (int rank = 0; rank < 2; ++rank) bench.step(10, rank, 2);
  REQUIRE(bench.events_of("recovered").size() == 1);
  CHECK(bench.events_of("recovered")[0]["steps_lost"].integer() == 1);
}

TEST_CASE("a second node lost on the way is left out too", "[coordinator]") {
  const std::string when = GENERATE("stopping", "searching", "planning", "waiting");
  INFO(when);
  Bench bench(3, 30, true, 10, 3);
  bench.train(3);
  bench.gone(12);
  if (when == "stopping") bench.gone(11);
  bench.ended(10);
  if (when != "stopping") bench.ended(11);
  if (when == "searching") bench.gone(11);
  bench.recover("", 0);
  if (when == "planning") bench.gone(11);
  std::vector<RankBinding> ranks = bench.ranks_on(0);
  if (when == "planning" || when == "waiting") {
    for (const RankBinding& rank : bench.ranks_on(1)) ranks.push_back(rank);
  }
  bench.choose(ranks);
  if (when == "planning") {  // the answer is for nodes of which one is gone by now
    CHECK(bench.asked_for_plan);
    bench.choose(bench.ranks_on(0));
  }
  bench.generation = 2;
  CHECK(bench.events_of("node_lost").size() == (when == "waiting" ? 1 : 2));
  const auto starts = bench.sent_to(10, control::AgentCommand::kStart);
  REQUIRE(starts.size() == 3);
  CHECK(starts[2].start().work().world_size() == (when == "waiting" ? 4 : 2));
  CHECK_FALSE(bench.result);
}

TEST_CASE("a rank's own failure does not hide that its node is lost", "[coordinator]") {
  Bench bench(2, 30, true, 10, 3);
  bench.train(2);
  bench.failure_report(10, 0, ErrorCode::Internal, false);  // its exit is waited for
  bench.gone(11);
  REQUIRE(bench.events_of("node_lost").size() == 1);
  CHECK(bench.events_of("node_lost")[0]["node"].integer() == 1);
  CHECK(bench.events_of("worker_failed").size() == 1);
  bench.ended(10);
  bench.recover("", 0);
  CHECK(bench.asked_for_plan);
}

TEST_CASE("a node that has no rank is not missed", "[coordinator]") {
  Bench bench(2, 30, true, 10, 3);
  for (int n = 0; n < 2; ++n) bench.join(10 + n, 2);
  for (int r = 0; r < 4; ++r) bench.measured(10 + r / 2, r);
  for (int n = 0; n < 2; ++n) bench.ended(10 + n);
  bench.generation = 1;
  bench.choose(bench.ranks_on(0));
  bench.gone(11);
  CHECK(bench.events_of("node_lost").size() == 1);
  CHECK(bench.sent_to(10, control::AgentCommand::kStop).empty());
  // A rank that fails afterwards is started again under the plan that there is.
  bench.exit(10, 0, "signal 9", false);
  bench.ended(10);
  bench.recover("", 0);
  CHECK_FALSE(bench.asked_for_plan);
  CHECK(bench.sent_to(10, control::AgentCommand::kStart).size() == 3);
}

TEST_CASE("a run ends with its last node, or with fewer nodes than it is to have", "[coordinator]") {
  Bench bench(2, 30, true, 10, 3);
  bench.train(2);
  bench.gone(11);
  bench.gone(10);
  bench.tick(11);
  REQUIRE(bench.result);
  CHECK(bench.result->exit_code == ExitCode::Failed);
  CHECK(bench.result->error->message.find("is lost") != std::string::npos);
}

TEST_CASE("where no plan is left the loss of the node is told, with the reason", "[coordinator]") {
  Bench bench(2, 30, true, 10, 3);
  bench.train(2);
  bench.gone(11);
  bench.ended(10);
  bench.recover("", 0);
  bench.no_plan({ErrorCode::ResourceExhausted, "nothing fits", "", "", "", ""});
  REQUIRE(bench.result);
  CHECK(bench.result->exit_code == ExitCode::Failed);
  CHECK(bench.result->error->message == "node 1 (host11) is lost: its agent died");
  REQUIRE(bench.result->error->details.size() == 1);
  CHECK(bench.result->error->details[0].message == "nothing fits");
}

TEST_CASE("what a node that was taken for lost still says counts for nothing", "[coordinator]") {
  Bench bench(2, 30, true, 10, 3);
  bench.train(2);
  bench.gone(11);
  bench.ended(10);
  bench.recover("", 0);
  bench.choose(bench.ranks_on(0));
  bench.generation = 2;
  control::AgentReport report;
  report.set_error_json(proto::error_to_text({ErrorCode::FailedPrecondition, "no more processes", "", "", "", ""}));
  CHECK(bench.core().agent_report(11, report.SerializeAsString(), bench.clock.now()).empty());
  for (int rank = 0; rank < 2; ++rank) bench.step(11, rank, 1);
  CHECK(bench.rows.empty());
  for (int rank = 0; rank < 2; ++rank) bench.step(10, rank, 1);
  CHECK(bench.rows.size() == 1);
}

TEST_CASE("a coordinator that was killed in a recovery waits until a node that is lost too counts as such",
          "[coordinator]") {
  Bench bench(2, 30, true, 10, 3);
  bench.train(2);
  bench.exit(10, 0, "signal 9", false);
  bench.ended(10);
  bench.clock.advance(Seconds(8));
  bench.restart();  // node 1 died meanwhile: that is known 10 s later
  bench.tick(9.9);
  CHECK_FALSE(bench.result);
  bench.gone(11);
  bench.recover("", 0);
  CHECK(bench.asked_for_plan);
}
