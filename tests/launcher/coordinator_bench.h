#pragma once
// A coordinator with agents that answer as told. Used by the tests of coordinator.
#include "launcher/control/coordinator.h"
#include "proto/control.pb.h"
#include "proto/error_json.h"
#include "tests/support/manual_clock.h"

#include <catch2/catch.hpp>

namespace coxswain::launcher {

/// Keeps what was decided.
class Bench {
 public:
  explicit Bench(int num_nodes, double shutdown_timeout = 30, bool saves = false, std::int64_t save_every = 0,
                 int max_restarts = 0, bool asks_nodes = false, int max_nodes = 0)
      : core_(settings(num_nodes, shutdown_timeout, saves, save_every, max_restarts, asks_nodes, max_nodes)) {}

  void join(int agent, int num_devices, int node_rank = -1, const std::string& host = "") {
    control::AgentReport report;
    auto& hello = *report.mutable_hello();
    hello.set_node_rank(node_rank);
    hello.set_host(host.empty() ? "host" + std::to_string(agent) : host);
    hello.set_files_address("files of " + std::to_string(agent));
    hello.set_cores(2);
    hello.set_memory_bytes(1 << 30);
    for (int i = 0; i < num_devices; ++i) {
      auto& device = *hello.add_devices();
      device.set_kind("cpu");
      device.set_cores(1.0);
      device.set_name("model");
      device.set_memory_bytes(1 << 29);
    }
    take(core_.agent_report(agent, report.SerializeAsString(), clock.now()));
  }
  void report(int agent, const control::AgentReport& report) {
    take(core_.agent_report(agent, report.SerializeAsString(), clock.now()));
  }
  void worker(int agent, int rank, const control::WorkerReport& worker_report) {
    control::AgentReport report;
    report.mutable_worker()->set_rank(rank);
    report.mutable_worker()->set_generation(generation);
    *report.mutable_worker()->mutable_report() = worker_report;
    take(core_.agent_report(agent, report.SerializeAsString(), clock.now()));
  }
  void measured(int agent, int rank) {
    control::WorkerReport report;
    report.mutable_measured()->set_memory_bytes_per_second(1);
    worker(agent, rank, report);
    finished(agent, rank);
  }
  void finished(int agent, int rank) {
    control::WorkerReport report;
    report.mutable_finished();
    worker(agent, rank, report);
  }
  void step(int agent, int rank, std::int64_t number, double seconds = 0.01) {
    control::WorkerReport report;
    report.mutable_step()->set_step(number);
    report.mutable_step()->set_loss(2.5);
    report.mutable_step()->set_step_seconds(seconds);
    report.mutable_step()->set_bubble_fraction(0.1 * (rank + 1));
    report.mutable_step()->set_peak_memory_bytes(100 * (rank + 1));
    worker(agent, rank, report);
  }
  void saved(int agent, int rank, std::int64_t step, double copy_seconds = 0.5, const std::string& error = "") {
    control::WorkerReport report;
    control::ShardSaved& saved = *report.mutable_saved();
    saved.set_step(step);
    saved.set_next_sample(8 * step);
    saved.set_copy_seconds(copy_seconds);
    saved.set_write_seconds(4);
    const checkpoint::Shard shard{
        "rank_" + std::to_string(rank), Bytes(1), "sum", {checkpoint::whole_piece("p" + std::to_string(rank), {2})}};
    saved.set_spread(spread);
    if (error.empty())
      saved.set_shard_json(to_text(checkpoint::to_json(shard)));
    else
      saved.set_error_json(proto::error_to_text({ErrorCode::FailedPrecondition, error, "disk", "", "", ""}));
    worker(agent, rank, report);
  }
  /// The agent's answers where nodes share no disk.
  void stored(int agent, std::int64_t step, const std::vector<std::string>& files, const std::string& error = "") {
    control::AgentReport report;
    report.mutable_stored()->set_step(step);
    for (const std::string& file : files) report.mutable_stored()->add_files(file);
    if (!error.empty())
      report.mutable_stored()->set_error_json(
          proto::error_to_text({ErrorCode::FailedPrecondition, error, "disk", "", "", ""}));
    take(core_.agent_report(agent, report.SerializeAsString(), clock.now()));
  }
  void listed(int agent, const std::vector<std::pair<std::string, std::vector<std::string>>>& parts) {
    control::AgentReport report;
    report.mutable_listed()->set_generation(generation);
    for (const auto& [manifest, files] : parts) {
      control::CheckpointPart& part = *report.mutable_listed()->add_parts();
      part.set_manifest(manifest);
      for (const std::string& file : files) part.add_files(file);
    }
    take(core_.agent_report(agent, report.SerializeAsString(), clock.now()));
  }
  void published(std::int64_t step, std::optional<Error> error = {}) {
    take(core_.checkpoint_published(step, std::move(error), clock.now()));
  }
  void recover(const std::string& folder, std::int64_t step) {
    REQUIRE(looked_for_checkpoint);
    looked_for_checkpoint = false;
    take(core_.recovery_found({folder, step, {}}, clock.now()));
  }
  void recover_in_memory() {
    REQUIRE(known_point);
    const RecoveryPoint point = *std::exchange(known_point, std::nullopt);
    take(core_.recovery_found(point, clock.now()));
  }
  /// A rank dies, and its agents let the generation go.
  void fail_and_end(int num_nodes, int rank, const std::string& cause = "signal 9") {
    exit(10 + rank / 2, rank, cause, false);
    for (int n = 0; n < num_nodes; ++n) ended(10 + n);
  }
  void failure_report(int agent, int rank, ErrorCode code, bool peer_lost) {
    control::WorkerReport report;
    report.mutable_failure()->set_error_json(
        proto::error_to_text({code, "rank " + std::to_string(rank) + " says", "", "", "", ""}));
    report.mutable_failure()->set_peer_lost(peer_lost);
    worker(agent, rank, report);
  }
  void exit(int agent, int rank, const std::string& cause, bool clean, bool peer_lost = false,
            ErrorCode said = ErrorCode::Unknown) {
    control::AgentReport report;
    auto& exit = *report.mutable_exit();
    exit.set_generation(generation);
    exit.set_rank(rank);
    exit.set_cause(cause);
    exit.set_clean(clean);
    exit.set_peer_lost(peer_lost);
    if (said != ErrorCode::Unknown)
      exit.set_error_json(proto::error_to_text({said, "rank " + std::to_string(rank) + " says", "", "", "", ""}));
    exit.set_evidence("last words of " + std::to_string(rank));
    exit.set_log("logs/" + std::to_string(rank) + "/stderr");
    take(core_.agent_report(agent, report.SerializeAsString(), clock.now()));
  }
  void ended(int agent) {
    control::AgentReport report;
    report.mutable_ended()->set_generation(generation);
    take(core_.agent_report(agent, report.SerializeAsString(), clock.now()));
  }
  void gone(int agent) { take(core_.agent_gone(agent, "its agent died", clock.now())); }
  void tick(double seconds) {
    clock.advance(Seconds(seconds));
    take(core_.tick(clock.now()));
  }
  void restart() { take(core_.restarted(clock.now())); }
  void stop(int signal) { take(core_.stop_requested(signal, clock.now())); }

  /// Agents 10, 11, ... with two devices each, measured, and a plan over all of them.
  void train(int num_nodes) {
    for (int n = 0; n < num_nodes; ++n) join(10 + n, 2);
    for (int r = 0; r < 2 * num_nodes; ++r) measured(10 + r / 2, r);
    for (int n = 0; n < num_nodes; ++n) ended(10 + n);
    generation = 1;
    choose(core_.measurements().ranks);
  }
  /// Answers the request for a plan.
  void choose(std::vector<RankBinding> ranks, std::vector<int> without = {}, int known_nodes = 0) {
    REQUIRE(asked_for_plan);
    asked_for_plan = false;
    ChosenPlan plan;
    plan.plan_json = "{}";
    plan.steps = 100;
    plan.longest_action_seconds = longest_action;
    plan.step_seconds = step_seconds;
    plan.ranks = std::move(ranks);
    plan.without = std::move(without);
    plan.known_nodes = known_nodes;
    plan.looked_at = looked_at;
    take(core_.plan_chosen(plan, clock.now()));
  }
  /// `ranks`: of a plan that does more; empty: there is none.
  void calibrate(int of_generation, const JsonArray& findings, std::vector<RankBinding> ranks) {
    std::optional<ChosenPlan> plan;
    if (!ranks.empty()) {
      plan.emplace();
      plan->plan_json = "{\"better\":true}";
      plan->steps = 100;
      plan->looked_at = looked_at;
      plan->ranks = std::move(ranks);
    }
    take(core_.calibrated(of_generation, findings, plan, clock.now()));
  }
  void no_plan(Error error) { take(core_.plan_failed(std::move(error), clock.now())); }
  /// Of measured ranks, those on `node`.
  [[nodiscard]] std::vector<RankBinding> ranks_on(int node) {
    std::vector<RankBinding> ranks;
    for (const RankBinding& rank : core_.measurements().ranks) {
      if (rank.node == node) ranks.push_back(rank);
    }
    return ranks;
  }

  [[nodiscard]] std::vector<control::AgentCommand> sent_to(int agent, control::AgentCommand::KindCase kind) const {
    std::vector<control::AgentCommand> found;
    for (const auto& [to, command] : commands) {
      if (to == agent && command.kind_case() == kind) found.push_back(command);
    }
    return found;
  }
  [[nodiscard]] std::vector<Json> events_of(const std::string& type) const {
    std::vector<Json> found;
    for (const Json& event : events) {
      if (event["type"].string() == type) found.push_back(event);
    }
    return found;
  }

  ManualClock clock;
  int generation = 0;
  double longest_action = 0.1, step_seconds = 0;
  bool spread = false;  // nodes share no disk
  bool looked_at = false;
  bool asked_for_plan = false, looked_for_checkpoint = false;
  std::optional<RecoveryPoint> known_point;  // where it goes on, without a look for a checkpoint
  std::vector<std::pair<int, control::AgentCommand>> commands;
  std::vector<Json> events;
  std::vector<StepRow> rows;
  std::vector<PublishCheckpoint> publications;
  std::optional<RunEnded> result;
  Coordinator& core() { return core_; }

 private:
  static CoordinatorSettings settings(int num_nodes, double shutdown_timeout, bool saves, std::int64_t save_every,
                                      int max_restarts, bool asks_nodes, int max_nodes) {
    CoordinatorSettings made;
    made.num_nodes = num_nodes;
    made.max_nodes = max_nodes;
    made.run_id = "run";
    made.shutdown_timeout_seconds = shutdown_timeout;
    made.saves = saves;
    made.save_every = save_every;
    made.keep = 3;
    made.max_restarts = max_restarts;
    made.asks_nodes = asks_nodes;
    made.model_hash = "m";
    made.resume_hint = "go on";
    control::Work work;
    work.mutable_checkpoint()->set_directory("/checkpoints");
    work.mutable_checkpoint()->set_from("where it began");
    made.train_work = work.SerializeAsString();
    return made;
  }
  void take(std::vector<Decision> decisions) {
    for (Decision& decision : decisions) {
      if (auto* send = std::get_if<SendCommand>(&decision)) {
        control::AgentCommand command;
        REQUIRE(command.ParseFromString(send->body));
        commands.emplace_back(send->agent, command);
      }
      if (auto* send = std::get_if<SendToAll>(&decision)) {
        control::AgentCommand command;
        REQUIRE(command.ParseFromString(send->body));
        for (const int agent : send->agents) commands.emplace_back(agent, command);
      }
      if (std::holds_alternative<ChoosePlan>(decision)) asked_for_plan = true;
      if (auto* find = std::get_if<FindCheckpoint>(&decision)) {
        known_point = find->known;
        looked_for_checkpoint = !known_point;
      }
      if (auto* event = std::get_if<RecordEvent>(&decision)) events.push_back(event->event);
      if (auto* row = std::get_if<RecordStep>(&decision)) rows.push_back(row->row);
      if (auto* publication = std::get_if<PublishCheckpoint>(&decision)) publications.push_back(*publication);
      if (auto* ended = std::get_if<RunEnded>(&decision)) result = *ended;
    }
  }

  Coordinator core_;
};

}  // namespace coxswain::launcher
