// A worker's end of its stream, when its generation is given up and another one follows.
#include "worker/service/agent_link.h"

#include <atomic>

#include "launcher/control/event_queue.h"
#include "proto/control.pb.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::worker;

namespace {

const std::string kKey = "key";

Deadline soon() { return Deadline::after(steady_clock(), Seconds(20)); }
Deadline now() { return Deadline::after(steady_clock(), Seconds(0)); }

/// An agent with one worker; what it says goes out in order, then it hangs up.
class FakeAgent {
 public:
  explicit FakeAgent(std::vector<control::WorkerCommand> first)
      : server_(std::move(*proto::start_server({"127.0.0.1:0", proto::Service::Agent, {kKey, false}, "run"},
                                               [this, first](proto::Stream& stream) { serve(stream, first); }))) {}
  [[nodiscard]] std::string target() const { return "127.0.0.1:" + std::to_string(server_->port()); }
  /// After the worker said that it is parked.
  void then(std::vector<control::WorkerCommand> commands) { second_ = std::move(commands); }
  void hang_up() { server_->stop(); }

 private:
  void serve(proto::Stream& stream, const std::vector<control::WorkerCommand>& first) {
    for (const auto& command : first) stream.send(command.SerializeAsString());
    while (const auto body = stream.receive()) {
      control::WorkerReport report;
      report.ParseFromString(*body);
      if (!report.has_parked()) continue;
      for (const auto& command : second_) stream.send(command.SerializeAsString());
    }
  }
  std::vector<control::WorkerCommand> second_;
  std::unique_ptr<proto::Server> server_;
};

control::WorkerCommand assignment_of(int generation) {
  control::WorkerCommand command;
  command.mutable_assignment()->mutable_work()->set_generation(generation);
  return command;
}
control::WorkerCommand abort_command() {
  control::WorkerCommand command;
  command.set_abort("rank 1 failed");
  return command;
}
control::WorkerCommand save_command() {
  control::WorkerCommand command;
  command.mutable_save()->set_stop(true);
  return command;
}
control::WorkerCommand addresses_command() {
  control::WorkerCommand command;
  command.mutable_addresses()->add_addresses("a");
  return command;
}
int generation_of(const std::string& body) {
  control::WorkerCommand command;
  command.ParseFromString(body);
  return command.assignment().work().generation();
}

}  // namespace

TEST_CASE("a rank whose generation is given up takes another assignment, and nothing that was said before it",
          "[agent_link]") {
  FakeAgent agent({assignment_of(1), addresses_command(), abort_command(), save_command()});
  // Late words of the generation that is given up come before the next assignment.
  agent.then({abort_command(), save_command(), addresses_command(), assignment_of(2)});
  auto link = AgentLink::connect(agent.target(), kKey, 0, soon());
  REQUIRE(link);
  CHECK(generation_of(*(*link)->wait_assignment(soon())) == 1);
  REQUIRE((*link)->wait_abort(soon()));
  CHECK((*link)->aborted());
  (*link)->park();
  CHECK_FALSE((*link)->aborted());
  control::WorkerReport parked;
  parked.mutable_parked();
  (*link)->report(parked);
  const auto next = (*link)->wait_assignment(soon());
  REQUIRE(next);
  CHECK(generation_of(*next) == 2);
  CHECK_FALSE((*link)->aborted());
  CHECK_FALSE((*link)->take_save());
  CHECK_FALSE((*link)->stop_asked());
  CHECK((*link)->wait_addresses(now()).error().code == ErrorCode::DeadlineExceeded);
}

TEST_CASE("what follows the next assignment counts", "[agent_link]") {
  FakeAgent agent({assignment_of(1), abort_command()});
  agent.then({assignment_of(2), abort_command()});
  auto link = AgentLink::connect(agent.target(), kKey, 0, soon());
  REQUIRE(link);
  REQUIRE((*link)->wait_abort(soon()));
  (*link)->park();
  control::WorkerReport parked;
  parked.mutable_parked();
  (*link)->report(parked);
  REQUIRE((*link)->wait_assignment(soon()));
  CHECK((*link)->wait_abort(soon()));
}

TEST_CASE("nobody stays for an agent that is gone, or that gives nothing up", "[agent_link]") {
  FakeAgent agent({assignment_of(1)});
  auto link = AgentLink::connect(agent.target(), kKey, 0, soon());
  REQUIRE(link);
  REQUIRE((*link)->wait_assignment(soon()));
  CHECK_FALSE((*link)->wait_abort(now()));
  agent.hang_up();
  CHECK_FALSE((*link)->wait_abort(soon()));
  CHECK((*link)->aborted());  // collectives end
}
