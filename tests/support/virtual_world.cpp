#include "tests/support/virtual_world.h"

#include <algorithm>
#include <cmath>

#include "common/ensure.h"

namespace coxswain {

using executor::Communication;
using plan::Action;
using plan::ActionKind;

/// One rank's side of a collective or exchange: done `seconds` after its last partner came.
struct VirtualWorld::Operation {
  double seconds = 0;
  int open = 0;          // partners that have not come
  double last_seen = 0;  // when the last one came
};

class VirtualWorld::HandleState final : public collective::Handle::State {
 public:
  HandleState(const VirtualWorld& world, std::shared_ptr<Operation> operation)
      : world_(world), operation_(std::move(operation)) {}
  bool done() const override {
    return operation_->open == 0 && world_.now() + 1e-12 >= operation_->last_seen + operation_->seconds;
  }
  Result<void> wait(Deadline) override {
    COX_ENSURE(done());
    return {};
  }

 private:
  const VirtualWorld& world_;
  std::shared_ptr<Operation> operation_;
};

class VirtualWorld::Communicator final : public collective::Communicator {
 public:
  Communicator(VirtualWorld& world, int group, int rank, int size, int global_rank)
      : world_(world), group_(group), rank_(rank), size_(size), global_rank_(global_rank) {
    capabilities_.name = "virtual";
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const collective::Capabilities& capabilities() const override { return capabilities_; }
  collective::Handle all_reduce(collective::BufferView, collective::ReduceOp, Deadline) override { return join(); }
  collective::Handle broadcast(collective::BufferView, int, Deadline) override { return join(); }
  collective::Handle barrier(Deadline) override { return join(); }
  collective::Handle all_gather(collective::BufferView, collective::BufferView, std::vector<std::int64_t>,
                                Deadline) override {
    return join();
  }
  collective::Handle reduce_scatter(collective::BufferView, collective::BufferView, std::vector<std::int64_t>,
                                    collective::ReduceOp, Deadline) override {
    return join();
  }
  collective::Handle all_to_all(collective::BufferView, collective::BufferView, std::vector<std::int64_t>,
                                std::vector<std::int64_t>, Deadline) override {
    return join();
  }

  collective::Handle exchange(std::vector<collective::PointToPoint> operations, Deadline) override {
    auto mine = make(static_cast<int>(operations.size()));
    for (const collective::PointToPoint& one : operations) {
      const bool send = one.kind == collective::PointToPoint::Kind::Send;
      const int from = send ? rank_ : one.peer;
      const int to = send ? one.peer : rank_;
      const std::tuple key{group_, from, to, turns_[{send, one.peer}]++};
      const auto waiting = world_.transfers_.find(key);
      if (waiting == world_.transfers_.end()) {
        world_.transfers_.emplace(key, mine);
        continue;
      }
      world_.settle(waiting->second, world_.now());
      world_.settle(mine, world_.now());
      world_.transfers_.erase(waiting);
    }
    return handle(mine);
  }
  Result<std::unique_ptr<collective::Communicator>> split(std::vector<int>, Deadline) override {
    return Error{ErrorCode::Unimplemented, "virtual", "", "", "", ""};
  }
  Result<std::shared_ptr<void>> allocate_registered(Bytes) override { return std::shared_ptr<void>(); }
  void abort(std::string) override {}

  double next_seconds = 0;  // of the operation issued next; set by Compute::prepare

 private:
  std::shared_ptr<Operation> make(int partners) {
    auto operation = std::make_shared<Operation>();
    operation->seconds = next_seconds;
    operation->open = partners;
    operation->last_seen = world_.now();
    return operation;
  }

  collective::Handle handle(std::shared_ptr<Operation> operation) {
    if (operation->open == 0) world_.events_.insert(operation->last_seen + operation->seconds);
    return collective::Handle(std::make_shared<HandleState>(world_, std::move(operation)));
  }

  collective::Handle join() {
    auto mine = make(size_ - 1);
    auto& present = world_.collectives_[{group_, turn_++}];
    for (const auto& other : present) {
      world_.settle(other, world_.now());
      world_.settle(mine, world_.now());
    }
    present.push_back(mine);
    return handle(mine);
  }

  VirtualWorld& world_;
  int group_, rank_, size_, global_rank_;
  int turn_ = 0;
  std::map<std::pair<bool, int>, int> turns_;
  collective::Capabilities capabilities_;
};

class VirtualWorld::Compute final : public executor::Compute {
 public:
  Compute(VirtualWorld& world, int rank) : world_(world), rank_(rank), place_(plan::place_of(world.plan_, rank)) {}

  Result<void> start(const Action& action) override {
    end_ = world_.now() + world_.duration_(rank_, action);
    world_.events_.insert(end_);
    return {};
  }
  Result<bool> finished() override { return world_.now() + 1e-12 >= end_; }

  Result<Communication> prepare(const Action& action) override;
  Result<void> finish(const Action&) override { return {}; }

 private:
  VirtualWorld& world_;
  int rank_;
  plan::RankPlace place_;
  double end_ = 0;
};

struct VirtualWorld::Rank {
  plan::RankProgram program;
  std::unique_ptr<Compute> compute;
  std::vector<std::unique_ptr<Communicator>> communicators;
  std::unique_ptr<executor::Executor> executor;
};

Result<Communication> VirtualWorld::Compute::prepare(const Action& action) {
  Communication communication;
  communication.group = plan::group_of(world_.plan_, world_.groups_, place_.stage, action);
  if (communication.group < 0) return communication;
  const auto& members = world_.groups_[static_cast<std::size_t>(communication.group)].ranks;
  world_.ranks_[static_cast<std::size_t>(rank_)]
      ->communicators[static_cast<std::size_t>(communication.group)]
      ->next_seconds = world_.duration_(rank_, action);
  if (!plan::is_edge(action.kind)) {
    communication.kind = Communication::Kind::AllReduce;
    return communication;
  }
  communication.kind = Communication::Kind::Exchange;
  const bool send = action.kind == ActionKind::SendActivation || action.kind == ActionKind::SendGradient;
  for (const plan::Transfer& transfer : plan::transfers_of(world_.plan_, rank_, action)) {
    collective::PointToPoint one;
    one.kind = send ? collective::PointToPoint::Kind::Send : collective::PointToPoint::Kind::Receive;
    one.peer = static_cast<int>(std::find(members.begin(), members.end(), transfer.peer) - members.begin());
    communication.transfers.push_back(one);
  }
  return communication;
}

VirtualWorld::VirtualWorld(const plan::Plan& plan, const model::ModelGraph& graph, Duration duration)
    : plan_(plan), groups_(plan::make_groups(plan, graph)), duration_(std::move(duration)) {
  for (int r = 0; r < plan::num_ranks(plan); ++r) {
    auto rank = std::make_unique<Rank>();
    rank->program = plan::make_rank_program(plan, graph, r);
    rank->compute = std::make_unique<Compute>(*this, r);
    std::vector<collective::Communicator*> borrowed;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const auto& members = groups_[g].ranks;
      const auto me = std::find(members.begin(), members.end(), r);
      std::unique_ptr<Communicator> communicator;
      if (me != members.end()) {
        communicator = std::make_unique<Communicator>(
            *this, static_cast<int>(g), static_cast<int>(me - members.begin()), static_cast<int>(members.size()), r);
      }
      borrowed.push_back(communicator.get());
      rank->communicators.push_back(std::move(communicator));
    }
    rank->executor = std::make_unique<executor::Executor>(rank->program, *rank->compute, std::move(borrowed), clock_);
    ranks_.push_back(std::move(rank));
  }
}

VirtualWorld::~VirtualWorld() = default;

double VirtualWorld::now() const { return std::chrono::duration<double>(clock_.now().time_since_epoch()).count(); }

void VirtualWorld::settle(const std::shared_ptr<Operation>& operation, double partner_posted) {
  --operation->open;
  operation->last_seen = std::max(operation->last_seen, partner_posted);
  if (operation->open == 0) events_.insert(operation->last_seen + operation->seconds);
}

/// Moves the clock to the next completion that lies ahead.
bool VirtualWorld::jump() {
  while (!events_.empty()) {
    const double next = *events_.begin();
    events_.erase(events_.begin());
    if (next <= now() + 1e-12) continue;
    // The clock counts whole nanoseconds: never land before the event.
    clock_.advance(Seconds(next - now() + 1e-9));
    return true;
  }
  return false;
}

bool VirtualWorld::run_step() {
  for (auto& rank : ranks_) rank->executor->begin_step();
  while (true) {
    bool moved = false;
    bool done = true;
    for (auto& rank : ranks_) {
      const auto result = rank->executor->advance(Deadline::never());
      COX_ENSURE(result.has_value());
      moved = moved || *result;
      done = done && rank->executor->done();
    }
    if (done) return true;
    if (!moved && !jump()) return false;
  }
}

const plan::RankProgram& VirtualWorld::program(int rank) const {
  return ranks_[static_cast<std::size_t>(rank)]->program;
}
executor::Executor& VirtualWorld::executor(int rank) { return *ranks_[static_cast<std::size_t>(rank)]->executor; }

executor::ActionTime VirtualWorld::time_of(int rank, const std::string& action) const {
  const Rank& one = *ranks_[static_cast<std::size_t>(rank)];
  for (std::size_t i = 0; i < one.program.actions.size(); ++i) {
    if (to_text(one.program.actions[i]) == action) return one.executor->times()[i];
  }
  COX_ENSURE(false, action);
  return {};
}

double VirtualWorld::step_seconds() const {
  double last = 0;
  for (const auto& rank : ranks_) {
    for (const executor::ActionTime& time : rank->executor->times()) last = std::max(last, time.end);
  }
  return last;
}

}  // namespace coxswain
