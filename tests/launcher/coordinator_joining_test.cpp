// Nodes that come for the first time, before a run begins and while it trains.
#include "launcher/control/measurement.h"
#include "tests/launcher/coordinator_bench.h"

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

/// One node of two devices trains; up to three may. Step 7 is taken, nothing is saved yet.
class SmallRun : public Bench {
 public:
  SmallRun() : Bench(1, 30, true, 1000, 3, false, 3) {
    join(10, 2);
    tick(3);
    for (int rank : {0, 1}) measured(10, rank);
    ended(10);
    generation = 1;
    choose(core().measurements().ranks);
    step_all(1, 7);
  }
  void step_all(std::int64_t first, std::int64_t last) {
    for (std::int64_t number = first; number <= last; ++number)
      for (int rank : {0, 1}) step(10, rank, number);
  }
  void save_all(std::int64_t number) {
    for (int rank : {0, 1}) saved(10, rank, number);
    published(number);
  }
  void link_measured(int agent, double bytes_per_second, const std::string& error = "") {
    control::AgentReport told;
    told.mutable_link()->set_latency_seconds(1e-4);
    told.mutable_link()->set_bytes_per_second(bytes_per_second);
    if (!error.empty())
      told.mutable_link()->set_error_json(proto::error_to_text({ErrorCode::Unavailable, error, "node", "", "", ""}));
    report(agent, told);
  }
  [[nodiscard]] std::size_t num_starts(int agent) const { return sent_to(agent, control::AgentCommand::kStart).size(); }
  [[nodiscard]] bool is_refused(int agent) const { return !sent_to(agent, control::AgentCommand::kOver).empty(); }
};

}  // namespace

TEST_CASE("a run begins with the fewest nodes once no other comes, at once with the most", "[coordinator]") {
  Bench run(2, 30, true, 0, 3, false, 3);
  run.join(10, 2, 2);
  run.tick(100);
  CHECK(run.events_of("node_joined").empty());
  run.join(11, 2, 0);
  run.tick(2.9);
  CHECK(run.events_of("node_joined").empty());
  SECTION("the last call passes") {
    run.tick(0.2);
    const auto joined = run.events_of("node_joined");
    REQUIRE(joined.size() == 2);
    CHECK(joined[0]["host"] == Json("host11"));  // by the ranks that they asked for
    CHECK(joined[1]["host"] == Json("host10"));
    CHECK(run.sent_to(10, control::AgentCommand::kStart).size() == 1);
  }
  SECTION("a third one comes") {
    run.join(12, 2);
    const auto joined = run.events_of("node_joined");
    REQUIRE(joined.size() == 3);
    CHECK(joined[1]["host"] == Json("host12"));  // the gap
  }
  SECTION("one goes again: the other is too few") {
    run.gone(11);
    run.tick(100);
    CHECK(run.events_of("node_joined").empty());
  }
}

TEST_CASE("a node that comes while a run trains is used once a plan with it does more", "[coordinator]") {
  SmallRun run;
  run.join(11, 2);
  CHECK_FALSE(run.is_refused(11));
  CHECK(run.events_of("node_joined").size() == 2);
  CHECK(run.core().planned_without() == std::vector<int>{1});
  // With one node no link was measured: nothing is asked before it is.
  REQUIRE(run.sent_to(11, control::AgentCommand::kMeasureLink).size() == 1);
  CHECK(run.sent_to(11, control::AgentCommand::kMeasureLink)[0].measure_link().files_address() == "files of 10");
  run.tick(1);
  CHECK(run.sent_to(10, control::AgentCommand::kSave).empty());
  run.link_measured(11, 2e8);
  // Nothing is saved yet: that comes first, and is asked for once.
  REQUIRE(run.core().due(run.clock.now()));
  run.tick(1);
  run.tick(1);
  REQUIRE(run.sent_to(10, control::AgentCommand::kSave).size() == 1);
  CHECK_FALSE(run.sent_to(10, control::AgentCommand::kSave)[0].save().stop());
  CHECK_FALSE(run.asked_for_plan);
  run.step_all(8, 8);
  run.save_all(8);
  run.tick(0.1);
  REQUIRE(run.asked_for_plan);
  REQUIRE(run.core().measurements().ranks.size() == 4);
  const auto cluster = build_cluster(run.core().measurements());
  REQUIRE(cluster);
  CHECK(cluster::num_nodes(cluster->resources) == 2);
  REQUIRE(cluster->resources.tiers.size() == 1);
  CHECK(cluster->resources.tiers[0].link.bandwidth.value.value == 2e8);
  CHECK(cluster->resources.tiers[0].link.latency.value.value == 1e-4);

  SECTION("the next generation has both, and asks them what they hold") {
    run.choose(run.core().measurements().ranks);
    REQUIRE(run.sent_to(10, control::AgentCommand::kSave).size() == 2);
    run.step_all(9, 9);
    run.save_all(9);
    for (int rank : {0, 1}) run.finished(10, rank);
    run.ended(10);
    CHECK_FALSE(run.looked_for_checkpoint);  // node 0 alone cannot tell what the new one sees
    REQUIRE(run.sent_to(11, control::AgentCommand::kList).size() == 1);
    checkpoint::Manifest manifest;
    manifest.progress.step = 9;
    manifest.model_hash = "m";
    manifest.shards.push_back({"rank_0", Bytes(1), "sum", {checkpoint::whole_piece("p", {2})}});
    run.listed(11, {});
    run.listed(10, {{to_text(manifest), {"rank_0"}}});
    REQUIRE(run.num_starts(11) == 1);
    const control::StartGeneration start = run.sent_to(11, control::AgentCommand::kStart)[0].start();
    CHECK(start.work().generation() == 2);
    CHECK(start.num_nodes() == 2);
    CHECK(start.ranks_size() == 2);
    CHECK(start.work().checkpoint().from() == "/checkpoints/step_9");
    CHECK(start.work().checkpoint().sharing() == control::SHARING_UNKNOWN);
    // No input says where the generation begins: its steps stay in the journal.
    CHECK_FALSE(run.core().undisturbed());
    REQUIRE(start.work().checkpoint().holders_size() == 1);
    CHECK(start.work().checkpoint().holders(0).addresses(0) == "files of 10");
    CHECK_FALSE(run.result);
  }
  SECTION("it would not help: the run goes on as it is") {
    run.choose(run.ranks_on(0));
    run.step_all(9, 12);
    run.tick(60);
    CHECK(run.num_starts(11) == 0);
    CHECK(run.sent_to(10, control::AgentCommand::kSave).size() == 1);
  }
  SECTION("a third one, whose link is known from the two") {
    run.choose(run.ranks_on(0));
    run.join(12, 2);
    CHECK(run.sent_to(12, control::AgentCommand::kMeasureLink).empty());
    run.tick(1);
    CHECK(run.asked_for_plan);
    const auto three = build_cluster(run.core().measurements());
    REQUIRE(three);
    CHECK(cluster::num_nodes(three->resources) == 3);
    CHECK(three->resources.tiers[0].link.bandwidth.value.value == 2e8);
    SECTION("a fourth one is too many") {
      run.join(13, 2);
      CHECK(run.is_refused(13));
    }
  }
}

TEST_CASE("a node that comes while a plan is looked for belongs into the next one", "[coordinator]") {
  SmallRun run;
  run.join(11, 2);
  run.link_measured(11, 2e8);
  run.step_all(8, 8);
  run.tick(1);
  run.save_all(8);
  run.tick(0.1);
  REQUIRE(run.asked_for_plan);
  SECTION("while it is looked for") {
    run.join(12, 2);
    run.choose(run.ranks_on(0), {}, 2);
    run.tick(0.1);
    CHECK(run.asked_for_plan);
  }
  SECTION("while the run moves") {
    auto ranks = run.ranks_on(0);
    for (const RankBinding& rank : run.ranks_on(1)) ranks.push_back(rank);
    run.choose(ranks, {}, 2);
    run.join(12, 2);
    run.step_all(9, 9);
    run.save_all(9);
    for (int rank : {0, 1}) run.finished(10, rank);
    run.ended(10);
    CHECK(run.core().planned_without() == std::vector<int>{2});
  }
  SECTION("before it was looked for") {
    run.choose(run.ranks_on(0), {}, 2);
    run.tick(0.1);
    CHECK_FALSE(run.asked_for_plan);
  }
}

TEST_CASE("a node whose link cannot be measured is not used", "[coordinator]") {
  SmallRun run;
  run.join(11, 2);
  run.link_measured(11, 0, "nobody answers");
  run.tick(60);
  CHECK_FALSE(run.asked_for_plan);
  CHECK(run.core().lost_nodes() == std::vector<int>{1});  // no search may count on it
  REQUIRE(run.events_of("node_not_used").size() == 1);
  CHECK(run.events_of("node_not_used")[0]["node"] == Json(1));
  // It goes and comes again: its link is measured once more.
  run.gone(11);
  run.join(21, 2, 1);
  REQUIRE(run.sent_to(21, control::AgentCommand::kMeasureLink).size() == 1);
  run.link_measured(21, 2e8);
  CHECK(run.core().lost_nodes().empty());
}

TEST_CASE("a node that comes too late for the start is taken in when the run trains", "[coordinator]") {
  Bench run(1, 30, true, 10, 3, false, 2);
  run.join(10, 2);
  run.tick(3);
  run.join(11, 2);  // while the first one measures
  CHECK(run.sent_to(11, control::AgentCommand::kOver).empty());
  SECTION("it is still there") {
    for (int rank : {0, 1}) run.measured(10, rank);
    run.ended(10);
    CHECK(run.events_of("node_joined").size() == 1);
    run.generation = 1;
    run.choose(run.core().measurements().ranks);
    CHECK(run.events_of("node_joined").size() == 2);
    CHECK(run.sent_to(10, control::AgentCommand::kStart).back().start().num_nodes() == 1);
  }
  SECTION("it is gone") {
    run.gone(11);
    for (int rank : {0, 1}) run.measured(10, rank);
    run.ended(10);
    run.generation = 1;
    run.choose(run.core().measurements().ranks);
    CHECK(run.events_of("node_joined").size() == 1);
  }
}

TEST_CASE("who cannot be used is told so", "[coordinator]") {
  SmallRun run;
  SECTION("devices of which nothing is known") {
    run.join(11, 3);
    REQUIRE(run.is_refused(11));
    CHECK(run.sent_to(11, control::AgentCommand::kOver)[0].over().text().find("not like") != std::string::npos);
  }
  SECTION("no devices") {
    run.join(11, 0);
    CHECK(run.is_refused(11));
  }
  SECTION("a rank that another one has") {
    run.join(11, 2, 1);
    CHECK_FALSE(run.is_refused(11));
    run.join(12, 2, 1);
    run.tick(5.4);  // the other is not lost
    CHECK(run.is_refused(12));
  }
  SECTION("a rank beyond the most") {
    run.join(11, 2, 3);
    CHECK(run.is_refused(11));
  }
  CHECK_FALSE(run.result);
}
