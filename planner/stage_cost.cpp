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

std::vector<Share> StageCosts::split_as_asked(int first, int end, const Counts& counts) const {
  const std::vector<Pool>& pools = *context_.pools;
  if (context_.samples.size() != static_cast<std::size_t>(counts.total())) return {};
  // The largest share to the fastest class; the order within the stage stays pool by pool.
  std::vector<std::int64_t> sorted = context_.samples;
  std::sort(sorted.rbegin(), sorted.rend());
  std::vector<std::size_t> order(static_cast<std::size_t>(counts.total())), pool_of;
  std::vector<Ticks> speed;
  for (std::size_t p = 0; p < pools.size(); ++p) {
    if (counts.of[p] == 0) continue;
    const SampleTable& table = context_.spans->table(pools[p].kind(), sorted.front());
    const auto replicas = static_cast<std::size_t>(counts.of[p]);
    speed.insert(speed.end(), replicas,
                 context_.spans->forward(table, first, end) + context_.spans->backward(table, first, end));
    pool_of.insert(pool_of.end(), replicas, p);
  }
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return speed[a] < speed[b]; });
  std::vector<std::int64_t> samples(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) samples[order[i]] = sorted[i];
  std::vector<Share> shares;
  for (std::size_t i = 0; i < samples.size(); ++i) add_share(shares, {pool_of[i], 1, samples[i]});
  return shares;
}

std::vector<Share> StageCosts::split(int first, int end, const Counts& counts, int in_flight) {
  const std::vector<Pool>& pools = *context_.pools;
  const SpanCosts& spans = *context_.spans;
  std::vector<Share> shares;
  if (const std::int64_t fixed = spans.cost().facts().static_batch(); fixed > 0) {
    if (context_.micro != fixed * counts.total()) return {};
    for (std::size_t p = 0; p < pools.size(); ++p) add_share(shares, {p, counts.of[p], fixed});
    return shares;
  }
  if (!context_.samples.empty()) return split_as_asked(first, end, counts);

  const auto time = [&](UnitKind kind, std::int64_t samples) {
    const SampleTable& table = spans.table(kind, samples);
    return spans.forward(table, first, end) + spans.backward(table, first, end);
  };
  std::vector<SplitClass> classes;
  std::vector<std::size_t> pool_of;
  for (std::size_t p = 0; p < pools.size(); ++p) {
    if (counts.of[p] == 0) continue;
    classes.push_back({counts.of[p], pools[p].kind(), std::numeric_limits<std::int64_t>::max()});
    pool_of.push_back(p);
  }
  std::vector<SplitShare> parts = split_samples(context_.micro, classes, time);
  if (classes.size() > 1 && !parts.empty() && limit_by_memory(first, end, counts, in_flight, parts, classes)) {
    std::vector<SplitShare> mended = split_samples(context_.micro, classes, time);
    if (!mended.empty()) parts = std::move(mended);
  }
  for (std::size_t c = 0; c < parts.size(); ++c) {
    add_share(shares, {pool_of[c], parts[c].extra, parts[c].base + 1});
    add_share(shares, {pool_of[c], classes[c].replicas - parts[c].extra, parts[c].base});
  }
  return shares;
}

// Where a class has too little memory for its share, the others take the rest.
bool StageCosts::limit_by_memory(int first, int end, const Counts& counts, int in_flight,
                                 const std::vector<SplitShare>& parts, std::vector<SplitClass>& classes) const {
  const SpanCosts& spans = *context_.spans;
  const int credits = static_cast<int>(std::min<std::int64_t>(context_.receive_credits, context_.count));
  bool limited = false;
  for (std::size_t c = 0; c < classes.size(); ++c) {
    const auto fits = [&](std::int64_t x) {
      const SpanQuery query{first, end, in_flight, credits, context_.zero_stages.back(), counts.total()};
      return spans.fit(spans.table(classes[c].key, x), query).fits;
    };
    std::int64_t most = parts[c].base + (parts[c].extra > 0 ? 1 : 0);
    if (fits(most)) continue;
    // Memory rises with samples.
    std::int64_t holds = 0;
    while (most - holds > 1) {
      const std::int64_t middle = (most + holds) / 2;
      (fits(middle) ? holds : most) = middle;
    }
    if (holds == 0) return false;  // does not fit at all; reported by compute
    classes[c].limit = holds;
    limited = true;
  }
  return limited;
}

std::vector<plan::DeviceId> StageCosts::replica_group(const Counts& counts) const {
  const std::vector<Pool>& pools = *context_.pools;
  std::vector<plan::DeviceId> devices;
  for (std::size_t p = 0; p < pools.size(); ++p) {
    const std::int64_t stride = context_.spread ? context_.num_stages : 1;
    for (std::int32_t i = 0; i < counts.of[p]; ++i) devices.push_back(device_of_unit(pools[p], i * stride));
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
  start.shares = split(first, end, counts, in_flight);
  start.splits = !start.shares.empty();
  if (!start.splits) return start;

  Span span{first, end, in_flight, 1, &counts, {}};
  start.least_samples = start.shares.front().samples;
  for (const Share& share : start.shares) {
    start.least_samples = std::min(start.least_samples, share.samples);
    const SampleTable& table = context_.spans->table(pools[share.pool].kind(), share.samples);
    if (std::find(span.cases.begin(), span.cases.end(), &table) == span.cases.end()) span.cases.push_back(&table);
    span.tensor = table.kind.tensor;
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
          spans.cost().resources().device_classes[static_cast<std::size_t>(table->kind.device_class)].memory.value.value;
      if (fit.bytes - capacity > result.excess_bytes) {
        result.excess_bytes = fit.bytes - capacity;
        result.excess_class = table->kind.device_class;
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
    const cost_model::Mesh mesh{{}, {{table->kind.device_class, 0}}, 0};
    cost_model::PersistentElements updated = spans.persistent(span.first, span.end, span.tensor);
    const std::int64_t owned = updated.owned;
    Ticks update = spans.overhead(table->kind.device_class);
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
  // At best both sides are the widest units that there are.
  const std::vector<Pool>& pools = *context_.pools;
  int widest = 1;
  for (const Pool& pool : pools) widest = std::max(widest, pool.unit());
  const cost_model::ModelFacts& facts = context_.spans->cost().facts();
  const plan::Precision precision = context_.spans->precision();
  const std::int64_t bytes = (gradient ? facts.gradient_bytes(cut, samples, precision)
                                       : facts.activation_bytes(cut, samples, precision))
                                 .value /
                             widest;
  if (bytes == 0 || link.num_links == 0) return 0;
  return cost_model::to_ticks(link.latency + Bytes(bytes) / BytesPerSecond(link.bandwidth.value * link.num_links));
}

}  // namespace coxswain::planner
