#include "cost_model/simulator.h"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <utility>

#include "common/ensure.h"
#include "cost_model/mesh_times.h"
#include "cost_model/split_roles.h"
#include "cost_model/virtual_network.h"
#include "executor/executor.h"
#include "plan/zero.h"

namespace coxswain::cost_model {
namespace {

using collective::CollectiveKind;
using collective::Handle;

class World;

/// Completion of one virtual operation.
class VirtualState final : public Handle::State {
 public:
  VirtualState(VirtualNetwork& network, int operation) : network_(network), operation_(operation) {}
  bool done() const override { return network_.operation(operation_).done; }
  Result<void> wait(Deadline) override { return {}; }

 private:
  VirtualNetwork& network_;
  int operation_;
};

/// The seams of one role's representative: computes in virtual time and says what each communication moves.
class VirtualCompute final : public executor::Compute {
 public:
  VirtualCompute(World& world, int role) : world_(world), role_(role) {}
  Result<void> start(const plan::Action& action) override;
  Result<bool> finished() override;
  Result<executor::Communication> prepare(const plan::Action& action) override;
  Result<void> finish(const plan::Action&) override { return {}; }

 private:
  World& world_;
  int role_;
};

/// One group seen by one role.
class VirtualCommunicator final : public collective::Communicator {
 public:
  VirtualCommunicator(World& world, int role, int group, int rank, int size)
      : world_(world), role_(role), group_(group), rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const collective::Capabilities& capabilities() const override {
    static const collective::Capabilities kCapabilities{"virtual", false, false, false, {}};
    return kCapabilities;
  }
  Handle all_reduce(collective::BufferView buffer, collective::ReduceOp, Deadline) override {
    return issue(CollectiveKind::AllReduce, buffer.bytes());
  }
  Handle all_gather(collective::BufferView, collective::BufferView output, std::vector<std::int64_t>,
                    Deadline) override {
    return issue(CollectiveKind::AllGather, output.bytes());
  }
  Handle reduce_scatter(collective::BufferView input, collective::BufferView, std::vector<std::int64_t>,
                        collective::ReduceOp, Deadline) override {
    return issue(CollectiveKind::ReduceScatter, input.bytes());
  }
  Handle all_to_all(collective::BufferView input, collective::BufferView, std::vector<std::int64_t>,
                    std::vector<std::int64_t>, Deadline) override {
    return issue(CollectiveKind::AllToAll, input.bytes());
  }
  Handle broadcast(collective::BufferView buffer, int, Deadline) override {
    return issue(CollectiveKind::Broadcast, buffer.bytes());
  }
  Handle exchange(std::vector<collective::PointToPoint> operations, Deadline) override;
  Handle barrier(Deadline) override { return issue(CollectiveKind::Barrier, Bytes(0)); }
  Result<std::unique_ptr<Communicator>> split(std::vector<int>, Deadline) override {
    return Error{ErrorCode::Unimplemented, "groups are fixed in virtual time", "", "", "", ""};
  }
  Result<std::shared_ptr<void>> allocate_registered(Bytes) override { return std::shared_ptr<void>(); }
  void abort(std::string) override {}

 private:
  Handle issue(CollectiveKind kind, Bytes payload);
  World& world_;
  int role_, group_, rank_, size_;
};

/// A communication that takes compute time from its rank while it lasts (C19).
struct Copying {
  Ticks end = 0;
  double share = 0;
};

/// The representative of one role.
struct VirtualRank {
  plan::RankProgram program;
  std::unique_ptr<ActionTimes> times;
  std::unique_ptr<VirtualCompute> compute;
  std::vector<std::unique_ptr<VirtualCommunicator>> communicators;
  std::unique_ptr<executor::Executor> executor;
  bool cpu = false;
  int running = -1;   // compute action
  int prepared = -1;  // communication action being issued
  Ticks compute_end = 0;
  std::int64_t version = 0;
  std::vector<Copying> copying;
  std::vector<ActionRun> runs;
  std::map<std::pair<int, int>, executor::Communication> exchanges;  // by kind of edge action and chunk

  /// `action` is an element of the program's list.
  int index_of(const plan::Action& action) const {
    const auto index = &action - program.actions.data();
    COX_ENSURE(0 <= index && index < static_cast<std::ptrdiff_t>(program.actions.size()), index);
    return static_cast<int>(index);
  }
};

class World {
 public:
  World(const CostModel& cost, const plan::Plan& plan)
      : cost_(cost),
        plan_(plan),
        groups_(plan::make_groups(plan, cost.facts().uses())),
        tied_(plan::tied_parameters(plan, cost.facts().uses())),
        network_(cost, plan, groups_, clock_, [this](int operation) { communication_started(operation); }) {
    for (std::size_t role = 0; role < plan.roles.size(); ++role) ranks_.push_back(make_rank(static_cast<int>(role)));
  }

  Result<VirtualRun> run() {
    for (std::size_t role = 0; role < ranks_.size(); ++role) COX_TRY_VOID(advance(static_cast<int>(role)));
    while (!events_.empty()) {
      clock_.advance_to(events_.next_time());
      COX_TRY_VOID(handle(events_.pop()));
    }
    VirtualRun result;
    for (std::size_t role = 0; role < ranks_.size(); ++role) {
      if (!ranks_[role]->executor->done()) {
        return Error{ErrorCode::Internal,
                     "the plan stands still in virtual time",
                     "roles[" + std::to_string(role) + "]",
                     "every action finished",
                     "a deadlock",
                     "run launch validate on the plan"};
      }
      result.roles.push_back(std::move(ranks_[role]->runs));
    }
    for (const VirtualOperation& operation : network_.operations()) {
      ActionRun& run =
          result.roles[static_cast<std::size_t>(operation.role)][static_cast<std::size_t>(operation.action)];
      run.start = operation.issued;
      run.transfer_start = operation.start;
      run.end = operation.end;
    }
    for (const auto& runs : result.roles) {
      for (const ActionRun& run : runs) result.makespan = std::max(result.makespan, run.end);
    }
    return result;
  }

  void start_compute(int role, const plan::Action& action) {
    VirtualRank& rank = *ranks_[static_cast<std::size_t>(role)];
    rank.running = rank.index_of(action);
    ActionRun& run = rank.runs[static_cast<std::size_t>(rank.running)];
    run.is_compute = true;
    run.nominal = rank.times->compute(action);
    run.start = clock_.ticks();
    const Ticks nominal = run.nominal.total();
    Ticks lost = 0;
    std::erase_if(rank.copying, [&](const Copying& copying) { return copying.end <= clock_.ticks(); });
    for (const Copying& copying : rank.copying) {
      lost += static_cast<Ticks>(copying.share * static_cast<double>(std::min(nominal, copying.end - clock_.ticks())));
    }
    set_compute_end(role, clock_.ticks() + nominal + lost);
  }

  bool compute_running(int role) const { return ranks_[static_cast<std::size_t>(role)]->running >= 0; }

  executor::Communication prepare(int role, const plan::Action& action) {
    VirtualRank& rank = *ranks_[static_cast<std::size_t>(role)];
    rank.prepared = rank.index_of(action);
    executor::Communication communication;
    if (priced_elsewhere(action)) {
      ActionRun& run = rank.runs[static_cast<std::size_t>(rank.prepared)];
      run.start = run.transfer_start = run.end = clock_.ticks();
      return communication;
    }
    if (plan::is_edge(action.kind)) {
      // Alike for every micro-batch.
      executor::Communication& known = rank.exchanges[{static_cast<int>(action.kind), action.chunk}];
      if (known.group < 0) known = make_exchange(rank, action);
      return known;
    }
    communication.group = group_of(rank, action);
    communication.kind = executor::Communication::Kind::AllReduce;
    communication.buffer = {nullptr, rank.times->elements(action), DType::Float32};
    return communication;
  }

  Handle issue_collective(int role, int group, CollectiveKind kind, Bytes payload) {
    const plan::Action& action =
        ranks_[static_cast<std::size_t>(role)]
            ->program.actions[static_cast<std::size_t>(ranks_[static_cast<std::size_t>(role)]->prepared)];
    // C26: under ZeRO a bucket is only scattered; the other half of an all_reduce follows the update.
    if (action.kind == plan::ActionKind::ReduceGradient || action.kind == plan::ActionKind::ReduceReused) {
      const int stage = plan_.roles[static_cast<std::size_t>(role)].stage;
      kind = bucket_collective(plan::zero_of(plan_.stages[static_cast<std::size_t>(stage)]));
    }
    return handle_of(
        network_.issue_collective(role, ranks_[static_cast<std::size_t>(role)]->prepared, group, kind, payload));
  }

  Handle issue_exchange(int role, int group, const std::vector<collective::PointToPoint>& transfers) {
    return handle_of(network_.issue_exchange(role, ranks_[static_cast<std::size_t>(role)]->prepared, group, transfers));
  }

 private:
  /// Of a state that lives as long as this does.
  Handle handle_of(int operation) {
    return Handle(std::shared_ptr<Handle::State>(std::shared_ptr<void>(), &states_.emplace_back(network_, operation)));
  }

  int group_of(const VirtualRank& rank, const plan::Action& action) const {
    const int group = plan::group_of(plan_, groups_, rank.program.place.stage, action);
    COX_ENSURE(group >= 0, plan::to_text(action));
    return group;
  }

  executor::Communication make_exchange(const VirtualRank& rank, const plan::Action& action) const {
    executor::Communication communication;
    communication.group = group_of(rank, action);
    communication.kind = executor::Communication::Kind::Exchange;
    const bool sends = action.kind == plan::ActionKind::SendActivation || action.kind == plan::ActionKind::SendGradient;
    const std::vector<int>& members = groups_[static_cast<std::size_t>(communication.group)].ranks;
    for (const plan::Transfer& transfer : network_.ranks().transfers_of(rank.program.rank, action)) {
      const auto peer = std::lower_bound(members.begin(), members.end(), transfer.peer) - members.begin();
      const Bytes whole = rank.times->edge_bytes(action, transfer.num_samples);
      const Bytes bytes((whole.value + transfer.num_shards - 1) / transfer.num_shards);
      communication.transfers.push_back(
          {sends ? collective::PointToPoint::Kind::Send : collective::PointToPoint::Kind::Receive,
           static_cast<int>(peer),
           {nullptr, bytes.value, DType::UInt8}});
    }
    return communication;
  }

  std::unique_ptr<VirtualRank> make_rank(int role) {
    const plan::Role& shape = plan_.roles[static_cast<std::size_t>(role)];
    auto rank = std::make_unique<VirtualRank>();
    const int number = plan::rank_of(plan_, {shape.stage, shape.replicas.front(), 0});
    rank->program = plan::make_rank_program(plan_, cost_.model(), number, shape.actions);
    rank->times = std::make_unique<ActionTimes>(cost_, plan_, shape, tied_);
    rank->compute = std::make_unique<VirtualCompute>(*this, role);
    rank->runs.resize(shape.actions.size());
    const plan::DeviceId device = plan::device_of(plan_, number);
    rank->cpu = cost_.resources().device_classes[static_cast<std::size_t>(device.device_class)].kind ==
                cluster::DeviceKind::Cpu;
    std::vector<collective::Communicator*> communicators;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const std::vector<int>& members = groups_[g].ranks;
      const auto at = std::lower_bound(members.begin(), members.end(), number);
      std::unique_ptr<VirtualCommunicator> communicator;
      if (at != members.end() && *at == number) {
        communicator = std::make_unique<VirtualCommunicator>(
            *this, role, static_cast<int>(g), static_cast<int>(at - members.begin()), static_cast<int>(members.size()));
      }
      communicators.push_back(communicator.get());
      rank->communicators.push_back(std::move(communicator));
    }
    rank->executor =
        std::make_unique<executor::Executor>(rank->program, *rank->compute, std::move(communicators), clock_);
    return rank;
  }

  Result<void> advance(int role) {
    VirtualRank& rank = *ranks_[static_cast<std::size_t>(role)];
    // On a CPU the thread that drives the executor is the one that computes: nothing is started or seen meanwhile.
    if (rank.cpu && rank.running >= 0) return {};
    COX_TRY([[maybe_unused]] const bool moved, rank.executor->advance(Deadline::never()));
    return {};
  }

  Result<void> handle(const Event& event) {
    if (event.kind == Event::Kind::ComputeEnd) {
      VirtualRank& rank = *ranks_[static_cast<std::size_t>(event.rank)];
      if (event.version != rank.version) return {};
      rank.runs[static_cast<std::size_t>(rank.running)].end = clock_.ticks();
      rank.running = -1;
      return advance(event.rank);
    }
    VirtualOperation& operation = network_.operation(event.operation);
    operation.done = true;
    return advance(operation.role);
  }

  void set_compute_end(int role, Ticks end) {
    VirtualRank& rank = *ranks_[static_cast<std::size_t>(role)];
    rank.compute_end = end;
    events_.push(end, {Event::Kind::ComputeEnd, role, 0, ++rank.version});
  }

  // C19: a CPU rank copies with the core that it computes with.
  void communication_started(int index) {
    const VirtualOperation& operation = network_.operation(index);
    events_.push(operation.end, {Event::Kind::CommunicationEnd, operation.role, index, 0});
    if (operation.copies == 0) return;
    VirtualRank& rank = *ranks_[static_cast<std::size_t>(operation.role)];
    const Copying copying{operation.end,
                          static_cast<double>(operation.copies) / static_cast<double>(operation.end - operation.start)};
    rank.copying.push_back(copying);
    if (rank.running < 0) return;
    const Ticks overlap = std::min(rank.compute_end, operation.end) - clock_.ticks();
    set_compute_end(operation.role,
                    rank.compute_end + static_cast<Ticks>(copying.share * static_cast<double>(overlap)));
  }

  const CostModel& cost_;
  const plan::Plan& plan_;
  VirtualClock clock_;
  EventQueue events_;
  std::vector<plan::Group> groups_;
  std::vector<plan::TiedParameter> tied_;
  VirtualNetwork network_;
  std::deque<VirtualState> states_;  // they stay where they are
  std::vector<std::unique_ptr<VirtualRank>> ranks_;
};

Result<void> VirtualCompute::start(const plan::Action& action) {
  world_.start_compute(role_, action);
  return {};
}
Result<bool> VirtualCompute::finished() { return !world_.compute_running(role_); }
Result<executor::Communication> VirtualCompute::prepare(const plan::Action& action) {
  return world_.prepare(role_, action);
}

Handle VirtualCommunicator::issue(CollectiveKind kind, Bytes payload) {
  return world_.issue_collective(role_, group_, kind, payload);
}
Handle VirtualCommunicator::exchange(std::vector<collective::PointToPoint> operations, Deadline) {
  return world_.issue_exchange(role_, group_, operations);
}

}  // namespace

Result<VirtualRun> run_in_virtual_time(const CostModel& cost, const plan::Plan& plan) {
  const SplitRoles split = split_roles(plan);
  World world(cost, split.plan);
  COX_TRY(VirtualRun all, world.run());
  if (split.plan.roles.size() == plan.roles.size()) return all;
  // A role is shown as its first replica; the step ends when all have ended.
  VirtualRun run;
  run.makespan = all.makespan;
  for (const int first : split.first) run.roles.push_back(std::move(all.roles[static_cast<std::size_t>(first)]));
  return run;
}

Result<Simulation> simulate(const CostModel& cost, const plan::Plan& plan) {
  COX_TRY(const VirtualRun run, run_in_virtual_time(cost, plan));
  Simulation simulation;
  simulation.estimate = make_estimate(cost, plan, run);
  for (std::size_t role = 0; role < run.roles.size(); ++role) {
    for (std::size_t action = 0; action < run.roles[role].size(); ++action) {
      const ActionRun& at = run.roles[role][action];
      const Ticks moving = at.is_compute ? at.start : at.transfer_start;
      simulation.actions.push_back({static_cast<int>(role), static_cast<int>(action), to_seconds(at.start).value,
                                    to_seconds(at.end).value, to_seconds(moving).value});
    }
  }
  return simulation;
}

}  // namespace coxswain::cost_model
