#include "planner/work_bound.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace coxswain::planner {
namespace {

/// Samples whose rates are looked at for the best rate of a block: all of a small micro-batch, powers of two of a large
/// one, where rates change slowly.
std::vector<std::int64_t> probe_samples(std::int64_t micro, std::int64_t fixed, bool coarse) {
  const std::int64_t small = coarse ? 1 : 32;
  if (fixed > 0) return {fixed};
  std::vector<std::int64_t> samples;
  for (std::int64_t s = 1; s < micro; s += s < small ? 1 : s) samples.push_back(s);
  samples.push_back(micro);
  return samples;
}

/// Least ticks of a sample in each block.
std::vector<double> best_rates(const SpanCosts& spans, UnitKind kind, const std::vector<std::int64_t>& probes) {
  std::vector<double> rates(static_cast<std::size_t>(spans.num_blocks()), std::numeric_limits<double>::max());
  for (const std::int64_t samples : probes) {
    const SampleTable& table = spans.table(kind, samples);
    for (std::size_t b = 0; b < rates.size(); ++b)
      rates[b] =
          std::min(rates[b], static_cast<double>(table.forward[b] + table.backward[b]) / static_cast<double>(samples));
  }
  return rates;
}

}  // namespace

WorkBound::WorkBound(const SpanCosts& spans, const std::vector<std::vector<UnitKind>>& kinds, std::int64_t micro,
                     bool coarse) {
  const auto probes = probe_samples(micro, spans.cost().facts().static_batch(), coarse);
  const auto num_blocks = static_cast<std::size_t>(spans.num_blocks());
  // Ticks of a device for a sample: those of its unit, times the devices of the unit.
  std::vector<std::vector<UnitKind>> sets;
  std::vector<std::vector<double>> rates;  // by set of kinds
  std::vector<std::size_t> set_of(kinds.size(), 0);
  for (std::size_t p = 0; p < kinds.size(); ++p) {
    if (kinds[p].empty()) continue;
    const auto found = std::find(sets.begin(), sets.end(), kinds[p]);
    set_of[p] = static_cast<std::size_t>(found - sets.begin());
    if (found != sets.end()) continue;
    sets.push_back(kinds[p]);
    rates.emplace_back(num_blocks, std::numeric_limits<double>::max());
    for (const UnitKind& kind : kinds[p]) {
      const std::vector<double> of_unit = best_rates(spans, kind, probes);
      for (std::size_t b = 0; b < num_blocks; ++b)
        rates.back()[b] = std::min(rates.back()[b], of_unit[b] * kind.axes.size());
    }
  }

  const auto add = [&](const std::vector<double>& price) {
    Prices prices;
    prices.sum = {0};
    for (std::size_t b = 0; b < num_blocks; ++b) prices.sum.push_back(prices.sum.back() + price[b]);
    for (std::size_t p = 0; p < kinds.size(); ++p) {
      double speed = 0;
      for (std::size_t b = 0; b < num_blocks && !kinds[p].empty(); ++b) {
        const double rate = rates[set_of[p]][b];
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
  if (sets.size() < 2) return;
  const cost_model::ModelFacts& facts = spans.cost().facts();
  for (const std::vector<double>& of_kind : rates) {
    add(of_kind);
    std::vector<double> of_signature(num_blocks, 0);
    for (std::size_t b = 0; b < num_blocks; ++b)
      of_signature[static_cast<std::size_t>(facts.signature_of(static_cast<int>(b)))] += of_kind[b];
    const auto heaviest =
        static_cast<int>(std::max_element(of_signature.begin(), of_signature.end()) - of_signature.begin());
    std::vector<double> some = of_kind;
    for (std::size_t b = 0; b < num_blocks; ++b) {
      if (facts.signature_of(static_cast<int>(b)) != heaviest) some[b] = 0;
    }
    add(some);
  }
}

std::shared_ptr<const WorkBound> WorkBounds::get(const SpanCosts& spans,
                                                 const std::vector<std::vector<UnitKind>>& kinds, std::int64_t micro,
                                                 bool coarse) {
  std::shared_ptr<const WorkBound>& work = made_[{micro, kinds}];
  if (!work) work = std::make_shared<const WorkBound>(spans, kinds, micro, coarse);
  return work;
}

Cost WorkBound::time_at(const Prices& prices, int end_block, double speed, std::int64_t samples) {
  const double worth = static_cast<double>(samples) * prices.sum[static_cast<std::size_t>(end_block)];
  if (worth <= 0) return 0;
  if (speed <= 0) return kNoCost;
  return static_cast<Cost>(std::floor(worth / speed * (1 - 1e-12)));
}

// C23
Cost WorkBound::least_time(int end_block, const Counts& devices, std::int64_t samples) const {
  Cost most = 0;
  for (const Prices& prices : prices_) {
    double speed = 0;
    for (std::size_t p = 0; p < prices.speed.size(); ++p) speed += devices.of[p] * prices.speed[p];
    most = std::max(most, time_at(prices, end_block, speed, samples));
  }
  return most;
}

}  // namespace coxswain::planner
