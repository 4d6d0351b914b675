#include "bench/support/heartbeat_round.h"

#include <memory>
#include <string>

#include "common/clock.h"
#include "common/ensure.h"
#include "launcher/control/agent_lines.h"
#include "launcher/control/coordinator.h"
#include "proto/control.pb.h"

namespace coxswain::bench {
namespace {

/// Takes what is sent, as a network does.
class Sink final : public proto::Stream {
 public:
  bool send(std::string body) override {
    bytes_ += body.size();
    return true;
  }
  std::optional<std::string> receive() override { return std::nullopt; }
  void close() override {}
  void cancel() override { cancelled_ = true; }
  [[nodiscard]] Result<void> status() const override { return {}; }
  [[nodiscard]] const std::string& run_id() const override { return run_id_; }
  [[nodiscard]] bool cancelled() const { return cancelled_; }

 private:
  std::string run_id_ = "run";
  std::size_t bytes_ = 0;
  bool cancelled_ = false;
};

std::string hello_of(int node) {
  control::AgentReport report;
  control::AgentHello& hello = *report.mutable_hello();
  hello.set_agent_id("agent" + std::to_string(node));
  hello.set_node_rank(node);
  hello.set_host("host" + std::to_string(node));
  control::Device& device = *hello.add_devices();
  device.set_kind("cpu");
  device.set_cores(1);
  device.set_name("model");
  device.set_memory_bytes(1 << 29);
  return report.SerializeAsString();
}

/// A run of many nodes, from its agents' hellos to its first generation.
class LargeRun {
 public:
  explicit LargeRun(int num_nodes) : core_(settings(num_nodes)), sinks_(static_cast<std::size_t>(num_nodes)) {
    const launcher::Mailbox agent;
    for (int node = 0; node < num_nodes; ++node) {
      const int line = lines_.open(sinks_[static_cast<std::size_t>(node)]);
      const auto inputs = lines_.receive(line, agent.notice(hello_of(node)), now_);
      COX_ENSURE(inputs.size() == 1);
      lines_.took(inputs[0]);
      take(core_.agent_report(inputs[0].agent, inputs[0].body, now_));
    }
    launcher::ChosenPlan plan;
    plan.ranks = core_.measurements().ranks;
    plan.steps = 1000;
    take(core_.plan_chosen(plan, now_));
    COX_ENSURE(core_.generation() == 1);
    heartbeat_ = agent.notice(launcher::agent_heartbeat());
  }

  Seconds round() {
    now_ = launcher::after(now_, limits::kHeartbeat);
    const TimePoint begin = steady_clock().now();
    lines_.beat(now_);
    for (int line = 0; line < static_cast<int>(sinks_.size()); ++line) {
      const auto inputs = lines_.receive(line, heartbeat_, now_);
      COX_ENSURE(inputs.empty());
    }
    COX_ENSURE(lines_.not_back(now_).empty());
    take(core_.tick(now_));
    return Seconds(std::chrono::duration<double>(steady_clock().now() - begin).count());
  }

 private:
  static launcher::CoordinatorSettings settings(int num_nodes) {
    launcher::CoordinatorSettings made;
    made.num_nodes = num_nodes;
    made.run_id = "run";
    made.backend = "host";
    made.measures = false;
    return made;
  }
  void take(std::vector<launcher::Decision> decisions) {
    for (launcher::Decision& decision : decisions) {
      if (auto* send = std::get_if<launcher::SendCommand>(&decision))
        lines_.send({send->agent}, std::move(send->body));
      else if (auto* to_all = std::get_if<launcher::SendToAll>(&decision))
        lines_.send(to_all->agents, std::move(to_all->body));
    }
  }

  launcher::Coordinator core_;
  launcher::AgentLines lines_;
  std::vector<Sink> sinks_;
  std::string heartbeat_;
  TimePoint now_{};
};

}  // namespace

std::vector<Seconds> measure_heartbeat_rounds(int num_nodes, int num_rounds) {
  LargeRun run(num_nodes);
  std::vector<Seconds> rounds;
  for (int i = 0; i < num_rounds; ++i) rounds.push_back(run.round());
  return rounds;
}

}  // namespace coxswain::bench
