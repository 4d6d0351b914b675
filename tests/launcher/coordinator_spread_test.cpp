// Checkpoints of nodes that share no disk: each keeps its part, and a run goes on with what those that are left hold.
#include "tests/launcher/coordinator_bench.h"

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

using Parts = std::vector<std::pair<std::string, std::vector<std::string>>>;

const std::vector<std::string> kAll = {"rank_0", "rank_1", "rank_2", "rank_3"};

/// Of four ranks, as Bench::saved makes their shards.
std::string manifest_of(std::int64_t step) {
  checkpoint::Manifest manifest;
  manifest.progress.step = step;
  manifest.progress.next_sample = 8 * step;
  manifest.model_hash = "m";
  for (int rank = 0; rank < 4; ++rank) {
    const std::string number = std::to_string(rank);
    manifest.shards.push_back({"rank_" + number, Bytes(1), "sum", {checkpoint::whole_piece("p" + number, {2})}});
  }
  return to_text(manifest);
}

/// Two nodes of two ranks, whose steps 1 to 12 are taken and whose step 10 is saved.
class SavedRun : public Bench {
 public:
  SavedRun() : Bench(2, 30, true, 10, 3) {
    spread = true;
    train(2);
    for (int rank = 0; rank < 4; ++rank) {
      for (std::int64_t number = 1; number <= 12; ++number) step(10 + rank / 2, rank, number);
      saved(10 + rank / 2, rank, 10);
    }
  }
};

control::StartGeneration last_start(const Bench& bench, int agent) {
  return bench.sent_to(agent, control::AgentCommand::kStart).back().start();
}

}  // namespace

TEST_CASE("every node keeps its part, and then the checkpoint is there", "[coordinator]") {
  SavedRun bench;
  // Copies of a node's shards go to the next one.
  CHECK(last_start(bench, 10).copy_to() == "files of 11");
  CHECK(last_start(bench, 11).copy_to() == "files of 10");
  REQUIRE(bench.publications.size() == 1);
  CHECK(bench.publications[0].agents == std::vector<int>{10, 11});
  const std::vector<std::string> some = {"rank_0", "rank_1", "rank_3"};
  SECTION("both hold some, together all") {
    bench.stored(10, 10, some);
    bench.stored(10, 10, kAll);  // said twice
    CHECK(bench.events_of("checkpoint_saved").empty());
    CHECK(bench.sent_to(10, control::AgentCommand::kPrune).empty());
    bench.stored(11, 10, {"rank_2"});
    CHECK(bench.events_of("checkpoint_saved").size() == 1);
    // No node has removed anything before.
    for (const int agent : {10, 11}) {
      const auto prunes = bench.sent_to(agent, control::AgentCommand::kPrune);
      REQUIRE(prunes.size() == 1);
      CHECK(prunes[0].prune().directory() == "/checkpoints");
      CHECK(prunes[0].prune().step() == 10);
      CHECK(prunes[0].prune().keep() == 3);
    }
  }
  SECTION("one's disk is full, and the other has no copy") {
    bench.stored(10, 10, some);
    bench.stored(11, 10, {}, "no space");
    CHECK(bench.events_of("checkpoint_saved").empty());
    REQUIRE(bench.events_of("checkpoint_failed").size() == 1);
    CHECK(bench.events_of("checkpoint_failed")[0]["cause"] == Json("no space"));
    CHECK(bench.sent_to(10, control::AgentCommand::kPrune).empty());
  }
  SECTION("one's disk is full, and the other has copies") {
    bench.stored(10, 10, kAll);
    bench.stored(11, 10, {}, "no space");
    CHECK(bench.events_of("checkpoint_saved").size() == 1);
    REQUIRE(bench.events_of("checkpoint_not_copied").size() == 1);
    CHECK(bench.events_of("checkpoint_not_copied")[0]["node"] == Json(1));
  }
  SECTION("a shard is nowhere") {
    bench.stored(10, 10, some);
    bench.stored(11, 10, some);
    REQUIRE(bench.events_of("checkpoint_failed").size() == 1);
    CHECK(bench.events_of("checkpoint_failed")[0]["where"] == Json("rank_2"));
  }
  SECTION("one is lost meanwhile, of which the other has copies") {
    bench.stored(10, 10, kAll);
    bench.gone(11);
    CHECK(bench.events_of("checkpoint_saved").size() == 1);
  }
  SECTION("one is lost meanwhile, with what it alone held") {
    bench.stored(10, 10, some);
    bench.gone(11);
    CHECK(bench.events_of("checkpoint_saved").empty());
    CHECK(bench.events_of("checkpoint_failed").size() == 1);
  }
  SECTION("one is lost after it answered") {
    bench.stored(11, 10, kAll);
    bench.gone(11);
    bench.stored(10, 10, some);
    CHECK(bench.events_of("checkpoint_saved").empty());
    CHECK(bench.events_of("checkpoint_failed").size() == 1);
  }
  CHECK_FALSE(bench.result);
}

TEST_CASE("a run goes on from the newest checkpoint that its nodes hold together", "[coordinator]") {
  SavedRun bench;
  bench.stored(10, 10, kAll);
  bench.fail_and_end(2, 3);
  // Not before node 1 has its part in its place, or has failed to.
  CHECK(bench.sent_to(10, control::AgentCommand::kList).empty());
  bench.stored(11, 10, kAll);
  REQUIRE(bench.sent_to(10, control::AgentCommand::kList).size() == 1);
  REQUIRE(bench.sent_to(11, control::AgentCommand::kList).size() == 1);
  CHECK(bench.sent_to(11, control::AgentCommand::kList)[0].list().directory() == "/checkpoints");
  CHECK_FALSE(bench.looked_for_checkpoint);
  bench.listed(10, {{manifest_of(10), {"rank_0", "rank_1"}}, {manifest_of(5), {"rank_0", "rank_1"}}});
  CHECK(last_start(bench, 10).work().generation() == 1);
  SECTION("the newest is whole") {
    bench.listed(11, {{manifest_of(10), {"rank_1", "rank_2", "rank_3"}}});
    const control::StartGeneration start = last_start(bench, 11);
    CHECK(start.work().generation() == 2);
    const control::CheckpointSettings& from = start.work().checkpoint();
    CHECK(from.from() == "/checkpoints/step_10");
    CHECK(from.from_manifest() == manifest_of(10));
    CHECK(from.sharing() == control::SHARING_NOT);
    REQUIRE(from.holders_size() == 4);
    CHECK(from.holders(0).file() == "rank_0");
    REQUIRE(from.holders(0).addresses_size() == 1);
    CHECK(from.holders(0).addresses(0) == "files of 10");
    CHECK(from.holders(1).addresses_size() == 2);
    CHECK(bench.events_of("generation_started").back()["after_step"] == Json(10));
  }
  SECTION("a shard of it is damaged, and an older one is whole") {
    bench.listed(11, {{manifest_of(10), {"rank_2"}}, {manifest_of(5), {"rank_2", "rank_3"}}});
    CHECK(last_start(bench, 10).work().checkpoint().from() == "/checkpoints/step_5");
  }
  SECTION("one of another model, or ahead of what this run has taken, is none of its own") {
    checkpoint::Manifest other = *checkpoint::parse_manifest(manifest_of(11));
    other.model_hash = "another";
    const std::vector<std::string> all = {"rank_0", "rank_1", "rank_2", "rank_3"};
    bench.listed(11, {{to_text(other), all}, {manifest_of(13), all}, {manifest_of(10), {"rank_2", "rank_3"}}});
    CHECK(last_start(bench, 10).work().checkpoint().from() == "/checkpoints/step_10");
  }
  SECTION("the other never tells") {
    bench.tick(599);
    CHECK(last_start(bench, 10).work().generation() == 1);
    bench.tick(2);
    CHECK(last_start(bench, 10).work().generation() == 2);
    CHECK(last_start(bench, 10).work().checkpoint().from() == "where it began");
    REQUIRE(bench.events_of("checkpoint_rejected").size() == 1);
    bench.listed(11, {{manifest_of(10), kAll}});  // too late
    CHECK(last_start(bench, 10).work().generation() == 2);
  }
  SECTION("none is whole: where the run began") {
    bench.listed(11, {});
    CHECK(last_start(bench, 10).work().generation() == 2);
    CHECK(last_start(bench, 10).work().checkpoint().from() == "where it began");
    CHECK(last_start(bench, 10).work().checkpoint().holders_size() == 0);
  }
}

TEST_CASE("of a lost node the others hold copies", "[coordinator]") {
  SavedRun bench;
  bench.stored(10, 10, kAll);
  bench.stored(11, 10, kAll);
  const Parts all = {{manifest_of(10), {"rank_0", "rank_1", "rank_2", "rank_3"}}};
  SECTION("lost while training") {
    bench.gone(11);
    bench.ended(10);
    bench.listed(10, all);
  }
  SECTION("lost when all were asked what they hold") {
    bench.fail_and_end(2, 0);
    bench.listed(10, all);
    bench.gone(11);
  }
  bench.choose(bench.ranks_on(0));
  const control::StartGeneration start = last_start(bench, 10);
  CHECK(start.work().generation() == 2);
  CHECK(start.work().checkpoint().from() == "/checkpoints/step_10");
  CHECK(start.copy_to().empty());
}

TEST_CASE("what only a node holds that is lost before the next generation starts is looked for again",
          "[coordinator]") {
  SavedRun bench;
  bench.stored(10, 10, kAll);
  bench.stored(11, 10, kAll);
  bench.fail_and_end(2, 0);
  bench.listed(10,
               {{manifest_of(10), {"rank_0", "rank_1"}}, {manifest_of(5), {"rank_0", "rank_1", "rank_2", "rank_3"}}});
  bench.listed(11, {{manifest_of(10), {"rank_2", "rank_3"}}});
  bench.generation = 2;
  // The same again: generation 2 fails, and node 1 is lost while the plan without it is looked for.
  bench.fail_and_end(2, 0);
  bench.tick(60);  // its back-off
  bench.listed(10,
               {{manifest_of(10), {"rank_0", "rank_1"}}, {manifest_of(5), {"rank_0", "rank_1", "rank_2", "rank_3"}}});
  bench.gone(11);
  bench.choose(bench.ranks_on(0));
  bench.tick(60);
  const control::StartGeneration start = last_start(bench, 10);
  CHECK(start.work().generation() == 3);
  CHECK(start.work().checkpoint().from() == "/checkpoints/step_5");
}

TEST_CASE("a copy that could not be made is told", "[coordinator]") {
  Bench bench(2, 30, true, 10, 3);
  bench.train(2);
  control::WorkerReport report;
  report.mutable_saved()->set_step(10);
  report.mutable_saved()->set_spread(true);
  report.mutable_saved()->set_error_json("{}");
  report.mutable_saved()->set_copy_error_json(
      proto::error_to_text({ErrorCode::Unavailable, "nobody answers", "node", "", "", ""}));
  bench.worker(11, 3, report);
  REQUIRE(bench.events_of("checkpoint_not_copied").size() == 1);
  CHECK(bench.events_of("checkpoint_not_copied")[0]["rank"] == Json(3));
  CHECK(bench.events_of("checkpoint_not_copied")[0]["cause"] == Json("nobody answers"));
}

TEST_CASE("before a run begins its nodes are asked, where one alone holds no whole checkpoint", "[coordinator]") {
  Bench bench(2, 30, true, 10, 3, true);
  bench.train(2);
  bench.generation = 0;                                                 // the listing's
  CHECK(bench.sent_to(10, control::AgentCommand::kStart).size() == 1);  // measuring alone
  REQUIRE(bench.sent_to(11, control::AgentCommand::kList).size() == 1);
  bench.listed(10, {{manifest_of(10), {"rank_0", "rank_1"}}});
  SECTION("together they do") {
    bench.listed(11, {{manifest_of(10), {"rank_2", "rank_3"}}});
    const control::StartGeneration start = last_start(bench, 11);
    CHECK(start.work().generation() == 1);
    CHECK(start.work().checkpoint().from() == "/checkpoints/step_10");
    CHECK(start.work().checkpoint().holders_size() == 4);
    REQUIRE(bench.events_of("checkpoint_loaded").size() == 1);
    CHECK(bench.events_of("checkpoint_loaded")[0]["step"] == Json(10));
    bench.generation = 1;
    bench.step(10, 0, 11);
    CHECK(bench.rows.empty());
    for (int rank = 1; rank < 4; ++rank) bench.step(10 + rank / 2, rank, 11);
    CHECK(bench.rows.size() == 1);
  }
  SECTION("together neither") {
    bench.listed(11, {{manifest_of(10), {"rank_2"}}});
    CHECK(last_start(bench, 11).work().generation() == 1);
    CHECK(last_start(bench, 11).work().checkpoint().from() == "where it began");
    CHECK(bench.events_of("checkpoint_loaded").empty());
  }
  SECTION("all steps are taken") {
    bench.listed(11, {{manifest_of(100), {"rank_0", "rank_1", "rank_2", "rank_3"}}});
    REQUIRE(bench.result);
    CHECK(bench.result->error->message == "all steps are taken already");
  }
  SECTION("of another model") {
    std::string other = manifest_of(10);
    checkpoint::Manifest manifest = *checkpoint::parse_manifest(other);
    manifest.model_hash = "another";
    manifest.progress.step = 20;
    bench.listed(11, {{to_text(manifest), {"rank_0", "rank_1", "rank_2", "rank_3"}}});
    REQUIRE(bench.result);
    CHECK(bench.result->error->message == "the checkpoint is of another model");
  }
  SECTION("one is lost meanwhile") {
    bench.gone(11);
    REQUIRE(bench.result);
    CHECK(bench.result->exit_code != ExitCode::Done);
  }
}
