#pragma once
// Trains a plan with every rank a thread of this process over the `host` backend: through shared memory where ranks
// have a node in common, over loopback TCP where each has its own. Threads: one a rank.
#include <string>
#include <thread>
#include <vector>

#include "collective/backend.h"
#include "tests/support/temp_dir.h"
#include "tests/worker/training_run.h"

namespace coxswain::tests {

/// The world's communicator, and those of the plan's groups.
struct HostCommunicators {
  std::unique_ptr<collective::Communicator> world;
  std::vector<std::unique_ptr<collective::Communicator>> groups;
  std::vector<collective::Communicator*> borrowed;  // by group
};

inline Result<HostCommunicators> make_communicators(std::unique_ptr<collective::Communicator> world,
                                                    const std::vector<plan::Group>& groups, int rank) {
  HostCommunicators made;
  made.world = std::move(world);
  for (const plan::Group& group : groups) {
    if (group.kind == plan::GroupKind::World) {
      made.borrowed.push_back(made.world.get());
      continue;
    }
    const bool member = std::find(group.ranks.begin(), group.ranks.end(), rank) != group.ranks.end();
    COX_TRY(auto communicator,
            made.world->split(member ? group.ranks : std::vector<int>{}, Deadline::after(steady_clock(), Seconds(60))));
    made.borrowed.push_back(communicator.get());
    made.groups.push_back(std::move(communicator));
  }
  return made;
}

inline TrainingRun train_over_host(const model::ModelGraph& graph, const plan::Plan& plan,
                                   const worker::TrainSettings& settings, bool one_node) {
  const TempDir scratch;
  const int size = plan::num_ranks(plan);
  TrainingRun run;
  std::mutex mutex;
  std::vector<collective::CompletionSignal> signals(size);
  std::vector<std::unique_ptr<collective::Endpoint>> endpoints;
  std::vector<std::string> addresses;
  for (int rank = 0; rank < size; ++rank) {
    collective::EndpointOptions options;
    options.rank = rank;
    options.size = size;
    options.node = one_node ? "node" : "node " + std::to_string(rank);
    options.job_key = "key of this test";
    options.run_id = "tied";
    options.scratch_dir = scratch.path();
    options.signal = &signals[rank];
    auto endpoint = collective::open_endpoint(options);
    if (!endpoint) {
      run.problems.push_back(to_text(endpoint.error()));
      return run;
    }
    addresses.push_back((*endpoint)->address());
    endpoints.push_back(std::move(*endpoint));
  }
  const auto one_rank = [&](int rank) -> Result<void> {
    const Deadline deadline = Deadline::after(steady_clock(), Seconds(60));
    COX_TRY(auto world, endpoints[rank]->connect(addresses, deadline));
    COX_TRY(const HostCommunicators made,
            make_communicators(std::move(world), plan::rank_groups(plan, graph, rank), rank));
    COX_TRY_VOID(train_rank(graph, plan, rank, settings, made.borrowed, signals[rank], run, mutex));
    // No rank takes its memory away while another still reads from it.
    return made.world->barrier(deadline).wait(deadline);
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      const auto result = guard("tests", [&] { return one_rank(rank); });
      if (result) return;
      const std::lock_guard lock(mutex);
      run.problems.push_back("rank " + std::to_string(rank) + ": " + to_text(result.error()));
    });
  }
  for (auto& thread : threads) thread.join();
  return run;
}

}  // namespace coxswain::tests
