#include "planner/work_bound.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace coxswain::planner {
namespace {

/// Samples whose rates are looked at for the best rate of a block: all of a small micro-batch, powers of two of a large
/// one, where rates change slowly.
std::vector<std::int64_t> probe_samples(std::int64_t micro, std::int64_t fixed) {
  constexpr std::int64_t kSmall = 32;
  if (fixed > 0) return {fixed};
  std::vector<std::int64_t> samples;
  for (std::int64_t s = 1; s < micro; s += s < kSmall ? 1 : s) samples.push_back(s);
  samples.push_back(micro);
  return samples;
}

/// Least ticks of a sample in each block.
std::vector<double> best_rates(const SpanCosts& spans, UnitKind kind, const std::vector<std::int64_t>& probes) {
  std::vector<double> rates(static_cast<std::size_t>(spans.num_blocks()), std::numeric_limits<double>::max());
  for (const std::int64_t samples : probes) {
    const SampleTable& table = spans.table(kind, samples);
    for (std::size_t b = 0; b < rates.size(); ++b)
      rates[b] = std::min(rates[b], static_cast<double>(table.forward[b] + table.backward[b]) /
                                        static_cast<double>(samples));
  }
  return rates;
}

}  // namespace

WorkBound::WorkBound(const SpanCosts& spans, const std::vector<Pool>& pools, std::int64_t micro) {
  const auto probes = probe_samples(micro, spans.cost().facts().static_batch());
  std::vector<UnitKind> kinds;
  std::vector<std::vector<double>> rates;  // by kind
  std::vector<std::size_t> kind_of(pools.size(), 0);
  for (std::size_t p = 0; p < pools.size(); ++p) {
    if (pools[p].size() == 0) continue;
    const auto found = std::find(kinds.begin(), kinds.end(), pools[p].kind());
    kind_of[p] = static_cast<std::size_t>(found - kinds.begin());
    if (found != kinds.end()) continue;
    kinds.push_back(pools[p].kind());
    rates.push_back(best_rates(spans, kinds.back(), probes));
  }
  const auto num_blocks = static_cast<std::size_t>(spans.num_blocks());

  const auto add = [&](const std::vector<double>& price) {
    Prices prices;
    prices.sum = {0};
    for (std::size_t b = 0; b < num_blocks; ++b) prices.sum.push_back(prices.sum.back() + price[b]);
    for (std::size_t p = 0; p < pools.size(); ++p) {
      double speed = 0;
      for (std::size_t b = 0; b < num_blocks && pools[p].size() > 0; ++b) {
        const double rate = rates[kind_of[p]][b];
        if (rate > 0) speed = std::max(speed, price[b] / rate);
      }
      prices.speed.push_back(speed);
    }
    prices_.push_back(std::move(prices));
  };
  // What the fastest kind of each block takes; what each kind takes; the same of the blocks alone that take most.
  std::vector<double> least(num_blocks, std::numeric_limits<double>::max());
  for (const std::vector<double>& of_kind : rates) {
    for (std::size_t b = 0; b < num_blocks; ++b) least[b] = std::min(least[b], of_kind[b]);
  }
  if (rates.empty()) least.assign(num_blocks, 0);
  add(least);
  if (kinds.size() < 2) return;
  const cost_model::ModelFacts& facts = spans.cost().facts();
  for (const std::vector<double>& of_kind : rates) {
    add(of_kind);
    std::vector<double> of_signature(num_blocks, 0);
    for (std::size_t b = 0; b < num_blocks; ++b)
      of_signature[static_cast<std::size_t>(facts.signature_of(static_cast<int>(b)))] += of_kind[b];
    const auto heaviest = static_cast<int>(std::max_element(of_signature.begin(), of_signature.end()) -
                                           of_signature.begin());
    std::vector<double> some = of_kind;
    for (std::size_t b = 0; b < num_blocks; ++b) {
      if (facts.signature_of(static_cast<int>(b)) != heaviest) some[b] = 0;
    }
    add(some);
  }
}

Cost WorkBound::time_at(const Prices& prices, int end_block, double speed, std::int64_t samples) {
  const double worth = static_cast<double>(samples) * prices.sum[static_cast<std::size_t>(end_block)];
  if (worth <= 0) return 0;
  if (speed <= 0) return kNoCost;
  return static_cast<Cost>(std::floor(worth / speed * (1 - 1e-12)));
}

// C23
Cost WorkBound::least_time(int end_block, const Counts& units, std::int64_t samples) const {
  Cost most = 0;
  for (const Prices& prices : prices_) {
    double speed = 0;
    for (std::size_t p = 0; p < prices.speed.size(); ++p) speed += units.of[p] * prices.speed[p];
    most = std::max(most, time_at(prices, end_block, speed, samples));
  }
  return most;
}

}  // namespace coxswain::planner
