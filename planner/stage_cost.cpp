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
      const SpanQuery query{first, end, in_flight, credits, context_.zero_stages.back(), counts.total()};
      return spans.fit(spans.table(entry.key, x), query).fits;
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

std::vector<plan::DeviceId> StageCosts::replica_group(const Counts& counts) const {
  const std::vector<Pool>& pools = *context_.pools;
  std::vector<plan::DeviceId> devices;
  for (std::size_t p = 0; p < pools.size(); ++p) {
    const std::int64_t stride = context_.spread ? context_.num_stages : 1;
    for (std::int32_t i = 0; i < counts.of[p]; ++i)
      devices.push_back(pools[p].devices[static_cast<std::size_t>(i * stride)]);
  }
  return devices;
}

Ticks StageCosts::collective(collective::CollectiveKind kind, std::int64_t bytes, const Counts& counts) {
  if (bytes == 0 || counts.total() < 2) return 0;
  const std::tuple key{static_cast<int>(kind), bytes, counts};
  const auto found = collectives_.find(key);
  if (found != collectives_.end()) return found->second;
  const Ticks time =
      cost_model::to_ticks(context_.spans->cost().estimate_collective(kind, Bytes(bytes), replica_group(counts)));
  return collectives_[key] = time;
}

StageCost StageCosts::compute(int first, int end, const Counts& counts, int in_flight) {
  StageCost start;
  const std::vector<Pool>& pools = *context_.pools;
  start.samples = split(first, end, counts, in_flight);
  start.splits = !start.samples.empty();
  if (!start.splits) return start;
  start.least_samples = *std::min_element(start.samples.begin(), start.samples.end());

  Span span{first, end, in_flight, 1, &counts, {}};
  std::size_t replica = 0;
  for (std::size_t p = 0; p < pools.size(); ++p) {
    for (std::int32_t i = 0; i < counts.of[p]; ++i, ++replica) {
      const SampleTable& table = context_.spans->table(pools[p].device_class, start.samples[replica]);
      if (std::find(span.cases.begin(), span.cases.end(), &table) == span.cases.end()) span.cases.push_back(&table);
      span.tensor = table.tensor;
    }
  }
  // The ZeRO stage that ends soonest by itself; a later one is looked at only where it may gain.
  StageCost best;
  Ticks best_time = 0;
  for (const int zero_stage : context_.zero_stages) {
    if (zero_stage > 0 && counts.total() < 2) break;
    StageCost one = compute_at(span, start, zero_stage);
    const Ticks time = one.busy * context_.count + one.sync + one.optimizer;
    const bool better = !best.splits || (one.fits && !best.fits) ||
                        (one.fits == best.fits && one.fits && time < best_time) ||
                        (!one.fits && !best.fits && one.excess_bytes < best.excess_bytes);
    const bool recomputes = std::count(one.recompute.begin(), one.recompute.end(), plan::Recompute::Full) > 0;
    const bool enough = one.fits && !recomputes && zero_stage >= 1;
    if (better) {
      best = std::move(one);
      best_time = time;
    }
    if (enough) break;
  }
  return best;
}

StageCost StageCosts::compute_at(const Span& span, StageCost result, int zero_stage) {
  result.zero_stage = zero_stage;
  fit(span, result);
  add_times(span, result);
  return result;
}

void StageCosts::fit(const Span& span, StageCost& result) {
  const SpanCosts& spans = *context_.spans;
  const int credits = static_cast<int>(std::min<std::int64_t>(context_.receive_credits, context_.count));
  // One list of recomputed blocks serves all replicas: what one of them needs, all do. A second pass sees the union.
  const SpanQuery query{span.first, span.end, span.in_flight, credits, result.zero_stage, span.counts->total()};
  for (int pass = 0; pass < 2; ++pass) {
    result.fits = true;
    for (const SampleTable* table : span.cases) {
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
    if (span.cases.size() == 1) break;
  }
}

cost_model::MeshTicks StageCosts::gathers(int block, int zero_stage, const Span& span) {
  cost_model::MeshTicks ticks;
  if (zero_stage < 2) return ticks;
  const SpanCosts& spans = *context_.spans;
  const std::int64_t elements = spans.persistent(block, block + 1, span.tensor).held;
  ticks.backward =
      collective(collective::CollectiveKind::ReduceScatter, size_of(DType::Float32).value * elements, *span.counts);
  if (zero_stage < 3) return ticks;
  const DType computed = spans.precision() == plan::Precision::BFloat16 ? DType::BFloat16 : DType::Float32;
  ticks.forward = collective(collective::CollectiveKind::AllGather, size_of(computed).value * elements, *span.counts);
  ticks.backward += ticks.forward;
  return ticks;
}

void StageCosts::add_times(const Span& span, StageCost& result) {
  const SpanCosts& spans = *context_.spans;
  bool any = false;
  for (const SampleTable* table : span.cases) {
    Ticks recompute = 0, more_forward = 0, more_backward = 0;
    for (int block = span.first; block < span.end; ++block) {
      const auto i = static_cast<std::size_t>(block);
      const cost_model::MeshTicks beside = gathers(block, result.zero_stage, span);
      more_forward += std::max<Ticks>(0, beside.forward - table->forward[i]);
      more_backward += std::max<Ticks>(0, beside.backward - table->backward[i]);
      if (result.recompute[static_cast<std::size_t>(block - span.first)] == plan::Recompute::Full)
        recompute += std::max(table->forward[i], beside.forward);
    }
    const Ticks forward = spans.forward(*table, span.first, span.end) + more_forward,
                backward = spans.backward(*table, span.first, span.end) + more_backward + recompute;
    result.busy = std::max(result.busy, forward + backward);
    result.backward_max = std::max(result.backward_max, backward);
    result.forward_min = any ? std::min(result.forward_min, forward) : forward;
    result.backward_min = any ? std::min(result.backward_min, backward) : backward;
    any = true;
    const cost_model::Mesh mesh{{}, {{table->device_class, 0}}, 0};
    cost_model::PersistentElements updated = spans.persistent(span.first, span.end, span.tensor);
    const std::int64_t owned = updated.owned;
    Ticks update = spans.overhead(table->device_class);
    if (result.zero_stage >= 1) {
      updated.owned = (owned + span.counts->total() - 1) / span.counts->total();
      const DType computed = spans.precision() == plan::Precision::BFloat16 ? DType::BFloat16 : DType::Float32;
      if (result.zero_stage < 3)
        update += collective(collective::CollectiveKind::AllGather, size_of(computed).value * owned, *span.counts);
    }
    update += cost_model::estimate_update_on_mesh(spans.cost(), updated, spans.precision(), mesh);
    result.optimizer = std::max(result.optimizer, update);
  }
  if (span.counts->total() < 2 || !cost_model::reduces_buckets(result.zero_stage)) return;
  for (const std::int64_t bytes : spans.buckets(span.first, span.end, context_.bucket_bytes, span.tensor)) {
    result.sync_last = collective(cost_model::bucket_collective(result.zero_stage), bytes, *span.counts);
    result.sync += result.sync_last;
  }
}

Ticks StageCosts::edge(int cut, std::int64_t samples, const BestLink& link, bool gradient) const {
  const SampleTable& table = context_.spans->table(0, samples);
  const std::int64_t shard = gradient ? table.gradient_cut[static_cast<std::size_t>(cut)]
                                      : table.activation_cut[static_cast<std::size_t>(cut)];
  // At best both sides have the widest tensor axis that there is.
  int widest = table.tensor;
  for (const int degree : context_.spans->axes().degree) widest = std::max(widest, degree);
  const std::int64_t bytes = shard * table.tensor / widest;
  if (bytes == 0 || link.num_links == 0) return 0;
  return cost_model::to_ticks(link.latency + Bytes(bytes) / BytesPerSecond(link.bandwidth.value * link.num_links));
}

}  // namespace coxswain::planner
