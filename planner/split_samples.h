#pragma once
// The min-max split of a micro-batch over replicas of several classes; see stage_cost.h. Threads: pure.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace coxswain::planner {

template <class Time>
std::vector<SplitShare> split_samples(std::int64_t micro, const std::vector<SplitClass>& classes, Time time) {
  std::int64_t replicas = 0;
  for (const SplitClass& entry : classes) replicas += entry.replicas;
  if (replicas == 0 || replicas > micro) return {};

  // Everyone has one; then whole rounds by rate, a little short of the proportional share, so that few single steps
  // remain.
  std::vector<std::int64_t> base(classes.size(), 1);
  std::int64_t left = micro - replicas;
  double rates = 0;
  const std::int64_t probe = std::max<std::int64_t>(1, micro / replicas);
  for (const SplitClass& entry : classes)
    rates += entry.replicas / static_cast<double>(std::max<std::int64_t>(1, time(entry.key, probe)));
  for (std::size_t c = 0; c < classes.size(); ++c) {
    const double share = static_cast<double>(micro) /
                         static_cast<double>(std::max<std::int64_t>(1, time(classes[c].key, probe))) / rates;
    const std::int64_t start = classes.size() == 1
                                   ? micro / replicas
                                   : std::max<std::int64_t>(1, static_cast<std::int64_t>(std::floor(share * 0.9)) - 1);
    base[c] = std::min({start, classes[c].limit, 1 + left / classes[c].replicas});
    if (base[c] < 1) return {};
    left -= (base[c] - 1) * classes[c].replicas;
  }

  std::vector<std::int32_t> extra(classes.size(), 0);  // replicas of the class that have one more
  while (left > 0) {
    std::size_t best = classes.size();
    std::int64_t best_time = 0;
    for (std::size_t c = 0; c < classes.size(); ++c) {
      if (base[c] + 1 > classes[c].limit) continue;
      const std::int64_t after = time(classes[c].key, base[c] + 1);
      if (best == classes.size() || after < best_time) {
        best = c;
        best_time = after;
      }
    }
    if (best == classes.size()) return {};
    const auto given = static_cast<std::int32_t>(std::min<std::int64_t>(left, classes[best].replicas - extra[best]));
    extra[best] += given;
    left -= given;
    if (extra[best] == classes[best].replicas) {
      ++base[best];
      extra[best] = 0;
    }
  }
  std::vector<SplitShare> shares;
  for (std::size_t c = 0; c < classes.size(); ++c) shares.push_back({base[c], extra[c]});
  return shares;
}

}  // namespace coxswain::planner
