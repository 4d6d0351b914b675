#pragma once
// The best cut of a chain of units into stages for one shape, as a Problem of the label search. Stage j of units [a, b)
// takes s_j = slowness_j x unit seconds (+ both its cuts when sends block) per micro-batch, and the step takes
//   rounds x max s_j + sum s_j + (sum of cuts, when sends do not block) + max_j (sync_j - part hidden by earlier
//   stages).
// The peer's function and our own differ in the numbers only. Threads: one problem per thread.
// Source: formulas 5 to 8 of the AMP contest; our terms: amp_model.h.
#include <compare>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "planner/label_search.h"
#include "planner/problems/amp.h"

namespace coxswain::planner {

struct AmpSplitCosts {
  int num_stages = 1;
  std::int64_t rounds = 0;                         // micro-batches less one
  std::vector<double> unit_seconds;                // forward and backward of one micro-batch
  std::vector<double> unit_parameters;             // of one rank
  std::vector<bool> unit_embedding;                // at most one of a stage counts, the largest
  std::vector<double> unit_output;                 // numbers of one micro-batch that a rank sends after the unit
  std::vector<double> unit_activation;             // bytes kept per micro-batch in flight; empty: memory is free
  std::vector<double> slowness;                    // by stage: its time over unit_seconds
  std::vector<double> cut_seconds_per_number;      // by stage: after it
  std::vector<double> sync_seconds_per_parameter;  // by stage
  bool blocking_sends = false;
  double hidden_fraction = 0;  // of the time of earlier stages, in which a stage can reduce its gradients
  double state_bytes_per_parameter = 0, device_bytes = 0;
  double extra_seconds = 0;  // of the step, whatever the cut
};

struct AmpSplit {
  double seconds = 0;
  std::vector<int> split;
  std::int64_t num_labels = 0;
};

/// The cut of least seconds; equal ones by the order of the search. None: no cut fits in the memory.
/// Requires: as many units as stages at least.
[[nodiscard]] std::optional<AmpSplit> find_amp_split(const AmpSplitCosts& costs);

/// Formulas 1 to 7 for `shape`.
[[nodiscard]] AmpSplitCosts peer_split_costs(const AmpInstance& instance, const AmpShape& shape);

/// Bandwidths between ranks, which fill the nodes in order: rank = shard + tp x replica + tp x dp x stage.
class AmpRanks {
 public:
  AmpRanks(const AmpInstance& instance, const AmpShape& shape);
  [[nodiscard]] int node(int stage, int replica, int shard) const;
  /// Inside a node its own, else the smaller of the two nodes'.
  [[nodiscard]] double bandwidth(int from_node, int to_node) const;

 private:
  const AmpInstance& instance_;
  AmpShape shape_;
  std::vector<int> node_of_;
};

}  // namespace coxswain::planner
