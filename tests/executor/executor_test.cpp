#include "executor/executor.h"

#include <condition_variable>
#include <mutex>
#include <thread>

#include "tests/support/graph_builder.h"
#include "tests/support/plan_builder.h"
#include "tests/support/virtual_world.h"

#include <catch2/catch.hpp>

namespace coxswain::executor {
namespace {

using plan::Action;
using plan::ActionKind;

/// Units of time are far above the clock's nanosecond; a step has hundreds of events.
constexpr double kTolerance = 1e-5;
Approx near(double seconds) { return Approx(seconds).margin(kTolerance); }

double forward_one_backward_two(int, const Action& action) {
  if (action.kind == ActionKind::Forward) return 1;
  return action.kind == ActionKind::Backward ? 2 : 0;
}

TEST_CASE("a pipeline of equal stages takes (m + S - 1) (f + b)", "[executor]") {
  const auto graph = make_chain_graph({.tied = false});
  for (const auto schedule : {plan::ScheduleKind::GPipe, plan::ScheduleKind::OneForwardOneBackward}) {
    for (const int count : {1, 3, 6}) {
      const auto plan = make_plan(graph, make_cpu_cluster({3}),
                                  {.cuts = {2, 4}, .samples = {{4}, {4}, {4}}, .count = count, .schedule = schedule});
      VirtualWorld world(plan, graph, forward_one_backward_two);
      REQUIRE(world.run_step());
      CHECK(world.step_seconds() == near((count + 2) * 3.0));
      // Twice the same: nothing of a step is left over.
      REQUIRE(world.run_step());
      CHECK(world.step_seconds() == near((count + 2) * 3.0));
      CHECK(world.executor(0).progress() == 2 * static_cast<std::int64_t>(world.program(0).actions.size()));
    }
  }
}

TEST_CASE("a bucket is reduced beside the rest of the backward", "[executor]") {
  // Buckets [3,6), [0,3): forward 1, each part of the backward 2, each reduction 3. Serial would be 1 + 4 + 6 = 11.
  const auto graph = make_chain_graph({.tied = false});
  auto plan = make_plan(graph, make_cpu_cluster({2}), {.samples = {{2, 2}}, .count = 1});
  plan.stages[0].bucket_starts = {3, 0};
  auto& actions = plan.roles[0].actions;
  actions = {{ActionKind::CountLoss},
             {ActionKind::ReduceLossCount},
             {ActionKind::Forward, 0, 0, 6},
             {ActionKind::Backward, 0, 3, 6},
             {ActionKind::ReduceGradient, -1, 3, 6},
             {ActionKind::Backward, 0, 0, 3},
             {ActionKind::ReduceGradient, -1, 0, 3},
             {ActionKind::ReduceNorm},
             {ActionKind::Optimizer}};
  VirtualWorld world(plan, graph, [](int rank, const Action& action) {
    return action.kind == ActionKind::ReduceGradient ? 3 : forward_one_backward_two(rank, action);
  });
  REQUIRE(world.run_step());
  CHECK(world.time_of(0, "REDUCE_GRAD[3,6)").start == near(3));
  CHECK(world.time_of(0, "B0[0,3)").end == near(5));
  CHECK(world.time_of(1, "REDUCE_GRAD[0,3)").start == near(6));
  CHECK(world.step_seconds() == near(9));
}

TEST_CASE("ZeRO 3 gathers a block beside the one before, and reduces its gradient beside the next", "[executor]") {
  // Four blocks: forward 2 each, backward 4, gather 1, reduction 3. Only the first gather and the last reduction show:
  // 1 + 4 x 2 + 4 x 4 + 3. In a row it would be 7 gathers and 4 reductions: 24 + 7 + 12.
  const auto graph = make_chain_graph({.num_layers = 2, .tied = false});
  auto plan = make_plan(graph, make_cpu_cluster({2}), {.samples = {{2, 2}}, .count = 1});
  plan.stages[0].zero_stage = 3;
  plan::fill_roles(plan, graph, Bytes(1));
  VirtualWorld world(plan, graph, [](int, const Action& action) -> double {
    switch (action.kind) {
      case ActionKind::Forward: return 2;
      case ActionKind::Backward: return 4;
      case ActionKind::GatherParameter: return 1;
      case ActionKind::ReduceGradient: return 3;
      default: return 0;
    }
  });
  REQUIRE(world.run_step());
  CHECK(world.time_of(0, "F0[0,1)").start == near(1));
  // Not two blocks ahead: there would be three whole.
  CHECK(world.time_of(1, "GATHER_PARAM0[2,3)").start == near(3));
  CHECK(world.time_of(0, "F0[3,4)").end == near(9));
  CHECK(world.time_of(0, "B0[2,3)").start == near(13));
  CHECK(world.time_of(0, "REDUCE_GRAD0[3,4)").end == near(16));
  CHECK(world.time_of(0, "B0[0,1)").end == near(25));
  CHECK(world.step_seconds() == near(28));
}

TEST_CASE("receives are posted no further ahead than there are credits", "[executor]") {
  const auto graph = make_chain_graph({.tied = false});
  for (const int credits : {1, 2, 3}) {
    const auto plan = make_plan(graph, make_cpu_cluster({2}),
                                {.cuts = {3},
                                 .samples = {{4}, {4}},
                                 .count = 6,
                                 .schedule = plan::ScheduleKind::GPipe,
                                 .receive_credits = credits});
    // A slow second stage: the first one runs ahead until the buffers are full.
    VirtualWorld world(plan, graph, [](int rank, const Action& action) {
      return (rank == 1 ? 10.0 : 1.0) * forward_one_backward_two(rank, action);
    });
    REQUIRE(world.run_step());
    for (int m = credits; m < 6; ++m) {
      const std::string receive = "RECV_F" + std::to_string(m);
      const std::string freed = "F" + std::to_string(m - credits) + "[3,6)";
      CHECK(world.time_of(1, receive).start >= world.time_of(1, freed).end - kTolerance);
      CHECK(world.time_of(0, "F" + std::to_string(m) + "[0,3)").start >=
            world.time_of(0, "SEND_F" + std::to_string(m - credits)).end - kTolerance);
    }
    // Micro-batch `credits` waits for the first forward there, which takes from 1 to 11.
    CHECK(world.time_of(0, "SEND_F" + std::to_string(credits)).end == near(11));
  }
}

TEST_CASE("unequal replica counts and tied parameters run to the end", "[executor]") {
  const auto graph = make_chain_graph();
  const auto plan =
      make_plan(graph, make_cpu_cluster({6}),
                {.cuts = {2, 4}, .samples = {{2, 2, 2}, {3, 3}, {6}}, .count = 3, .bucket_bytes = Bytes(1 << 20)});
  VirtualWorld world(plan, graph, forward_one_backward_two);
  REQUIRE(world.run_step());
  CHECK(world.step_seconds() == near(5 * 3.0));
  CHECK(world.time_of(5, "OPTIMIZER").start >= world.time_of(0, "REDUCE_TIED0").end - kTolerance);
}

TEST_CASE("an executor that lacks its partner does not end", "[executor]") {
  const auto graph = make_chain_graph({.tied = false});
  auto plan = make_plan(graph, make_cpu_cluster({2}), {.cuts = {3}, .samples = {{4}, {4}}, .count = 2});
  auto& actions = plan.roles[0].actions;
  actions.erase(std::find(actions.begin(), actions.end(), Action{ActionKind::SendActivation, 1}));
  VirtualWorld world(plan, graph, forward_one_backward_two);
  CHECK_FALSE(world.run_step());
}

/// Runs each action at once; fails or lingers where told.
class PlainCompute final : public Compute {
 public:
  Result<void> start(const Action& action) override {
    ran.push_back(to_text(action));
    if (to_text(action) == fail_start) return Error{ErrorCode::Internal, "out of ideas", "", "", "", ""};
    return {};
  }
  Result<bool> finished() override {
    ++num_asked;
    if (ran.back() == fail_finished)
      return Error{ErrorCode::ResourceExhausted, "out of memory", "aten::linear", "", "", ""};
    return still_running ? !still_running() : true;
  }
  Result<Communication> prepare(const Action& action) override {
    ran.push_back(to_text(action));
    if (to_text(action) == fail_prepare) return Error{ErrorCode::Internal, "no buffer", "", "", "", ""};
    return communication;
  }
  Result<void> finish(const Action&) override { return {}; }

  std::vector<std::string> ran;
  std::string fail_start, fail_finished, fail_prepare;
  Communication communication;
  std::function<bool()> still_running;
  int num_asked = 0;
};

/// Every operation ends at once with `error`, or once `ended` is set.
class BrokenCommunicator final : public collective::Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 2; }
  const collective::Capabilities& capabilities() const override { return capabilities_; }
  collective::Handle all_reduce(collective::BufferView, collective::ReduceOp, Deadline) override { return make(); }
  collective::Handle all_gather(collective::BufferView, collective::BufferView, std::vector<std::int64_t>,
                                Deadline) override {
    return make();
  }
  collective::Handle reduce_scatter(collective::BufferView, collective::BufferView, std::vector<std::int64_t>,
                                    collective::ReduceOp, Deadline) override {
    return make();
  }
  collective::Handle all_to_all(collective::BufferView, collective::BufferView, std::vector<std::int64_t>,
                                std::vector<std::int64_t>, Deadline) override {
    return make();
  }
  collective::Handle broadcast(collective::BufferView, int, Deadline) override { return make(); }
  collective::Handle exchange(std::vector<collective::PointToPoint>, Deadline) override { return make(); }
  collective::Handle barrier(Deadline) override { return make(); }
  Result<std::unique_ptr<collective::Communicator>> split(std::vector<int>, Deadline) override { return *error; }
  Result<std::shared_ptr<void>> allocate_registered(Bytes) override { return *error; }
  void abort(std::string) override {}

  std::optional<Error> error;
  std::shared_ptr<bool> ended = std::make_shared<bool>(false);

 private:
  class State final : public collective::Handle::State {
   public:
    State(std::optional<Error> error, std::shared_ptr<bool> ended)
        : error_(std::move(error)), ended_(std::move(ended)) {}
    bool done() const override { return error_.has_value() || *ended_; }
    Result<void> wait(Deadline) override { return error_ ? Result<void>(*error_) : Result<void>(); }

   private:
    std::optional<Error> error_;
    std::shared_ptr<bool> ended_;
  };
  collective::Handle make() { return collective::Handle(std::make_shared<State>(error, ended)); }
  collective::Capabilities capabilities_;
};

struct OneRank {
  model::ModelGraph graph = make_chain_graph();
  plan::Plan plan = make_plan(graph, make_cpu_cluster({1}), {.count = 2});
  plan::RankProgram program = plan::make_rank_program(plan, graph, 0);
  PlainCompute compute;
  BrokenCommunicator communicator;
  collective::CompletionSignal signal;
  Executor executor{program, compute, {&communicator}, steady_clock()};
};

TEST_CASE("one rank runs its list in order without waiting", "[executor]") {
  OneRank one;
  REQUIRE(one.executor.run_step(one.signal, Deadline::never()));
  std::vector<std::string> expected;
  for (const Action& action : one.program.actions) expected.push_back(to_text(action));
  CHECK(one.compute.ran == expected);
  CHECK(one.executor.progress() == 7);
  for (const ActionTime& time : one.executor.times()) CHECK(time.end >= time.start);
}

TEST_CASE("what an ended action allows is sent before the next one computes", "[executor]") {
  const auto graph = make_chain_graph({.tied = false});
  const auto plan = make_plan(
      graph, make_cpu_cluster({2}),
      {.cuts = {3}, .samples = {{4}, {4}}, .count = 3, .schedule = plan::ScheduleKind::GPipe, .receive_credits = 3});
  const auto program = plan::make_rank_program(plan, graph, 0);
  PlainCompute compute;
  collective::CompletionSignal signal;
  Executor executor(program, compute, {nullptr}, steady_clock());
  REQUIRE(executor.run_step(signal, Deadline::never()));
  const std::vector<std::string> forwards(compute.ran.begin() + 3, compute.ran.begin() + 9);
  // The receives of gradients have free buffers from the start; then each forward, and at once its send.
  CHECK(std::vector<std::string>(compute.ran.begin(), compute.ran.begin() + 3) ==
        std::vector<std::string>{"RECV_B0", "RECV_B1", "RECV_B2"});
  CHECK(forwards == std::vector<std::string>{"F0[0,3)", "SEND_F0", "F1[0,3)", "SEND_F1", "F2[0,3)", "SEND_F2"});
}

TEST_CASE("an error names the action", "[executor]") {
  OneRank one;
  SECTION("at its start") {
    one.compute.fail_start = "B0[0,6)";
    const auto result = one.executor.run_step(one.signal, Deadline::never());
    REQUIRE_FALSE(result);
    CHECK(result.error().code == ErrorCode::Internal);
    CHECK(result.error().message == "out of ideas");
    CHECK(result.error().path == "rank 0 action 2 B0[0,6)");
  }
  SECTION("while it runs") {
    one.compute.fail_finished = "F1[0,6)";
    const auto result = one.executor.run_step(one.signal, Deadline::never());
    REQUIRE_FALSE(result);
    CHECK(result.error().path == "rank 0 action 3 F1[0,6) aten::linear");
  }
  SECTION("before communication") {
    one.compute.fail_prepare = "REDUCE_NORM";
    const auto result = one.executor.run_step(one.signal, Deadline::never());
    REQUIRE_FALSE(result);
    CHECK(result.error().path == "rank 0 action 5 REDUCE_NORM");
  }
  SECTION("of communication, with its peers") {
    one.compute.communication.kind = Communication::Kind::Exchange;
    one.compute.communication.group = 0;
    one.compute.communication.transfers = {{collective::PointToPoint::Kind::Send, 1, {}},
                                           {collective::PointToPoint::Kind::Send, 1, {}},
                                           {collective::PointToPoint::Kind::Send, 2, {}}};
    one.communicator.error = Error{ErrorCode::Unavailable, "rank 1 is gone", "", "", "", ""};
    const auto result = one.executor.run_step(one.signal, Deadline::never());
    REQUIRE_FALSE(result);
    CHECK(result.error().code == ErrorCode::Unavailable);
    CHECK(result.error().path == "rank 0 action 5 REDUCE_NORM (group 0, peers 1, 2 of it)");
  }
}

TEST_CASE("a step that does not end in time names what is pending", "[executor]") {
  OneRank one;
  one.compute.communication.kind = Communication::Kind::AllReduce;
  one.compute.communication.group = 0;
  const auto result = one.executor.run_step(one.signal, Deadline{steady_clock().now()});
  REQUIRE_FALSE(result);
  CHECK(result.error().code == ErrorCode::DeadlineExceeded);
  CHECK(result.error().got == "pending: REDUCE_NORM with group 0; OPTIMIZER not started");
}

TEST_CASE("a step of which nothing ends for a while says what is pending, and that it goes on", "[executor]") {
  OneRank one;
  one.compute.communication.kind = Communication::Kind::AllReduce;
  one.compute.communication.group = 0;
  std::vector<std::string> told;
  one.executor.tell_stalls(Seconds(1e-3), [&](const std::string& pending) {
    told.push_back(pending);
    *one.communicator.ended = true;
    one.signal.raise();
  });
  REQUIRE(one.executor.run_step(one.signal, Deadline::after(steady_clock(), Seconds(60))));
  CHECK(told == std::vector<std::string>{"REDUCE_NORM with group 0; OPTIMIZER not started", ""});
}

TEST_CASE("a rank that computes does not stall, however long", "[executor]") {
  OneRank one;
  one.compute.still_running = [] { return true; };
  int told = 0;
  one.executor.tell_stalls(Seconds(1e-3), [&](const std::string&) { ++told; });
  CHECK_FALSE(one.executor.run_step(one.signal, Deadline::after(steady_clock(), Seconds(0.05))));
  CHECK(told == 0);
}

TEST_CASE("a compute that goes on is waited for, not polled", "[executor]") {
  OneRank one;
  std::mutex mutex;
  std::condition_variable asked;
  bool began = false, ended = false;
  one.compute.still_running = [&] {
    const std::lock_guard lock(mutex);
    began = true;
    asked.notify_one();
    return !ended;
  };
  std::jthread device([&] {
    std::unique_lock lock(mutex);
    asked.wait(lock, [&] { return began; });
    ended = true;
    lock.unlock();
    one.signal.raise();
  });
  REQUIRE(one.executor.run_step(one.signal, Deadline::after(steady_clock(), Seconds(60))));
  // Seven actions, six of them compute; a handful of questions each, and a spinning wait would ask thousands of times.
  CHECK(one.compute.num_asked < 40);
}

}  // namespace
}  // namespace coxswain::executor
