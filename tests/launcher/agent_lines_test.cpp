// Agents that hang up, fall silent and come back, as the coordinator hears them.
#include "launcher/control/agent_lines.h"

#include "proto/control.pb.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

class FakeStream final : public proto::Stream {
 public:
  bool send(std::string body) override {
    sent.push_back(std::move(body));
    return true;
  }
  std::optional<std::string> receive() override { return std::nullopt; }
  void close() override {}
  void cancel() override { cancelled = true; }
  [[nodiscard]] Result<void> status() const override { return {}; }
  [[nodiscard]] const std::string& run_id() const override { return run_id_; }

  std::vector<std::string> sent;
  bool cancelled = false;

 private:
  std::string run_id_ = "run";
};

/// One agent, over one connection after the other.
struct Wire {
  explicit Wire(double silence_seconds = limits::kSilence) : lines(silence_seconds) {}

  AgentLines lines;
  Mailbox agent;
  std::deque<FakeStream> streams;
  int line = -1;
  TimePoint now{};

  /// Whether the agent is a new one; what its hello brought is safe at once.
  bool connect() {
    control::AgentReport report;
    report.mutable_hello()->set_agent_id("one");
    streams.emplace_back();
    line = lines.open(streams.back());
    const auto inputs = lines.receive(line, agent.notice(report.SerializeAsString()), now);
    for (const Input& input : inputs) lines.took(input);
    return !inputs.empty();
  }
  void beat_for(double seconds) {
    for (double passed = 0; passed < seconds; passed += limits::kHeartbeat) {
      now = after(now, limits::kHeartbeat);
      lines.beat(now);
    }
  }
  void hang_up() {
    lines.close(line);
    lines.ended(line, now);
  }
  /// The last command over the newest connection.
  [[nodiscard]] control::AgentCommand last() {
    control::AgentCommand command;
    const auto letters = Mailbox().open(streams.back().sent.back());
    REQUIRE(letters.size() == 1);
    REQUIRE(command.ParseFromString(letters[0].body));
    return command;
  }
};

}  // namespace

TEST_CASE("an agent whose connection breaks has a moment to come back, a silent one had it", "[agent_lines]") {
  Wire wire;
  REQUIRE(wire.connect());
  SECTION("it breaks") {
    wire.hang_up();
    CHECK(wire.lines.not_back(after(wire.now, 0.6)).empty());
    const auto gone = wire.lines.not_back(after(wire.now, 0.8));
    REQUIRE(gone.size() == 1);
    CHECK(gone[0].body == "its agent died");
    CHECK(wire.lines.not_back(after(wire.now, 0.9)).empty());  // told once
  }
  SECTION("it comes back") {
    wire.hang_up();
    CHECK_FALSE(wire.connect());
    CHECK(wire.lines.not_back(after(wire.now, 1)).empty());
  }
  SECTION("it is silent") {
    wire.beat_for(2.3);
    CHECK(wire.streams.back().cancelled);
    wire.hang_up();
    const auto gone = wire.lines.not_back(wire.now);
    REQUIRE(gone.size() == 1);
    CHECK(gone[0].body == "its agent fell silent");
  }
}

TEST_CASE("the only agent is silent when it was for longer", "[agent_lines]") {
  Wire wire(limits::kAloneSilence);
  REQUIRE(wire.connect());
  wire.beat_for(limits::kAloneSilence - 1);
  CHECK_FALSE(wire.streams.back().cancelled);
  wire.beat_for(2);
  CHECK(wire.streams.back().cancelled);
}

TEST_CASE("an agent that hung up because this process stood still is not silent", "[agent_lines]") {
  Wire wire;
  REQUIRE(wire.connect());
  wire.beat_for(0.6);
  const bool before = GENERATE(true, false);
  if (before) wire.hang_up();  // its connection had broken
  wire.now = after(wire.now, 2.5);
  if (!before) wire.hang_up();  // seen before anything else
  wire.lines.beat(wire.now);
  CHECK(wire.lines.not_back(wire.now).empty());
  CHECK_FALSE(wire.connect());
  CHECK(wire.lines.not_back(after(wire.now, 1)).empty());
}

TEST_CASE("an agent that is back just after it was given up is told that it is lost", "[agent_lines]") {
  Wire wire;
  REQUIRE(wire.connect());
  wire.hang_up();
  wire.now = after(wire.now, 0.8);
  const auto gone = wire.lines.not_back(wire.now);
  REQUIRE(gone.size() == 1);
  CHECK_FALSE(wire.connect());  // before that is written down
  wire.lines.took(gone[0]);
  REQUIRE(wire.last().has_over());
  CHECK(wire.last().over().exit_code() == 1);
  // What it says on that connection is heard no more, and it is told again on the next one.
  wire.agent.add(agent_error_report({ErrorCode::Unknown, "x", "", "", "", ""}));
  CHECK(wire.lines.receive(wire.line, *wire.agent.next(), wire.now).empty());
  CHECK_FALSE(wire.connect());
  CHECK(wire.last().has_over());
}

TEST_CASE("reports of one envelope become inputs of their own, in order, each once", "[agent_lines]") {
  Wire wire;
  REQUIRE(wire.connect());
  const auto step = [](std::int64_t number) {
    control::AgentReport report;
    report.mutable_worker()->mutable_report()->mutable_step()->set_step(number);
    return report.SerializeAsString();
  };
  wire.agent.add(step(7));
  wire.agent.add(agent_error_report({ErrorCode::Unknown, "x", "", "", "", ""}));
  wire.agent.add(step(8));
  const std::string envelope = *wire.agent.next();
  CHECK_FALSE(wire.agent.next());
  const auto inputs = wire.lines.receive(wire.line, envelope, wire.now);
  REQUIRE(inputs.size() == 3);
  const std::int64_t steps[] = {7, 0, 8};
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(inputs[i].number == i + 1);
    CHECK(inputs[i].step == steps[i]);
  }
  CHECK(wire.lines.receive(wire.line, envelope, wire.now).empty());  // though not yet safe
  // A connection later the agent sends again what was not safe, and what came after it.
  wire.lines.took(inputs[0]);
  wire.hang_up();
  CHECK_FALSE(wire.connect());
  wire.agent.send_again();
  wire.agent.add(step(9));
  const auto rest = wire.lines.receive(wire.line, *wire.agent.next(), wire.now);
  REQUIRE(rest.size() == 1);
  CHECK(rest[0].number == 4);
  CHECK(rest[0].step == 9);
}
