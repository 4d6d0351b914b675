#include "planner/stage_cost.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "cost_model/collective_time.h"

namespace coxswain::planner {

const StageCost& StageCosts::stage(int first, int end, int composition, int in_flight) {
  constexpr int kBlockBits = 12, kCompositionBits = 14;
  std::uint64_t key = static_cast<std::uint64_t>(in_flight);
  key = (key << kCompositionBits) | static_cast<std::uint64_t>(composition);
  key = (key << kBlockBits) | static_cast<std::uint64_t>(first);
  key = (key << kBlockBits) | static_cast<std::uint64_t>(end);
  const auto found = stages_.find(key);
  if (found != stages_.end()) return found->second;
  return stages_
      .emplace(key, compute(first, end, context_.compositions[static_cast<std::size_t>(composition)], in_flight))
      .first->second;
}

std::vector<std::int64_t> StageCosts::split(int first, int end, const Counts& counts, int in_flight) {
  const std::vector<Pool>& pools = *context_.pools;
  const SpanCosts& spans = *context_.spans;
  const std::int64_t fixed = spans.cost().facts().static_batch();
  if (fixed > 0) {
    if (context_.micro != fixed * counts.total()) return {};
    return std::vector<std::int64_t>(static_cast<std::size_t>(counts.total()), fixed);
  }
  const auto time = [&](int device_class, std::int64_t samples) {
    const SampleTable& table = spans.table(device_class, samples);
    return spans.forward(table, first, end) + spans.backward(table, first, end);
  };
  std::vector<SplitClass> classes;
  for (std::size_t p = 0; p < pools.size(); ++p) {
    if (counts.of[p] > 0)
      classes.push_back({counts.of[p], pools[p].device_class, std::numeric_limits<std::int64_t>::max()});
  }

  if (!context_.samples.empty()) {
    if (context_.samples.size() != static_cast<std::size_t>(counts.total())) return {};
    // The largest share to the fastest class; the order within the stage stays pool by pool.
    std::vector<std::int64_t> sorted = context_.samples;
    std::sort(sorted.rbegin(), sorted.rend());
    std::vector<std::size_t> order(static_cast<std::size_t>(counts.total()));
    std::vector<Ticks> speed;
    for (const SplitClass& entry : classes)
      speed.insert(speed.end(), static_cast<std::size_t>(entry.replicas), time(entry.key, sorted.front()));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return speed[a] < speed[b]; });
    std::vector<std::int64_t> samples(order.size());
    for (std::size_t i = 0; i < order.size(); ++i) samples[order[i]] = sorted[i];
    return samples;
  }

  std::vector<std::int64_t> samples = split_samples(context_.micro, classes, time);
  if (classes.size() < 2 || samples.empty()) return samples;
  // Where a class has too little memory for its share, the others take the rest.
  bool limited = false;
  const int credits = static_cast<int>(std::min<std::int64_t>(context_.receive_credits, context_.count));
  for (SplitClass& entry : classes) {
    const auto fits = [&](std::int64_t x) {
      return spans.fit(spans.table(entry.key, x), {first, end, in_flight, credits}).fits;
    };
    std::size_t at = 0;
    for (const SplitClass& before : classes) {
      if (&before == &entry) break;
      at += static_cast<std::size_t>(before.replicas);
    }
    std::int64_t most = samples[at];
    if (fits(most)) continue;
    while (most > 0 && !fits(most)) --most;
    if (most == 0) return samples;  // does not fit at all; reported by compute
    entry.limit = most;
    limited = true;
  }
  if (!limited) return samples;
  std::vector<std::int64_t> mended = split_samples(context_.micro, classes, time);
  return mended.empty() ? samples : mended;
}

Ticks StageCosts::collective(collective::CollectiveKind kind, std::int64_t bytes, const Counts& counts) {
  if (bytes == 0 || counts.total() < 2) return 0;
  const std::tuple key{static_cast<int>(kind), bytes, counts};
  const auto found = collectives_.find(key);
  if (found != collectives_.end()) return found->second;
  const std::vector<Pool>& pools = *context_.pools;
  std::vector<plan::DeviceId> devices;
  for (std::size_t p = 0; p < pools.size(); ++p) {
    const std::int64_t stride = context_.spread ? context_.num_stages : 1;
    for (std::int32_t i = 0; i < counts.of[p]; ++i)
      devices.push_back(pools[p].devices[static_cast<std::size_t>(i * stride)]);
  }
  const Ticks time = cost_model::to_ticks(context_.spans->cost().estimate_collective(kind, Bytes(bytes), devices));
  return collectives_[key] = time;
}

StageCost StageCosts::compute(int first, int end, const Counts& counts, int in_flight) {
  StageCost result;
  const std::vector<Pool>& pools = *context_.pools;
  const SpanCosts& spans = *context_.spans;
  result.samples = split(first, end, counts, in_flight);
  result.splits = !result.samples.empty();
  if (!result.splits) return result;
  const int credits = static_cast<int>(std::min<std::int64_t>(context_.receive_credits, context_.count));

  // Replicas of one class and number of samples are one case.
  std::vector<const SampleTable*> cases;
  std::size_t replica = 0;
  for (std::size_t p = 0; p < pools.size(); ++p) {
    for (std::int32_t i = 0; i < counts.of[p]; ++i, ++replica) {
      const SampleTable& table = spans.table(pools[p].device_class, result.samples[replica]);
      if (std::find(cases.begin(), cases.end(), &table) == cases.end()) cases.push_back(&table);
    }
  }
  // One list of recomputed blocks serves all replicas: what one of them needs, all do. A second pass sees the union.
  const SpanQuery query{first, end, in_flight, credits};
  for (int pass = 0; pass < 2; ++pass) {
    result.fits = true;
    for (const SampleTable* table : cases) {
      Fit fit = spans.fit(*table, query, result.recompute);
      result.recompute = std::move(fit.recompute);
      if (fit.fits) continue;
      result.fits = false;
      const std::int64_t capacity =
          spans.cost().resources().device_classes[static_cast<std::size_t>(table->device_class)].memory.value.value;
      if (fit.bytes - capacity > result.excess_bytes) {
        result.excess_bytes = fit.bytes - capacity;
        result.excess_class = table->device_class;
      }
    }
    if (cases.size() == 1) break;
  }

  bool any = false;
  result.least_samples = *std::min_element(result.samples.begin(), result.samples.end());
  for (const SampleTable* table : cases) {
    Ticks recompute = 0;
    for (int block = first; block < end; ++block) {
      if (result.recompute[static_cast<std::size_t>(block - first)] == plan::Recompute::Full)
        recompute += table->forward[static_cast<std::size_t>(block)];
    }
    const Ticks forward = spans.forward(*table, first, end), backward = spans.backward(*table, first, end) + recompute;
    result.busy = std::max(result.busy, forward + backward);
    result.backward_max = std::max(result.backward_max, backward);
    result.forward_min = any ? std::min(result.forward_min, forward) : forward;
    result.backward_min = any ? std::min(result.backward_min, backward) : backward;
    any = true;
    const Ticks update = cost_model::to_ticks(
        spans.cost().estimate_optimizer(spans.persistent(first, end).owned_elements, table->device_class));
    result.optimizer = std::max(result.optimizer, update + spans.overhead(table->device_class));
  }
  if (counts.total() > 1) {
    for (const std::int64_t bytes : spans.buckets(first, end, context_.bucket_bytes)) {
      result.sync_last = collective(collective::CollectiveKind::AllReduce, bytes, counts);
      result.sync += result.sync_last;
    }
  }
  return result;
}

Ticks StageCosts::edge(int cut, std::int64_t samples, const BestLink& link, bool gradient) const {
  const SampleTable& table = context_.spans->table(0, samples);
  const std::int64_t bytes = gradient ? table.gradient_cut[static_cast<std::size_t>(cut)]
                                      : table.activation_cut[static_cast<std::size_t>(cut)];
  if (bytes == 0 || link.num_links == 0) return 0;
  return cost_model::to_ticks(link.latency + Bytes(bytes) / BytesPerSecond(link.bandwidth.value * link.num_links));
}

}  // namespace coxswain::planner
