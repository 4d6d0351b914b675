#pragma once
// The layers of one pipeline stage as a Problem of the label search: which strategy for how many of like layers, in
// which order, within the stage's memory. Order matters only where the degree changes. What a choice does to the step
// is bounded from below by linear charges, so that only choices that can beat the incumbent are followed; what is left
// of memory and layers is bounded by the lower convex hull of (memory, cost). Threads: one problem per thread. Source:
// DESIGN 3.5; multiple-choice knapsack relaxed (Kellerer et al., "Knapsack Problems", 11.2).
#include <compare>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "planner/label_search.h"
#include "planner/problems/galvatron.h"

namespace coxswain::planner {

struct GalvatronLayerOption {
  GalvatronStrategy strategy;
  int degree = 1;
  Cost free = 0, sync = 0;  // time without and with gradient sync
  std::int64_t memory = 0;
};

/// The step takes at least base + free x stage time + sync x layer time with sync.
struct GalvatronCharge {
  Cost base = 0;
  std::int64_t free = 0, sync = 0;
};

struct GalvatronStage {
  std::vector<GalvatronLayerOption> options;  // of one degree together
  int layers = 1;
  std::int64_t capacity = 0;       // memory of all layers
  Cost end_free = 0;               // time of embedding or head, part of the stage's time without sync
  std::map<int, Cost> resharding;  // by the larger degree; absent: no such change
  std::int64_t resharding_weight = 1;
  std::vector<GalvatronCharge> charges;
  Cost upper_bound = kNoCost;
};

struct GalvatronChoice {
  Cost free = 0, sync = 0, resharding = 0;
  std::vector<int> options;  // by layer
};

/// Every choice below the upper bound that no other one beats in free, sync and resharding between the same end
/// degrees. Adds the labels kept to `num_labels`.
[[nodiscard]] std::vector<GalvatronChoice> find_stage_choices(const GalvatronStage& stage, std::int64_t& num_labels);

/// The best choice of at most two strategies of one degree, by the greatest charge. Empty options: none fits.
[[nodiscard]] GalvatronChoice round_stage(const GalvatronStage& stage);

/// Options that another one of their degree does not beat in memory and both times.
[[nodiscard]] std::vector<GalvatronLayerOption> undominated(const std::vector<GalvatronLayerOption>& options);

/// The lower convex hull of points (memory, cost).
class GalvatronHull {
 public:
  GalvatronHull() = default;
  explicit GalvatronHull(std::vector<std::pair<std::int64_t, Cost>> points);
  /// No `count` of the points within `memory` together cost less. kNoCost: none are within.
  [[nodiscard]] Cost least(std::int64_t count, std::int64_t memory) const;

 private:
  std::vector<std::pair<std::int64_t, Cost>> corners_;  // rising memory, falling cost
};

}  // namespace coxswain::planner
