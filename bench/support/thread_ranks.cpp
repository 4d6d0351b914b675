#include "bench/support/thread_ranks.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <thread>

#include "bench/support/bench.h"
#include "collective/backend.h"
#include "executor/executor.h"
#include "plan/layout/mesh_groups.h"
#include "plan/program.h"
#include "worker/engine/engine.h"

namespace coxswain::bench {
namespace {

/// Where element `local` of what the mesh gives a rank lies in the whole parameter, both row-major.
std::size_t element_of(const model::Parameter& parameter, const worker::ParameterPart& part, std::int64_t local) {
  if (part.rows.empty()) return static_cast<std::size_t>(local);
  std::int64_t element = 0, stride = 1;
  for (std::size_t d = parameter.dims.size(); d-- > 0;) {
    const auto size = static_cast<std::int64_t>(part.rows[d].size());
    element += part.rows[d][local % size] * stride;
    local /= size;
    stride *= parameter.dims[d];
  }
  return static_cast<std::size_t>(element);
}

class ThreadRanks {
 public:
  ThreadRanks(const model::ModelGraph& graph, const plan::Plan& plan, const worker::TrainSettings& settings,
              Seconds step_limit)
      : graph_(graph), plan_(plan), settings_(settings), step_limit_(step_limit) {}

  ThreadRun train() {
    const int size = plan::num_ranks(plan_);
    const auto scratch = make_scratch_folder("ranks");
    std::vector<collective::CompletionSignal> signals(static_cast<std::size_t>(size));
    std::vector<std::unique_ptr<collective::Endpoint>> endpoints;
    std::vector<std::string> addresses;
    for (int rank = 0; rank < size; ++rank) {
      collective::EndpointOptions options;
      options.rank = rank;
      options.size = size;
      options.node = "node";
      options.job_key = "key of this bench";
      options.run_id = "parity";
      options.scratch_dir = scratch;
      options.signal = &signals[rank];
      auto endpoint = collective::open_endpoint(options);
      if (!endpoint) {
        run_.problems.push_back(endpoint.error());
        return std::move(run_);
      }
      addresses.push_back((*endpoint)->address());
      endpoints.push_back(std::move(*endpoint));
    }
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank)
      threads.emplace_back([&, rank] {
        const auto result =
            guard("bench", [&] { return train_rank(rank, *endpoints[rank], addresses, signals[rank]); });
        if (!result) fail(rank, result.error());
      });
    for (auto& thread : threads) thread.join();
    std::error_code code;
    std::filesystem::remove_all(scratch, code);
    return std::move(run_);
  }

 private:
  [[nodiscard]] Deadline soon() const { return Deadline::after(steady_clock(), step_limit_); }

  void fail(int rank, Error error) {
    const std::lock_guard lock(mutex_);
    error.path = "rank " + std::to_string(rank) + (error.path.empty() ? "" : ": " + error.path);
    run_.problems.push_back(std::move(error));
    for (collective::Communicator* communicator : open_) communicator->abort("another rank failed");
  }

  // Aborted with the others from now on, until its rank is done with it.
  void add_open(collective::Communicator* communicator) {
    if (communicator == nullptr) return;
    const std::lock_guard lock(mutex_);
    open_.push_back(communicator);
    if (!run_.problems.empty()) communicator->abort("another rank failed");
  }
  void remove_open(const std::vector<collective::Communicator*>& communicators) {
    const std::lock_guard lock(mutex_);
    for (collective::Communicator* one : communicators)
      open_.erase(std::remove(open_.begin(), open_.end(), one), open_.end());
  }

  Result<void> train_rank(int rank, collective::Endpoint& endpoint, const std::vector<std::string>& addresses,
                          collective::CompletionSignal& signal) {
    COX_TRY(const auto world, endpoint.connect(addresses, soon()));
    std::vector<std::unique_ptr<collective::Communicator>> owned;
    std::vector<collective::Communicator*> communicators;
    add_open(world.get());
    const auto result = [&]() -> Result<void> {
      COX_TRY_VOID(split(rank, *world, owned, communicators));
      COX_TRY_VOID(run_steps(rank, communicators, signal));
      // No rank takes its memory away while another still reads from it.
      return world->barrier(soon()).wait(soon());
    }();
    remove_open({world.get()});
    remove_open(communicators);
    return result;
  }

  Result<void> split(int rank, collective::Communicator& world,
                     std::vector<std::unique_ptr<collective::Communicator>>& owned,
                     std::vector<collective::Communicator*>& communicators) {
    for (const plan::Group& group : plan::rank_groups(plan_, graph_, rank)) {
      if (group.kind == plan::GroupKind::World) {
        communicators.push_back(&world);
        continue;
      }
      const bool member = std::find(group.ranks.begin(), group.ranks.end(), rank) != group.ranks.end();
      COX_TRY(auto communicator, world.split(member ? group.ranks : std::vector<int>{}, soon()));
      communicators.push_back(communicator.get());
      add_open(communicator.get());
      owned.push_back(std::move(communicator));
    }
    return {};
  }

  Result<void> run_steps(int rank, const std::vector<collective::Communicator*>& communicators,
                         collective::CompletionSignal& signal) {
    COX_TRY(const auto engine, worker::make_engine({&graph_, &plan_, rank, settings_, communicators}));
    const plan::RankProgram program = plan::make_rank_program(plan_, graph_, rank);
    executor::Executor executor(program, *engine, communicators, steady_clock());
    for (std::int64_t step = 1; step <= settings_.steps; ++step) {
      COX_TRY_VOID(engine->begin_step(step));
      executor.begin_step();
      COX_TRY_VOID(executor.run_step(signal, soon()));
      COX_TRY(const auto numbers, engine->end_step());
      if (rank != 0) continue;
      run_.losses.push_back(numbers.loss);
      run_.grad_norms.push_back(numbers.grad_norm);
    }
    const std::lock_guard lock(mutex_);
    for (const model::Parameter& parameter : graph_.parameters) {
      if (const auto part = engine->read_part(parameter.name)) add(parameter, *part);
    }
    return {};
  }

  void add(const model::Parameter& parameter, const worker::ParameterPart& part) {
    std::size_t count = 1;
    for (const std::int64_t dim : parameter.dims) count *= static_cast<std::size_t>(dim);
    std::vector<float>& values = run_.parameters[parameter.name];
    std::vector<char>& given = given_[parameter.name];
    values.resize(count);
    given.resize(count, 0);
    bool differs = false;
    for (std::size_t i = 0; i < part.values.size(); ++i) {
      const std::size_t at = element_of(parameter, part, part.first + static_cast<std::int64_t>(i));
      differs = differs || (given[at] != 0 && values[at] != part.values[i]);
      values[at] = part.values[i];
      given[at] = 1;
    }
    if (differs) ++run_.num_unequal_copies;
  }

  const model::ModelGraph& graph_;
  const plan::Plan& plan_;
  const worker::TrainSettings& settings_;
  const Seconds step_limit_;
  std::mutex mutex_;
  std::vector<collective::Communicator*> open_;
  std::map<std::string, std::vector<char>> given_;  // elements of parameters that a rank had
  ThreadRun run_;
};

}  // namespace

ThreadRun train_in_threads(const model::ModelGraph& graph, const plan::Plan& plan,
                           const worker::TrainSettings& settings, Seconds step_limit) {
  return ThreadRanks(graph, plan, settings, step_limit).train();
}

}  // namespace coxswain::bench
