#include "cost_model/uncertainty.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "cost_model/profile_times.h"

namespace coxswain::cost_model {

Uncertainty estimate_uncertainty(const CostModel& cost, const cluster::Profile& profile, const plan::Plan& plan) {
  std::map<std::pair<std::string, std::string>, std::vector<const cluster::BlockTiming*>> timings;
  for (const cluster::BlockTiming& timing : profile.blocks)
    timings[{timing.signature, timing.device_class}].push_back(&timing);
  for (auto& [key, points] : timings)
    std::sort(points.begin(), points.end(), [](const auto* a, const auto* b) { return a->samples < b->samples; });
  Uncertainty result;
  std::set<std::tuple<int, int, std::int64_t>> seen;
  for (const plan::Stage& stage : plan.stages) {
    for (const plan::Replica& replica : stage.replicas) {
      const int device_class = replica.devices.front().device_class;
      double all = 0, open = 0;
      for (int block = stage.first_block; block < stage.end_block; ++block) {
        const BlockTime time = cost.estimate_block(
            {block, device_class, replica.samples, plan.precision, replica.tensor, replica.context, replica.expert});
        const double seconds = time.forward.value + time.backward.value;
        const auto found = timings.find({cost.model().blocks[static_cast<std::size_t>(block)].signature,
                                         cost.resources().device_classes[static_cast<std::size_t>(device_class)].name});
        const double fraction =
            found == timings.end() ? 0.0 : interpolation_uncertainty(found->second, replica.samples);
        all += seconds;
        open += seconds * fraction;
        if (!seen.insert({block, device_class, replica.samples}).second) continue;
        ++result.num_blocks;
        result.num_interpolated += fraction > 0 ? 1 : 0;
      }
      if (all > 0) result.step_fraction = std::max(result.step_fraction, open / all);
    }
  }
  return result;
}

}  // namespace coxswain::cost_model
