#pragma once
// Sailor's cost function: seconds and dollars of one iteration of a plan, and its parts for the search. Equation
// numbers are those of the contest's README. A kind is a GPU type at one tensor-parallel degree, a seat is a pool at
// one degree; tables are dense over both. Times that some missing table entry would decide are infinite.
// Threads: pure once built. Source: sailor.h.
#include <limits>
#include <optional>
#include <vector>

#include "planner/problems/sailor.h"

namespace coxswain::planner {

inline constexpr double kNever = std::numeric_limits<double>::infinity();
/// Equation 9: gradients are taken as cut over at most so many GPUs.
inline constexpr int kMaxSailorSyncDegree = 4;

struct SailorEstimate {
  double seconds = 0, usd = 0;
  /// Sum of all link and ring times, weighted by how many replicas see them: tells plans of equal slowest links apart.
  double traffic_seconds = 0;
};

class SailorModel {
 public:
  explicit SailorModel(const SailorInstance& instance);

  [[nodiscard]] const SailorInstance& instance() const { return instance_; }
  [[nodiscard]] const std::vector<int>& degrees() const { return degrees_; }              // of tp, ascending
  [[nodiscard]] const std::vector<int>& micro_batches() const { return micro_batches_; }  // with a profile, ascending

  /// Equations 1 and 2. Infinite without a curve.
  [[nodiscard]] double send_seconds(double bytes, int from_pool, int from_tp, int to_pool, int to_tp) const;
  [[nodiscard]] double all_reduce_seconds(double bytes, int num_replicas, int from_pool, int to_pool) const;

  /// Equation 3, with `depth` = P - i.
  [[nodiscard]] double memory_bytes(int tp, int micro_batch, int first, int end, int depth) const;
  /// The greatest depth that fits on a GPU of that type; 0: none.
  [[nodiscard]] int max_depth(int gpu, int tp, int micro_batch, int first, int end) const;
  /// Equations 5 and 6 for one replica.
  [[nodiscard]] double compute_seconds(int gpu, int tp, int micro_batch, int first, int end) const;
  [[nodiscard]] double update_seconds(int gpu, int tp, int micro_batch, int first) const;
  /// Bytes of a layer's output for one micro-batch, of a span's parameters at tp 1.
  [[nodiscard]] double output_bytes(int micro_batch, int layer) const;
  [[nodiscard]] double parameter_bytes(int first, int end) const;
  [[nodiscard]] double usd_per_gb(int from_pool, int to_pool) const;
  /// Equation 4.
  [[nodiscard]] std::int64_t num_micro_batches(int micro_batch, std::int64_t num_replicas) const;

  /// Equations 4 to 12. None: the plan breaks a rule other than the instance's limits.
  [[nodiscard]] std::optional<SailorEstimate> estimate(const SailorPlan& plan) const;
  /// The instance's limits.
  [[nodiscard]] bool within_limits(const SailorEstimate& estimate) const;

 private:
  struct Profile {
    std::vector<double> compute;  // of the layers before
    std::vector<int> missing;     // how many of them have no row
    std::vector<double> update;
  };
  struct Shard {
    std::vector<double> parameters, activations;  // of the layers before
    std::vector<int> missing;
  };
  struct Transfers;

  [[nodiscard]] int degree_place(int tp) const;
  [[nodiscard]] const Profile* profile(int gpu, int tp, int micro_batch) const;
  [[nodiscard]] const std::optional<SailorCurve>& curve(int from_pool, int from_place, int to_pool, int to_place) const;
  [[nodiscard]] bool keeps_rules(const SailorPlan& plan) const;
  [[nodiscard]] double gpu_usd_per_second(const SailorPlan& plan) const;
  void add_link(const SailorPlan& plan, std::size_t stage, Transfers& transfers) const;
  void add_ring(const SailorPlan& plan, std::size_t stage, int num_replicas, Transfers& transfers) const;

  const SailorInstance& instance_;
  std::vector<int> degrees_, micro_batches_;
  std::vector<int> place_of_degree_, place_of_micro_batch_;
  std::vector<Profile> profiles_;  // by micro-batch, GPU, degree
  std::vector<Shard> shards_;      // by degree
  std::vector<double> output_numbers_;
  std::vector<std::optional<SailorCurve>> curves_;       // by pool and degree, twice
  std::vector<std::optional<SailorCurve>> ring_curves_;  // by pool, twice
  std::vector<double> usd_per_gb_;                       // by pool, twice
};

/// Replicas of the plan's stages. Requires: a stage.
[[nodiscard]] int num_replicas(const SailorPlan& plan);

}  // namespace coxswain::planner
