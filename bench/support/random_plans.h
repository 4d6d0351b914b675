#pragma once
// Random plans that validate: every degree of freedom that the worker reports, mixed. The same (graph, cluster, seed,
// number) gives the same plan, whatever was drawn before, so that one of many can be run again alone.
// Called by parity and plan_accuracy. Threads: one at a time. Source: issue 5, row a.
#include <cstdint>
#include <filesystem>
#include <string>

#include "cluster/resource_graph.h"
#include "model/model_graph.h"
#include "plan/plan.h"
#include "plan/program.h"

namespace coxswain::bench {

struct RandomPlanOptions {
  std::int64_t global_batch = 24;
  int max_ranks = 8;
  std::uint64_t seed = 1;
  std::string backend = "host";
  plan::Capabilities capabilities = plan::kRunnable;
};

/// One class of `num_devices` equal CPUs on one node, with assumed rates: plans need counts, nobody costs anything.
[[nodiscard]] cluster::ResourceGraph make_flat_cluster(int num_devices);

/// Plan number `number` (from 0): draws until one validates. Throws std::runtime_error where thousands do not.
[[nodiscard]] plan::Plan draw_plan(const model::ModelGraph& graph, const cluster::ResourceGraph& cluster,
                                   const RandomPlanOptions& options, std::uint64_t number);

/// One rank, the whole model, `count` micro-batches, nothing recomputed: what every plan is compared with.
[[nodiscard]] plan::Plan make_serial_plan(const model::ModelGraph& graph, const cluster::ResourceGraph& cluster,
                                          std::int64_t global_batch, std::int64_t count, plan::Precision precision);

/// One line: "zbh1 bfloat16 x4 | 0-3 [5,3] t2 z1 r2 | 3-8 [8]".
[[nodiscard]] std::string describe(const plan::Plan& plan);

/// A replica's ranks: the devices of a tensor or context axis. Its predicted memory is that of the fullest one: parts
/// may be uneven.
struct ReplicaRanks {
  int stage = 0, replica = 0;
  std::vector<int> ranks;
};
[[nodiscard]] std::vector<ReplicaRanks> replica_ranks(const plan::Plan& plan);

}  // namespace coxswain::bench
