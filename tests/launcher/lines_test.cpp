// Who counts as silent: nobody while the one that listens stood still itself (stopped, suspended, without a processor).
// And what an agent says when.
#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "launcher/control/agent_lines.h"
#include "launcher/control/coordinator_line.h"
#include "launcher/control/mailbox.h"
#include "proto/control.pb.h"
#include "tests/support/manual_clock.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

/// Over which nothing comes, until it is cancelled.
class QuietStream final : public proto::Stream {
 public:
  bool send(std::string body) override {
    sent.push_back(std::move(body));
    return true;
  }
  std::optional<std::string> receive() override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return cancelled_; });
    return std::nullopt;
  }
  void close() override {}
  void cancel() override {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    changed_.notify_all();
  }
  [[nodiscard]] Result<void> status() const override { return {}; }
  [[nodiscard]] const std::string& run_id() const override { return run_id_; }
  [[nodiscard]] bool cancelled() const {
    const std::lock_guard lock(mutex_);
    return cancelled_;
  }

  std::vector<std::string> sent;

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool cancelled_ = false;
  std::string run_id_ = "run";
};

std::string hello() {
  control::AgentReport report;
  report.mutable_hello()->set_agent_id("agent");
  return Mailbox().notice(report.SerializeAsString());
}

/// An agent that said hello, and what the coordinator's side does in `seconds` of hearing nothing.
struct Listener {
  ManualClock clock;
  QuietStream stream;
  AgentLines lines;
  int line = lines.open(stream);

  Listener() {
    lines.beat(clock.now());
    REQUIRE(lines.receive(line, hello(), clock.now()).size() == 1);
  }
  ~Listener() { lines.close(line); }
  void beat_for(double seconds) {
    for (double passed = 0; passed < seconds; passed += limits::kHeartbeat) {
      clock.advance(Seconds(limits::kHeartbeat));
      lines.beat(clock.now());
    }
  }
  /// Agents that are taken for lost by now.
  std::size_t lost() { return lines.not_back(clock.now()).size(); }
};

}  // namespace

TEST_CASE("an agent that fell silent is lost when its connection ends") {
  Listener coordinator;
  coordinator.beat_for(2.4);
  CHECK(coordinator.stream.cancelled());
  coordinator.lines.ended(coordinator.line, coordinator.clock.now());
  CHECK(coordinator.lost() == 1);
}

TEST_CASE("an agent that cuts its connection after both stood still has time to come back") {
  Listener coordinator;
  coordinator.clock.advance(Seconds(3.0));
  coordinator.lines.ended(coordinator.line, coordinator.clock.now());
  CHECK(coordinator.lost() == 0);
  coordinator.clock.advance(Seconds(0.65));
  CHECK(coordinator.lost() == 0);
  coordinator.clock.advance(Seconds(0.1));
  CHECK(coordinator.lost() == 1);
}

TEST_CASE("an agent that said it was about to hang up has longer to come back") {
  Listener coordinator;
  coordinator.beat_for(0.9);
  coordinator.lines.receive(coordinator.line, Mailbox().notice(agent_doubts()), coordinator.clock.now());
  coordinator.beat_for(0.6);
  SECTION("and is lost if it does not") {
    coordinator.lines.ended(coordinator.line, coordinator.clock.now());
    coordinator.beat_for(4.5);
    CHECK(coordinator.lost() == 0);
    coordinator.beat_for(0.6);
    CHECK(coordinator.lost() == 1);
  }
  SECTION("but not where it heard again, and died later") {
    for (int i = 0; i < 10; ++i) {
      coordinator.beat_for(limits::kHeartbeat);
      coordinator.lines.receive(coordinator.line, Mailbox().notice(agent_heartbeat()), coordinator.clock.now());
    }
    coordinator.lines.ended(coordinator.line, coordinator.clock.now());
    coordinator.beat_for(0.9);
    CHECK(coordinator.lost() == 1);
  }
}

TEST_CASE("an agent says that it is about to hang up, once in each silence") {
  ManualClock clock;
  const auto stream = std::make_shared<QuietStream>();
  CoordinatorLine line({}, stream, "hello", [](const LineEvent&) {}, clock);
  const auto doubts = [&] {
    return std::count(stream->sent.begin(), stream->sent.end(), Mailbox().notice(agent_doubts()));
  };
  const auto pass = [&](double seconds) {
    for (double passed = 0; passed < seconds; passed += limits::kTick) {
      clock.advance(Seconds(limits::kTick));
      line.tick();
    }
  };
  pass(1.4);
  CHECK(doubts() == 0);
  pass(0.3);
  CHECK(doubts() == 1);
  CHECK_FALSE(stream->cancelled());
  static_cast<void>(line.handle({1, Mailbox().notice(coordinator_heartbeat()), nullptr, false}));
  pass(1.4);
  CHECK(doubts() == 1);
  pass(0.8);
  CHECK(doubts() == 2);
  CHECK(stream->cancelled());
}

TEST_CASE("an agent cuts a connection that is silent, not one that it did not listen to") {
  ManualClock clock;
  const auto stream = std::make_shared<QuietStream>();
  CoordinatorLine line({}, stream, "hello", [](const LineEvent&) {}, clock);
  line.tick();
  clock.advance(Seconds(3.0));
  line.tick();
  CHECK_FALSE(stream->cancelled());
  for (int tick = 0; tick < 19; ++tick) {
    clock.advance(Seconds(limits::kTick));
    line.tick();
  }
  CHECK_FALSE(stream->cancelled());
  for (int tick = 0; tick < 2; ++tick) {
    clock.advance(Seconds(limits::kTick));
    line.tick();
  }
  CHECK(stream->cancelled());
}

TEST_CASE("an agent beside the coordinator has patience with it") {
  ManualClock clock;
  const auto stream = std::make_shared<QuietStream>();
  CoordinatorLine line({"", {}, limits::kAloneSilence}, stream, "hello", [](const LineEvent&) {}, clock);
  const auto pass = [&](double seconds) {
    for (double passed = 0; passed < seconds; passed += limits::kTick) {
      clock.advance(Seconds(limits::kTick));
      line.tick();
    }
  };
  pass(19.5);
  CHECK_FALSE(stream->cancelled());
  pass(1);
  CHECK(stream->cancelled());
}

namespace {

/// A line over a stream that keeps what is sent.
struct Speaker {
  ManualClock clock;
  std::shared_ptr<QuietStream> stream = std::make_shared<QuietStream>();
  CoordinatorLine line{{}, stream, "hello", [](const LineEvent&) {}, clock};
  std::size_t seen = 1;  // the hello

  /// Bodies of each envelope that was sent since the last call.
  std::vector<std::vector<std::string>> sent() {
    std::vector<std::vector<std::string>> envelopes;
    for (; seen < stream->sent.size(); ++seen) {
      envelopes.emplace_back();
      for (auto& letter : Mailbox().open(stream->sent[seen])) envelopes.back().push_back(std::move(letter.body));
    }
    return envelopes;
  }
  void pass(double seconds) {
    clock.advance(Seconds(seconds));
    line.tick();
  }
};

using Envelopes = std::vector<std::vector<std::string>>;

}  // namespace

TEST_CASE("reports that wait leave with the next heartbeat, together, in its place") {
  Speaker speaker;
  speaker.pass(0.3);
  CHECK(speaker.sent() == Envelopes{{agent_heartbeat()}});
  speaker.line.send("one", Haste::WithNextBeat);
  speaker.pass(0.2);
  speaker.line.send("two", Haste::WithNextBeat);
  CHECK(speaker.sent().empty());
  CHECK(speaker.line.next_tick() == after(speaker.clock.now(), 0.1));
  speaker.pass(0.1);
  CHECK(speaker.sent() == Envelopes{{"one", "two"}});
  speaker.pass(0.3);
  CHECK(speaker.sent() == Envelopes{{agent_heartbeat()}});
}

TEST_CASE("a report that does not wait takes along what waits, before it") {
  Speaker speaker;
  speaker.line.send("step", Haste::WithNextBeat);
  speaker.line.send("failure");
  CHECK(speaker.sent() == Envelopes{{"step", "failure"}});
  speaker.line.send("exit");
  CHECK(speaker.sent() == Envelopes{{"exit"}});
}

TEST_CASE("what is sent says that this side lives: the next heartbeat is due 0.3 s later") {
  Speaker speaker;
  speaker.pass(0.2);
  speaker.line.send("report");
  speaker.sent();
  speaker.pass(0.2);
  CHECK(speaker.sent().empty());
  speaker.pass(0.1);
  CHECK(speaker.sent() == Envelopes{{agent_heartbeat()}});
}

TEST_CASE("a word of the coordinator does not make reports leave that wait") {
  Speaker speaker;
  speaker.line.send("step", Haste::WithNextBeat);
  CHECK(speaker.line.handle({1, Mailbox().notice("command"), nullptr, false}) == std::vector<std::string>{"command"});
  CHECK(speaker.sent().empty());
}

TEST_CASE("an agent with more to say than may be on its way goes on when some is taken, and beats meanwhile") {
  Speaker speaker;
  for (int i = 0; i < 5000; ++i) speaker.line.send("report", Haste::WithNextBeat);
  speaker.line.send("last");
  std::size_t letters = 0;
  for (const auto& envelope : speaker.sent()) letters += envelope.size();
  CHECK(letters == 4096);
  speaker.pass(0.3);
  CHECK(speaker.sent() == Envelopes{{agent_heartbeat()}});
  Mailbox coordinator;
  coordinator.took(4096);
  speaker.line.handle({1, coordinator.notice("heartbeat"), nullptr, false});
  CHECK(speaker.sent().back().back() == "last");
}
