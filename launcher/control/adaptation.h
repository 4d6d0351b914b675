#pragma once
// Measured against predicted: which devices and links of a run are other than they are said to be. Called by
// recalibration with a few steps that all ranks told the times of. Threads: pure. Source: docs/replanning.md.
//
// What is compared with what. A device: the forwards and backwards of its rank, each the median over the steps, with
// what the simulator took for them, that is with its class's profile, or where there is none with the roofline. It is
// off where it takes twice as long or half as long as that; or one and a half times, if it then also stands out by as
// much from the middle one of the devices: a machine that is busy slows all alike, and that says nothing of one of
// them. Ranks that share a mesh, or that gather parameters while they compute, wait for each other inside their
// computations: nothing is said of their devices.
// A link: what its receives and collectives took from when the last partner had come to the end (on one clock), each
// the least over the steps, since waiting only adds, with the same of the simulator; from both what latency takes is
// taken away. Only messages of which bandwidth is predicted to be the larger part count, and only those that are
// predicted or measured to take a millisecond: less than that is a matter of who gets the processor. It is off where it
// has twice the bandwidth or half of it.
#include <string>
#include <vector>

#include "common/json.h"
#include "cost_model/measured_trace.h"
#include "launcher/control/corrections.h"

namespace coxswain::launcher {

/// A plan, steps of it as they were, and as they were predicted.
struct LookedRun {
  cost_model::TraceBasis basis;
  cost_model::Simulation latencies;  // of the same plan, where bandwidth takes no time
  std::vector<RankBinding> ranks;    // where each one runs
  std::vector<cost_model::TracedStep> steps;
};

/// A device (`is_link` false) or a link that is off. Seconds are of all that counted, in one step.
struct Finding {
  bool is_link = false;
  int node = 0, other_node = 0;  // a link inside a node has both equal; of a device the first
  int local_device = 0;
  std::string device_class;
  std::vector<int> ranks;  // that it was seen on
  double predicted_seconds = 0, measured_seconds = 0;
  double rate_ratio = 1;  // of work or bandwidth, against what was predicted with
  friend bool operator==(const Finding&, const Finding&) = default;
};
/// The members of a `calibrated` event.
[[nodiscard]] JsonObject to_json(const Finding& finding);

struct Differences {
  std::vector<Finding> findings;  // devices by node, then links; empty: nothing is off
  /// Those known, multiplied. Where one device is off all are taken as they were measured, at the same time.
  Corrections corrections;
};
/// `then`: what run.basis.predicted was made with; `now`: what is known by now, which is what findings differ from.
/// Requires: at least one step, as MeasuredTrace::add wants them; run.ranks of all ranks.
/// Cost: O(steps x ranks x actions).
[[nodiscard]] Differences find_differences(const LookedRun& run, const Corrections& then, const Corrections& now);

}  // namespace coxswain::launcher
