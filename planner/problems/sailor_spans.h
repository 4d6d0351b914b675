#pragma once
// What stages of Sailor's contest cost before their zones are known. Zones with links of like speed form a region, GPUs
// of one type in a region a class, a class at one tensor-parallel degree a group; links of classes are taken at their
// best over the zones, so every number here is a bound from below that one zone per class makes exact.
// Used by the search over stages (sailor_stages.h). Threads: pure once built. Source: sailor_model.h.
#include <compare>
#include <map>
#include <tuple>
#include <vector>

#include "planner/label_search.h"
#include "planner/problems/sailor_model.h"

namespace coxswain::planner {

inline constexpr double kSailorTicks = 1e12;  // in a second, in a dollar

struct SailorClass {
  int gpu = 0;
  std::vector<int> pools;
  int count = 0, largest_pool = 0;
};

inline constexpr std::size_t kMaxSailorClasses = 8;

/// The largest kMaxSailorClasses classes.
[[nodiscard]] std::vector<SailorClass> make_classes(const SailorModel& model);

struct SailorGroup {
  int class_index = 0, tp = 1;
};

/// One group, or two that share a stage.
struct SailorComposition {
  int first = -1, second = -1;
  friend auto operator<=>(const SailorComposition&, const SailorComposition&) = default;
  [[nodiscard]] bool mixed() const { return second >= 0; }
};

/// What a stage costs by group and span, for one micro-batch size, in ticks.
class SailorSpans {
 public:
  SailorSpans(const SailorModel& model, const std::vector<SailorClass>& classes, int micro_batch);

  [[nodiscard]] const SailorModel& model() const { return model_; }
  [[nodiscard]] const std::vector<SailorClass>& classes() const { return classes_; }
  [[nodiscard]] int micro_batch() const { return micro_batch_; }
  [[nodiscard]] int num_layers() const { return num_layers_; }
  [[nodiscard]] const std::vector<SailorGroup>& groups() const { return groups_; }

  /// kNoCost when there is no profile or no memory. The following take the slower group of a mixed stage.
  [[nodiscard]] Cost compute(SailorComposition composition, int first, int end) const;
  [[nodiscard]] int max_depth(SailorComposition composition, int first, int end) const;
  [[nodiscard]] Cost update(SailorComposition composition, int first) const;
  /// The output of `layer`, to the group it can be sent to fastest; to a composition.
  [[nodiscard]] Cost least_send(SailorComposition from, int layer) const;
  [[nodiscard]] Cost send(SailorComposition from, SailorComposition to, int layer) const;
  /// compute + transfer, at least, whatever the neighbours are.
  [[nodiscard]] Cost least_round(SailorComposition composition, int first, int end) const;
  /// Least compute ticks of layers before `end`; least dollars of one micro-batch of them on one replica.
  [[nodiscard]] Cost least_compute(int end) const { return least_compute_[static_cast<std::size_t>(end)]; }
  [[nodiscard]] double least_usd(int end) const { return least_usd_[static_cast<std::size_t>(end)]; }
  [[nodiscard]] double usd_per_second(int group) const;
  /// GPUs times seconds of one micro-batch through all layers, at the best degree of each.
  [[nodiscard]] double least_gpu_seconds(int class_index) const {
    return least_gpu_seconds_[static_cast<std::size_t>(class_index)];
  }
  /// Dollars of 10^9 bytes there and as many back, at least.
  [[nodiscard]] double least_usd_per_gb(std::size_t class_index, std::size_t other) const {
    return least_usd_per_gb_[class_index * classes_.size() + other];
  }
  /// Some transfer costs dollars.
  [[nodiscard]] bool has_egress() const { return has_egress_; }

 private:
  [[nodiscard]] std::size_t place(int group, int first, int end) const;
  [[nodiscard]] Cost send_to_group(int from, int to, int layer) const;
  void fill_links();
  void fill_spans();
  void fill_prices();

  const SailorModel& model_;
  const std::vector<SailorClass>& classes_;
  int micro_batch_, num_layers_;
  std::vector<SailorGroup> groups_;
  std::vector<Cost> compute_;  // by group, first, end
  std::vector<int> depth_;
  std::vector<Cost> update_;         // by group, first
  std::vector<int> size_of_layer_;   // place of its output's size among all sizes
  std::vector<Cost> links_, least_;  // by size, from group (, to group)
  std::vector<Cost> least_compute_;
  std::vector<double> least_usd_;
  std::vector<double> least_gpu_seconds_;  // by class
  std::vector<double> least_usd_per_gb_;   // by class, other class
  bool has_egress_ = false;
};

/// Gradient reductions for one replica count, in ticks, with the zones in the best order that the pools allow. Numbers
/// are remembered: one object per thread.
class SailorRings {
 public:
  SailorRings(const SailorSpans& spans, int num_replicas);
  [[nodiscard]] Cost sync(SailorComposition composition, int first, int end);
  [[nodiscard]] double egress_usd(SailorComposition composition, int first, int end) const;
  /// For the layers before `end`, however they are cut.
  [[nodiscard]] Cost least_sync(int end) const { return least_[static_cast<std::size_t>(end)]; }

 private:
  [[nodiscard]] double inner_ring(double bytes, int class_index, int tp) const;
  [[nodiscard]] double cross_ring(double bytes, int from_class, int to_class) const;
  [[nodiscard]] Cost sync_of(SailorComposition composition, int first, int end) const;

  const SailorSpans& spans_;
  int num_replicas_;
  std::vector<Cost> least_;
  std::map<std::tuple<int, int, int, int>, Cost> known_;
};

}  // namespace coxswain::planner
