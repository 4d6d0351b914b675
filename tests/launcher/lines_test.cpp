// Who counts as silent: nobody while the one that listens stood still itself (stopped, suspended, without a processor).
#include <condition_variable>
#include <mutex>
#include <thread>

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
  bool send(std::string) override { return true; }
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
    REQUIRE(lines.receive(line, hello(), clock.now()));
  }
  ~Listener() { lines.close(line); }
  void beat_for(double seconds) {
    for (double passed = 0; passed < seconds; passed += kHeartbeatSeconds) {
      clock.advance(Seconds(kHeartbeatSeconds));
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

TEST_CASE("an agent cuts a connection that is silent, not one that it did not listen to") {
  ManualClock clock;
  const auto stream = std::make_shared<QuietStream>();
  CoordinatorLine line({}, stream, "hello", [](const LineEvent&) {}, clock);
  line.tick();
  clock.advance(Seconds(3.0));
  line.tick();
  CHECK_FALSE(stream->cancelled());
  for (int tick = 0; tick < 19; ++tick) {
    clock.advance(Seconds(kTickSeconds));
    line.tick();
  }
  CHECK_FALSE(stream->cancelled());
  for (int tick = 0; tick < 2; ++tick) {
    clock.advance(Seconds(kTickSeconds));
    line.tick();
  }
  CHECK(stream->cancelled());
}
