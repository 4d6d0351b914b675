#pragma once
// Which device holds which slice of the training's state (parameters, float32 masters, moments of the optimizer,
// buffers) under a plan, and what two plans have in common. Aggregated: elements that the same stages hold and that
// split alike are one part, whose slices are intervals of [0, 1); nothing is per parameter and device. Called by move
// and assign_devices. Threads: pure. Source: docs/cost_model.md, C70, C71.
#include <array>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cost_model/cost_model.h"
#include "plan/plan.h"

namespace coxswain::planner {

/// A run of the elements of a part, as a fraction of all of them: [begin, end).
struct Slice {
  double begin = 0, end = 0;
  [[nodiscard]] double length() const { return end > begin ? end - begin : 0; }
  friend bool operator==(const Slice&, const Slice&) = default;
};
[[nodiscard]] Slice intersect(Slice a, Slice b);
/// Ascending, without overlaps.
[[nodiscard]] std::vector<Slice> unite(std::vector<Slice> slices);
/// What of `from` is in none of `taken`. Requires: both as unite gives them.
[[nodiscard]] std::vector<Slice> subtract(const std::vector<Slice>& from, const std::vector<Slice>& taken);
[[nodiscard]] double length_of(const std::vector<Slice>& slices);

/// The ZeRO stage from which on a kind of state is split over the replicas.
enum class SplitFrom { Optimizer = 1, Parameters = 3, Never = 4 };

/// Elements by the axes that split them.
struct Strip {
  bool tensor = false, expert = false;
};
inline constexpr std::array<Strip, 4> kStrips{{{false, false}, {true, false}, {false, true}, {true, true}}};

/// C70: what of a strip the device at `position` of `replica` holds: its share of the expert and of the tensor axis,
/// and of that its own share where ZeRO splits this kind of state over the devices that hold the same.
[[nodiscard]] Slice slice_of(const plan::Stage& stage, int replica, int position, Strip strip, SplitFrom split);

/// State that the same stages of the running plan hold and the same stages of the next plan need.
struct StatePart {
  std::vector<int> from, to;  // stages of the running and of the next plan, ascending
  SplitFrom split = SplitFrom::Never;
  std::array<double, kStrips.size()> bytes{};  // by strip
};
/// Ascending in (from, to, split). Memory is counted as C14 counts it, without gradients.
[[nodiscard]] std::vector<StatePart> make_state_parts(const cost_model::CostModel& cost, const plan::Plan& running,
                                                      const plan::Plan& next);

/// C71: bytes that stay where a device goes from one place of the running plan to one of the next plan.
class KeptBytes {
 public:
  KeptBytes(const cost_model::CostModel& cost, const plan::Plan& running, const plan::Plan& next);
  [[nodiscard]] double operator()(plan::RankPlace from, plan::RankPlace to) const;
  [[nodiscard]] const std::vector<StatePart>& parts() const { return parts_; }

 private:
  const plan::Plan& running_;
  const plan::Plan& next_;
  std::vector<StatePart> parts_;
  std::map<std::pair<int, int>, std::vector<std::size_t>> of_stages_;
};

}  // namespace coxswain::planner
