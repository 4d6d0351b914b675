// Ranks that lost a peer hold the state of their last step: the next generation goes on from there, and no step is
// lost.
#include "tests/launcher/coordinator_bench.h"

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

/// Each of the ranks has all of the model, of one parameter.
control::RankHeld held(int rank, std::int64_t step, int generation = 1) {
  control::RankHeld told;
  told.set_rank(rank);
  told.mutable_held()->set_generation(generation);
  told.mutable_held()->set_num_elements(3);
  told.mutable_held()->set_held_elements(3);
  control::ShardSaved& state = *told.mutable_held()->mutable_state();
  state.set_step(step);
  state.set_next_sample(8 * step);
  const checkpoint::Shard shard{"memory", Bytes(0), "", {checkpoint::whole_piece("w", {3})}};
  state.set_shard_json(to_text(checkpoint::to_json(shard)));
  return told;
}

void ended(Bench& bench, int agent, const std::vector<control::RankHeld>& states) {
  control::AgentReport report;
  report.mutable_ended()->set_generation(bench.generation);
  report.mutable_ended()->set_kept(static_cast<int>(states.size()));
  for (const control::RankHeld& state : states) *report.mutable_ended()->add_held() = state;
  bench.report(agent, report);
}

void take_steps(Bench& bench, std::int64_t first, std::int64_t last) {
  for (std::int64_t step = first; step <= last; ++step)
    for (int rank = 0; rank < 4; ++rank) bench.step(10 + rank / 2, rank, step);
}

/// Two nodes of two ranks, the last of which is killed after `steps`.
struct KilledAfter : Bench {
  explicit KilledAfter(std::int64_t steps) : Bench(2, 30, true, 10, 3) {
    train(2);
    take_steps(*this, 1, steps);
    exit(11, 3, "signal 9", false);
  }
};

const control::Work& last_work(const std::vector<control::AgentCommand>& starts) {
  return starts.back().start().work();
}

}  // namespace

TEST_CASE("a generation goes on from the step that ranks hold, and loses none", "[coordinator]") {
  KilledAfter bench(5);
  ended(bench, 10, {held(0, 5), held(1, 5)});
  CHECK_FALSE(bench.looked_for_checkpoint);
  ended(bench, 11, {held(2, 5)});
  REQUIRE(bench.known_point);
  bench.recover_in_memory();
  bench.generation = 2;
  const auto starts = bench.sent_to(10, control::AgentCommand::kStart);
  const control::CheckpointSettings& from = last_work(starts).checkpoint();
  CHECK(from.from().empty());
  CHECK(from.from_memory().generation() == 1);
  CHECK(from.from_memory().state().step() == 5);
  CHECK(from.from_memory().state().next_sample() == 40);
  CHECK(from.from_memory().state().shard_json().empty());
  const Json started = bench.events_of("generation_started").back();
  CHECK(started["from"].string() == "memory");
  CHECK(started["after_step"].integer() == 5);
  take_steps(bench, 6, 6);
  REQUIRE(bench.events_of("recovered").size() == 1);
  CHECK(bench.events_of("recovered")[0]["steps_lost"].integer() == 0);
}

TEST_CASE("a step that the lost rank did not tell of is recorded without it", "[coordinator]") {
  KilledAfter bench(5);
  bench.step(10, 0, 6);  // told after the failure was
  bench.step(10, 1, 6);
  bench.step(11, 2, 6);
  CHECK(bench.rows.back().step == 5);
  ended(bench, 10, {held(0, 6), held(1, 6)});
  ended(bench, 11, {held(2, 6)});
  CHECK(bench.rows.back().step == 6);
  CHECK(bench.rows.back().peak_memory_bytes == std::vector<std::int64_t>{100, 200, 300, 0});
  bench.recover_in_memory();
  bench.generation = 2;
  CHECK(bench.events_of("generation_started").back()["after_step"].integer() == 6);
  take_steps(bench, 7, 7);
  CHECK(bench.rows.back().step == 7);
  CHECK(bench.rows.size() == 7);
  CHECK(bench.events_of("recovered")[0]["steps_lost"].integer() == 0);
}

TEST_CASE("what ranks hold is not used where a step of it was told by nobody", "[coordinator]") {
  KilledAfter bench(5);
  ended(bench, 10, {held(0, 6), held(1, 6)});
  ended(bench, 11, {held(2, 6)});
  bench.recover("step_0", 0);
  CHECK(bench.events_of("generation_started").back()["from"].string() == "checkpoint");
}

TEST_CASE("ranks that let go at different steps go on from the newest that is whole", "[coordinator]") {
  KilledAfter bench(5);
  bench.step(10, 1, 6);
  ended(bench, 10, {held(0, 5), held(1, 6)});
  ended(bench, 11, {held(2, 5)});
  bench.recover_in_memory();
  CHECK(bench.events_of("generation_started").back()["after_step"].integer() == 6);
}

TEST_CASE("a lost node takes what it held with it, the others go on under another plan from memory", "[coordinator]") {
  Bench bench(2, 30, true, 10, 3);
  bench.train(2);
  take_steps(bench, 1, 5);
  bench.gone(11);
  ended(bench, 10, {held(0, 5), held(1, 5)});
  bench.recover_in_memory();
  SECTION("whose ranks hold it") {
    bench.choose(bench.ranks_on(0), {1});
    const Json started = bench.events_of("generation_started").back();
    CHECK(started["from"].string() == "memory");
    CHECK(started["ranks"].integer() == 2);
  }
  SECTION("whose ranks are others: from a checkpoint") {
    std::vector<RankBinding> turned = bench.ranks_on(0);
    std::swap(turned[0], turned[1]);
    bench.choose(turned, {1});
    bench.recover("step_0", 0);
    CHECK(bench.events_of("generation_started").back()["from"].string() == "checkpoint");
  }
}

TEST_CASE("a generation that began from memory and took no step is tried once more, then a checkpoint is taken",
          "[coordinator]") {
  KilledAfter bench(5);
  for (int tries = 0; tries < 2; ++tries) {
    ended(bench, 10, {held(0, 5), held(1, 5)});
    ended(bench, 11, {held(2, 5)});
    bench.recover_in_memory();
    bench.tick(2);  // the second restart is not made at once
    ++bench.generation;
    CHECK(bench.events_of("generation_started").back()["from"].string() == "memory");
    bench.exit(11, 3, "signal " + std::to_string(tries), false);
  }
  ended(bench, 10, {held(0, 5), held(1, 5)});
  ended(bench, 11, {held(2, 5)});
  bench.recover("step_0", 0);
}

TEST_CASE("a rank that held the state and died before it was used costs the way from memory, not the run",
          "[coordinator]") {
  KilledAfter bench(5);
  ended(bench, 10, {held(0, 5), held(1, 5)});
  ended(bench, 11, {held(2, 5)});
  bench.recover_in_memory();
  bench.generation = 2;
  // As a worker says it where nobody has an element.
  bench.exit(10, 0, "exit 65", false, false, ErrorCode::DataLoss);
  REQUIRE_FALSE(bench.result);
  ended(bench, 10, {});
  ended(bench, 11, {});
  bench.recover("step_0", 0);
  bench.tick(2);
  CHECK(bench.events_of("generation_started").back()["from"].string() == "checkpoint");
}

TEST_CASE("a node without ranks in the next generation lets go of what it kept", "[coordinator]") {
  Bench bench(3, 30, true, 10, 3);
  bench.train(3);
  for (int rank = 0; rank < 6; ++rank) bench.step(10 + rank / 2, rank, 1);
  bench.gone(12);
  ended(bench, 10, {held(0, 1), held(1, 1)});
  ended(bench, 11, {held(2, 1), held(3, 1)});
  bench.recover_in_memory();
  CHECK(bench.sent_to(11, control::AgentCommand::kStop).size() == 1);
  bench.choose(bench.ranks_on(0), {2});
  CHECK(bench.events_of("generation_started").back()["from"].string() == "memory");
  REQUIRE(bench.sent_to(11, control::AgentCommand::kStop).size() == 2);
  CHECK_FALSE(bench.sent_to(11, control::AgentCommand::kStop).back().stop().keeps());
  CHECK(bench.sent_to(10, control::AgentCommand::kStop).size() == 1);
}
