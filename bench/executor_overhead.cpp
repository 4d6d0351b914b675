// What the executor itself takes: action lists of 10,000 actions whose computations and communications do nothing. The
// peer is the same list called one after the other, without an executor. Issue 5, row g.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "bench/support/bench.h"
#include "common/clock.h"
#include "executor/executor.h"
#include "tests/support/graph_builder.h"
#include "tests/support/plan_builder.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr double kGoalMicroseconds = 20, kGoalStartSeconds = 1;

double seconds_since(TimePoint start) { return std::chrono::duration<double>(steady_clock().now() - start).count(); }

[[noreturn]] void fail(const Error& error) {
  std::fputs(to_text(error).c_str(), stderr);
  std::exit(1);
}

template <class T>
T value_or_fail(Result<T> result) {
  if (!result) fail(result.error());
  return std::move(*result);
}

/// Computes nothing; says of a message that it goes to one peer, as the engine does.
class IdleCompute final : public executor::Compute {
 public:
  Result<void> start(const plan::Action&) override {
    ++num_started;
    return {};
  }
  Result<bool> finished() override { return true; }
  Result<executor::Communication> prepare(const plan::Action& action) override {
    ++num_started;
    executor::Communication communication;
    communication.group = 0;
    communication.kind =
        plan::is_edge(action.kind) ? executor::Communication::Kind::Exchange : executor::Communication::Kind::AllReduce;
    if (plan::is_edge(action.kind)) communication.transfers.push_back({});
    return communication;
  }
  Result<void> finish(const plan::Action&) override { return {}; }

  std::int64_t num_started = 0;
};

/// Every operation is complete when it was issued.
class IdleCommunicator final : public collective::Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  const collective::Capabilities& capabilities() const override { return capabilities_; }
  collective::Handle all_reduce(collective::BufferView, collective::ReduceOp, Deadline) override { return {}; }
  collective::Handle all_gather(collective::BufferView, collective::BufferView, std::vector<std::int64_t>,
                                Deadline) override {
    return {};
  }
  collective::Handle reduce_scatter(collective::BufferView, collective::BufferView, std::vector<std::int64_t>,
                                    collective::ReduceOp, Deadline) override {
    return {};
  }
  collective::Handle all_to_all(collective::BufferView, collective::BufferView, std::vector<std::int64_t>,
                                std::vector<std::int64_t>, Deadline) override {
    return {};
  }
  collective::Handle broadcast(collective::BufferView, int, Deadline) override { return {}; }
  collective::Handle exchange(std::vector<collective::PointToPoint>, Deadline) override { return {}; }
  collective::Handle barrier(Deadline) override { return {}; }
  Result<std::unique_ptr<Communicator>> split(std::vector<int>, Deadline) override {
    return Error{ErrorCode::Unimplemented, "no groups here", "", "", "", ""};
  }
  Result<std::shared_ptr<void>> allocate_registered(Bytes) override { return std::shared_ptr<void>(); }
  void abort(std::string) override {}

 private:
  collective::Capabilities capabilities_;
};

/// The same calls in the order of the list, each timed as the executor times it.
double bare_step(const plan::RankProgram& program, IdleCompute& compute, IdleCommunicator& communicator) {
  std::vector<executor::ActionTime> times(program.actions.size());
  const TimePoint begin = steady_clock().now();
  for (std::size_t i = 0; i < program.actions.size(); ++i) {
    const plan::Action& action = program.actions[i];
    times[i].start = seconds_since(begin);
    if (plan::is_compute(action.kind)) {
      if (auto started = compute.start(action); !started) fail(started.error());
      value_or_fail(compute.finished());
    } else {
      auto prepared = value_or_fail(compute.prepare(action));
      collective::Handle handle = communicator.exchange(std::move(prepared.transfers), Deadline::never());
      if (auto waited = handle.wait(Deadline::never()); !waited) fail(waited.error());
      if (auto finished = compute.finish(action); !finished) fail(finished.error());
    }
    times[i].end = seconds_since(begin);
  }
  return seconds_since(begin);
}

struct Case {
  std::string name;
  PlanOptions options;
  int rank = 0;
};

void run_case(const Case& what, int steps, Report& report) {
  const auto graph = make_chain_graph({.tied = false});
  std::int64_t num_devices = 0;
  for (const auto& stage : what.options.samples) num_devices += static_cast<std::int64_t>(stage.size());
  const auto resources = make_cpu_cluster({num_devices});
  const std::string text = to_text(plan::to_json(make_plan(graph, resources, what.options)));

  IdleCompute compute;
  IdleCommunicator communicator;
  collective::CompletionSignal signal;
  std::vector<double> starts, ours, bare;
  std::size_t num_actions = 0;
  for (int repeat = 0; repeat < 3; ++repeat) {
    // From the plan's text to a rank that may begin: what launcher and worker do before the first step.
    const TimePoint begin = steady_clock().now();
    const plan::Plan plan = value_or_fail(plan::plan_from_json(value_or_fail(parse_json(text))));
    if (const auto problems = plan::validate(plan, graph, resources); !problems.empty()) fail(problems.front());
    const auto groups = plan::make_groups(plan, graph);
    const plan::RankProgram program = plan::make_rank_program(plan, graph, what.rank);
    executor::Executor executor(program, compute, {&communicator}, steady_clock());
    starts.push_back(seconds_since(begin));
    num_actions = program.actions.size();
    for (int step = 0; step < steps; ++step) {
      const std::int64_t before = compute.num_started;
      const TimePoint step_begin = steady_clock().now();
      if (auto result = executor.run_step(signal, Deadline::never()); !result) fail(result.error());
      ours.push_back(seconds_since(step_begin));
      if (compute.num_started - before != static_cast<std::int64_t>(num_actions))
        fail({ErrorCode::Internal, "not every action ran", what.name, "", "", ""});
      bare.push_back(bare_step(program, compute, communicator));
    }
  }
  const auto actions = static_cast<double>(num_actions);
  const double overhead = median(ours) / actions * 1e6, peer = median(bare) / actions * 1e6;
  std::printf("%s: %zu actions\n", what.name.c_str(), num_actions);
  report.add(
      {what.name + ": per action", overhead, peer, overhead / peer, "us", "< 20 us", overhead < kGoalMicroseconds});
  const double start = median(starts);
  report.add({what.name + ": start", start, kGoalStartSeconds, start / kGoalStartSeconds, "s", "< 1 s",
              start < kGoalStartSeconds});
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv, "the executor's own time per action, and to start");
  Report report("executor_overhead", options);
  const int steps = options.quick ? 2 : 10;
  // F and B of 5,000 micro-batches; the middle of three stages also sends and receives both ways.
  run_case({"one rank", {.count = 5000}, 0}, steps, report);
  run_case({"middle of a pipeline", {.cuts = {2, 4}, .samples = {{4}, {4}, {4}}, .count = 1666}, 1}, steps, report);
  run_case({"replicas", {.samples = {{2, 2}}, .count = 5000}, 0}, steps, report);
  return report.finish();
}
