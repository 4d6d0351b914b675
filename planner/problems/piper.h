#pragma once
// Piper's planning problem (NeurIPS 21): cut a layer graph into pipeline stages, each with its own data-parallel (dp)
// and tensor-parallel (tp) degree and a choice of recomputed nodes, so that the slowest stage is as fast as possible.
// The cost function is Piper's own, formulas (1) to (10) below, and none of ours. The answer is the optimum of it, and
// the search says so in piper_search.h. Called by contest.h's list of families. Threads: pure.
// Legend: N micro-batches, K devices, M memory of a device, d_i = dp and t_i = tp of stage i, counted from the input.
//  (1) each node is in one stage and no edge leads to an earlier one; (2) d_i divides N; (3) sum d_i t_i <= K;
//  (4) sum d_i <= N; (5) stage i keeps y_i = ceil((d_i + d_{i+1} + ...) / d_i) stashes;
//  (6) an edge with one end outside costs 2 (its bytes + the inside option's sync bytes); (7) data-parallel bytes are
//  4 (d_i - 1) parameter_bytes / d_i / N; (8) sum over nodes of stash_bytes y_i + fixed_bytes <= M;
//  (9) load = (edge bytes / d_i + data-parallel bytes) / bandwidth + seconds / d_i; (10) score = largest load.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "planner/problems/contest.h"

namespace coxswain::planner {

/// One way to run a node: with a tp degree, its activations kept or recomputed.
struct PiperOption {
  std::int64_t tp = 1;
  bool recompute = false;
  double seconds = 0;  // forward and backward of one micro-batch
  double parameter_bytes = 0;
  double stash_bytes = 0;  // per stash
  double fixed_bytes = 0;
  std::vector<double> sync_in, sync_out;  // bytes, in the order of the node's in_edges and out_edges
};

struct PiperEdge {
  int from = 0, to = 0;  // positions in PiperInstance::nodes
  double bytes = 0;
};

struct PiperNode {
  std::int64_t id = 0;                   // in the file
  std::vector<PiperOption> options;      // ascending in tp, kept activations before recomputed ones
  std::vector<int> in_edges, out_edges;  // positions in PiperInstance::edges, ascending
};

struct PiperInstance {
  std::int64_t devices = 1;        // K
  std::int64_t micro_batches = 1;  // N
  double memory_bytes = 0;         // M
  double bytes_per_second = 0;
  std::vector<PiperNode> nodes;
  std::vector<PiperEdge> edges;  // no cycle
};

struct PiperStage {
  std::vector<int> nodes;  // positions, ascending
  std::int64_t dp = 1, tp = 1;
  std::vector<int> recompute_nodes;  // positions, ascending
  friend bool operator==(const PiperStage&, const PiperStage&) = default;
};

/// Errors: InvalidArgument, every problem listed: missing or negative numbers, unknown nodes, a sync entry that is
/// missing, two options of one node that are alike, a cycle.
[[nodiscard]] Result<PiperInstance> parse_piper(const Json& instance, const Json& model);

/// The option of `node` for `tp`, or null.
[[nodiscard]] const PiperOption* find_option(const PiperNode& node, std::int64_t tp, bool recompute);

/// Formula (10) for stages from the input side to the loss side, summed in the order of the nodes.
/// Errors: InvalidArgument with every rule of (1) to (4) that is broken, else every stage that breaks (8) or wants an
/// option that its node lacks.
[[nodiscard]] Result<double> estimate_piper(const PiperInstance& instance, const std::vector<PiperStage>& stages);

/// The best plan. Errors: ResourceExhausted when no plan fits.
[[nodiscard]] Result<ContestAnswer> solve_piper(const PiperInstance& instance, const ContestOptions& options);

/// Reads the instance and the model file that it names, relative to `file`, or Piper's own form (piper_file.h).
[[nodiscard]] Result<ContestSolver> load_piper(const Json& instance, const std::filesystem::path& file);

}  // namespace coxswain::planner
