#pragma once
// Metis's cost function, formulas (1) to (7) of metis.h, with points that were not measured interpolated in the batch.
// Threads: pure once built.
#include <optional>
#include <vector>

#include "planner/problems/metis.h"

namespace coxswain::planner {

/// One shard at one batch; sums over the layers before, so that a span is a difference.
struct MetisTimes {
  std::vector<double> ms, low_ms, high_ms;  // low and high: what an interpolated time may be, equal where measured
  std::vector<double> mb;                   // with one micro-batch in flight
  std::vector<double> growth_mb;            // of each further one
  double sync_ms = 0;
  bool measured = true;
};

struct MetisEstimate {
  double ms = 0, low_ms = 0, high_ms = 0;
};

class MetisModel {
 public:
  explicit MetisModel(const MetisInstance& instance);
  [[nodiscard]] const MetisInstance& instance() const { return instance_; }

  /// Between two measured batches time, memory and sync are interpolated linearly. A time lies between bounds that hold
  /// when a larger batch takes neither less time nor more time a sample; where the two points break that, between them.
  /// None: the shard was not measured, or only at smaller or only at larger batches.
  [[nodiscard]] std::optional<MetisTimes> times(MetisShard shard, std::int64_t batch) const;

  [[nodiscard]] int num_devices(int type) const;
  /// The host of a device, numbered over all types.
  [[nodiscard]] int host_of(int type, int device) const;
  /// The first device from `from` on where `count` groups of `tp` consecutive devices lie inside hosts each; none: -1.
  [[nodiscard]] int find_room(int type, int tp, int count, int from) const;
  /// The one host that holds all of the stage's devices, or -1.
  [[nodiscard]] int common_host(const MetisStage& stage) const;
  /// Of the stage's types, for what leaves a host.
  [[nodiscard]] double network_bytes_per_ms(const MetisStage& stage) const;

  // Formulas 3 to 6 for a stage; requires measured or interpolated points.
  [[nodiscard]] double sync_ms(const MetisStage& stage) const;
  [[nodiscard]] double update_ms(const MetisStage& stage) const;
  [[nodiscard]] double reduce_ms(const MetisStage& stage) const;
  [[nodiscard]] double cut_ms(const MetisStage& stage, const MetisStage& next) const;

  /// Formula 2. None: the plan breaks a rule (layers, samples, devices, hosts, points) or formula 7.
  [[nodiscard]] std::optional<MetisEstimate> estimate(const MetisPlan& plan) const;

 private:
  [[nodiscard]] bool keeps_rules(const MetisPlan& plan) const;

  const MetisInstance& instance_;
  std::vector<std::vector<int>> hosts_;    // by type and device
  std::vector<double> parameters_before_;  // bytes of the layers before
};

}  // namespace coxswain::planner
