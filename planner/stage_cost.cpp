#include "planner/stage_cost.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "cost_model/offload_time.h"

namespace coxswain::planner {
/// One place for all that hold the same. With whole backwards only the micro-batches in flight count; with halves each
/// stage has more of them between I and W than the one before, which a search of long pipelines leaves to the
/// simulator.
StagePlace StageCosts::alike(StagePlace place) const {
  constexpr int kLongPipeline = 16;
  if (place.num_stages == 0) return place;
  const bool halves = plan::splits_backward(context_.schedule) && !plan::has_chunks(context_.schedule);
  if (halves && !context_.exhaustive && place.num_stages > kLongPipeline) return {0, place.num_stages};
  if (halves) return place;
  if (context_.schedule == plan::ScheduleKind::GPipe) return {0, 1};
  // In micro-batches of the whole stage.
  const int v = context_.num_chunks;
  return {0, (plan::peak_in_flight(context_.schedule, place.stage, place.num_stages, context_.count, v) + v - 1) / v};
}

const std::vector<cost_model::Moment>& StageCosts::moments(StagePlace place) const {
  const int credits = static_cast<int>(std::min<std::int64_t>(context_.receive_credits, context_.count));
  const bool halves = plan::splits_backward(context_.schedule) && !plan::has_chunks(context_.schedule);
  const bool gathers = context_.schedule == plan::ScheduleKind::GPipe;
  const bool known = place.num_stages > 0 && (halves || gathers);
  return context_.spans->moments(known ? context_.schedule : plan::ScheduleKind::OneForwardOneBackward, place.stage,
                                 std::max(1, place.num_stages), context_.count, credits);
}

const StageChoices& StageCosts::stage(int first, int end, int composition, StagePlace place) {
  constexpr int kBlockBits = 12, kCompositionBits = 14, kStageBits = 13;
  place = alike(place);
  std::uint64_t key = static_cast<std::uint64_t>(place.num_stages);
  key = (key << kStageBits) | static_cast<std::uint64_t>(place.stage);
  key = (key << kCompositionBits) | static_cast<std::uint64_t>(composition);
  key = (key << kBlockBits) | static_cast<std::uint64_t>(first);
  key = (key << kBlockBits) | static_cast<std::uint64_t>(end);
  const auto found = stages_.find(key);
  if (found != stages_.end()) return found->second;
  return stages_
      .emplace(key, context_.exhaustive ? compute_all(first, end, composition, moments(place))
                                        : compute(first, end, composition, moments(place)))
      .first->second;
}

std::vector<Share> StageCosts::split_as_asked(int first, int end, const Composition& composition) const {
  const std::vector<Pool>& pools = *context_.pools;
  if (context_.samples.size() != static_cast<std::size_t>(composition.replicas())) return {};
  // The largest share to the fastest class; the order within the stage stays pool by pool.
  std::vector<std::int64_t> sorted = context_.samples;
  std::sort(sorted.rbegin(), sorted.rend());
  std::vector<std::size_t> order(static_cast<std::size_t>(composition.replicas())), pool_of;
  std::vector<Ticks> speed;
  for (std::size_t p = 0; p < pools.size(); ++p) {
    if (composition.units.of[p] == 0) continue;
    const SampleTable& table = context_.spans->table(composition.kind(pools, p), sorted.front());
    const auto replicas = static_cast<std::size_t>(composition.units.of[p]);
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

std::vector<Share> StageCosts::split(int first, int end, const Composition& composition, const Moments& moments) {
  const std::vector<Pool>& pools = *context_.pools;
  const SpanCosts& spans = *context_.spans;
  std::vector<Share> shares;
  if (const std::int64_t fixed = spans.cost().facts().static_batch(); fixed > 0) {
    if (context_.micro != fixed * composition.replicas()) return {};
    for (std::size_t p = 0; p < pools.size(); ++p) add_share(shares, {p, composition.units.of[p], fixed});
    return shares;
  }
  if (!context_.samples.empty()) return split_as_asked(first, end, composition);

  const auto time = [&](UnitKind kind, std::int64_t samples) {
    const SampleTable& table = spans.table(kind, samples);
    return spans.forward(table, first, end) + spans.backward(table, first, end);
  };
  std::vector<SplitClass> classes;
  std::vector<std::size_t> pool_of;
  for (std::size_t p = 0; p < pools.size(); ++p) {
    if (composition.units.of[p] == 0) continue;
    classes.push_back({composition.units.of[p], composition.kind(pools, p), std::numeric_limits<std::int64_t>::max()});
    pool_of.push_back(p);
  }
  std::vector<SplitShare> parts = split_samples(context_.micro, classes, time);
  if (classes.size() > 1 && !parts.empty() && limit_by_memory(first, end, composition, moments, parts, classes)) {
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
bool StageCosts::limit_by_memory(int first, int end, const Composition& composition, const Moments& moments,
                                 const std::vector<SplitShare>& parts, std::vector<SplitClass>& classes) const {
  const SpanCosts& spans = *context_.spans;
  const int credits = static_cast<int>(std::min<std::int64_t>(context_.receive_credits, context_.count));
  bool limited = false;
  for (std::size_t c = 0; c < classes.size(); ++c) {
    const auto fits = [&](std::int64_t x) {
      const SampleTable& table = spans.table(classes[c].key, x);
      // The last ones hold least.
      return std::any_of(context_.states.rbegin(), context_.states.rend(), [&](const StateChoice& state) {
        return spans
            .fit(table, {first, end, 1, credits, state.zero_stage, composition.replicas(), state.offload, &moments})
            .fits;
      });
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

const std::vector<plan::DeviceId>& StageCosts::shard_group(int index, bool experts) {
  const auto [found, is_new] = shard_groups_.try_emplace({index, experts});
  if (!is_new) return found->second;
  const Composition& composition = at(index);
  const std::vector<Pool>& pools = *context_.pools;
  std::vector<plan::DeviceId>& devices = found->second;
  std::int64_t replica = 0;
  for (std::size_t p = 0; p < pools.size(); ++p) {
    const std::int64_t stride = context_.spread ? context_.num_stages : 1;
    const Axes axes = composition.axes[p];
    for (std::int32_t i = 0; i < composition.units.of[p]; ++i, ++replica) {
      if (experts && replica % composition.expert != 0) continue;
      const plan::DeviceId first = first_of_unit(pools[p], i * stride, axes.size());
      for (int c = 0; c < axes.context; ++c)
        devices.push_back({first.device_class, first.index + std::int64_t{c} * axes.tensor});
    }
  }
  return devices;
}

Ticks StageCosts::collective(collective::CollectiveKind kind, std::int64_t bytes, int composition, bool experts) {
  if (bytes == 0) return 0;
  const std::tuple key{static_cast<int>(kind), bytes, composition, experts};
  const auto found = collectives_.find(key);
  if (found != collectives_.end()) return found->second;
  const std::vector<plan::DeviceId>& group = shard_group(composition, experts);
  const Ticks time = group.size() < 2
                         ? 0
                         : cost_model::to_ticks(context_.spans->cost().estimate_collective(kind, Bytes(bytes), group));
  return collectives_[key] = time;
}

namespace {

/// No pipeline is better off with `b`: C22 falls only with the longest backward and weight parts.
bool dominates(const StageCost& a, const StageCost& b) {
  return a.busy <= b.busy && a.forward_min <= b.forward_min && a.backward_min <= b.backward_min &&
         a.input_min <= b.input_min && a.backward_max >= b.backward_max && a.weight_max >= b.weight_max &&
         a.sync <= b.sync && a.sync_last <= b.sync_last && a.optimizer <= b.optimizer;
}

}  // namespace

StageCosts::Span StageCosts::make_span(int first, int end, int index, const Moments& moments, StageCost& start) const {
  const Composition& composition = at(index);
  Span span{first, end, index, &moments, {}, 0, {}};
  start.least_samples = start.shares.front().samples;
  for (const Share& share : start.shares) {
    start.least_samples = std::min(start.least_samples, share.samples);
    span.axes = composition.axes[share.pool];
    const SampleTable& table = context_.spans->table(composition.kind(*context_.pools, share.pool), share.samples);
    if (std::find(span.cases.begin(), span.cases.end(), &table) == span.cases.end()) span.cases.push_back(&table);
  }
  span.replicas = composition.replicas();
  return span;
}

StageChoices StageCosts::compute(int first, int end, int index, const Moments& moments) {
  StageChoices choices;
  StageCost start;
  start.shares = split(first, end, at(index), moments);
  choices.splits = !start.shares.empty();
  if (!choices.splits) return choices;

  const Span span = make_span(first, end, index, moments, start);
  // Devices of unlike meshes hold no equal shards (plan::zero_of).
  const bool shares_state = span.replicas * span.axes.context > 1 && at(index).has_equal_axes();
  for (const StateChoice& state : context_.states) {
    if (state.zero_stage > 0 && !shares_state) continue;
    StageCost one = start;
    one.state = state;
    if (!fit(span, one, choices)) continue;
    add_times(span, one);
    if (std::any_of(choices.fitting.begin(), choices.fitting.end(),
                    [&](const StageCost& other) { return dominates(other, one); }))
      continue;
    std::erase_if(choices.fitting, [&](const StageCost& other) { return dominates(one, other); });
    choices.fitting.push_back(std::move(one));
  }
  if (!context_.all_choices && choices.fitting.size() > 1) {
    const auto alone = [&](const StageCost& cost) { return cost.busy * context_.count + cost.sync + cost.optimizer; };
    const auto best = std::min_element(choices.fitting.begin(), choices.fitting.end(),
                                       [&](const StageCost& a, const StageCost& b) { return alone(a) < alone(b); });
    choices.fitting = {StageCost(std::move(*best))};
  }
  return choices;
}

bool StageCosts::fit(const Span& span, StageCost& result, StageChoices& choices) const {
  const SpanCosts& spans = *context_.spans;
  const int credits = static_cast<int>(std::min<std::int64_t>(context_.receive_credits, context_.count));
  // One list of recomputed blocks serves all replicas: what one of them needs, all do. A second pass sees the union.
  const SpanQuery query{span.first,           span.end,    1, credits, result.state.zero_stage, span.replicas,
                        result.state.offload, span.moments};
  bool fits = true;
  std::int64_t excess = 0;
  int excess_class = 0;
  for (int pass = 0; pass < 2; ++pass) {
    fits = true;
    for (const SampleTable* table : span.cases) {
      Fit fit = spans.fit(*table, query, result.recompute);
      result.recompute = std::move(fit.recompute);
      if (fit.fits) continue;
      fits = false;
      const int device_class = table->kind.device_class;
      const std::int64_t capacity =
          spans.cost().resources().device_classes[static_cast<std::size_t>(device_class)].memory.value.value;
      if (fit.bytes - capacity > excess) {
        excess = fit.bytes - capacity;
        excess_class = device_class;
      }
    }
    if (span.cases.size() == 1) break;
  }
  if (!fits && choices.fitting.empty() && (choices.excess_bytes == 0 || excess < choices.excess_bytes)) {
    choices.excess_bytes = excess;
    choices.excess_class = excess_class;
  }
  return fits;
}

cost_model::MeshTicks StageCosts::gathers(int block, int zero_stage, const Span& span) {
  if (zero_stage < 2) return {};
  const int expert = at(span.composition).expert;
  const cost_model::PersistentElements elements =
      context_.spans->persistent(block, block + 1, span.axes.tensor, expert);
  const std::tuple key{elements.held - elements.tied, elements.held_experts, zero_stage, span.composition};
  if (gathers_.first == key) return gathers_.second;
  const cost_model::MeshTicks ticks =
      cost_model::estimate_gathers(elements, context_.spans->precision(), zero_stage,
                                   [&](collective::CollectiveKind kind, Bytes payload, bool experts) {
                                     return collective(kind, payload.value, span.composition, experts && expert > 1);
                                   });
  gathers_ = {key, ticks};
  return ticks;
}

void StageCosts::add_times(const Span& span, StageCost& result) {
  const SpanCosts& spans = *context_.spans;
  const int expert = at(span.composition).expert;
  const std::int64_t shards = span.replicas * span.axes.context;
  bool any = false;
  for (const SampleTable* table : span.cases) {
    Ticks forward = spans.overhead(table->kind.device_class), backward = forward, recompute = 0, weight = 0, input = 0;
    const bool plain = !context_.exhaustive && result.state.zero_stage < 2 &&
                       result.state.offload != plan::Offload::Activations &&
                       std::all_of(
                           result.recompute.begin(), result.recompute.end(),
                           [](plan::Recompute one) { return one == plan::Recompute::None; });
    if (plain) {
      forward = spans.forward(*table, span.first, span.end);
      backward = spans.backward(*table, span.first, span.end);
      weight = table->weight_sum[static_cast<std::size_t>(span.end)] -
               table->weight_sum[static_cast<std::size_t>(span.first)];
      input = backward - weight;
    }
    for (int block = span.first; block < span.end && !plain; ++block) {
      const auto i = static_cast<std::size_t>(block);
      const plan::Recompute kind = result.recompute[static_cast<std::size_t>(block - span.first)];
      cost_model::MeshTicks ticks{table->forward[i], table->backward[i], table->backward[i] - table->weight[i],
                                  table->weight[i], 0};
      if (kind == plan::Recompute::Full) ticks.recompute = ticks.forward;
      if (kind == plan::Recompute::Selective) ticks.recompute = table->replay[i];
      if (result.state.offload == plan::Offload::Activations) {
        // C34: kept bytes leave beside the forward and come back beside the backward.
        const Ticks move = cost_model::to_ticks(cost_model::estimate_host_transfer(
            spans.cost().resources(), Bytes(table->kept(i, kind)), {table->kind.device_class, 0}));
        ticks.forward = std::max(ticks.forward, move);
        ticks.backward = std::max(ticks.backward, move);
        ticks.input = std::max(ticks.input, move);
      }
      if (result.state.zero_stage >= 2)
        ticks = cost_model::estimate_beside(ticks, gathers(block, result.state.zero_stage, span), kind);
      if (context_.exhaustive)
        result.durations.insert(result.durations.end(), {ticks.forward, ticks.backward + ticks.recompute,
                                                         ticks.input + ticks.recompute, ticks.weight});
      forward += ticks.forward;
      backward += ticks.backward;
      recompute += ticks.recompute;
      weight += ticks.weight;
      input += ticks.input;
    }
    result.busy = std::max(result.busy, forward + backward + recompute);
    result.backward_max = std::max(result.backward_max, backward + recompute);
    result.weight_max = std::max(result.weight_max, weight);
    const auto least = [any](Ticks& value, Ticks other) { value = any ? std::min(value, other) : other; };
    least(result.forward_min, forward);
    least(result.backward_min, backward + recompute);
    least(result.input_min, input + recompute);
    any = true;
    cost_model::PersistentElements elements = spans.persistent(span.first, span.end, span.axes.tensor, expert);
    Ticks update = spans.overhead(table->kind.device_class);
    // The update of this device's part, then the gathers of C26.
    const bool is_split = result.state.zero_stage >= 1 && shards > 1;
    cost_model::PersistentElements own = elements;
    if (is_split)
      own.held =
          cost_model::split_elements(elements, elements.tied, shards, std::max<std::int64_t>(1, shards / expert));
    cost_model::Mesh mesh;
    mesh.replica_group = {{table->kind.device_class, 0}};
    mesh.offload = result.state.offload;
    update += cost_model::estimate_update_on_mesh(spans.cost(), own, spans.precision(), mesh);
    if (is_split && result.state.zero_stage < 3) {
      const std::int64_t bytes = size_of(plan::computed_dtype(spans.precision())).value;
      const std::int64_t experts = expert > 1 ? elements.held_experts : 0;
      update += collective(collective::CollectiveKind::AllGather, bytes * (elements.held - elements.tied - experts),
                           span.composition, false);
      update += collective(collective::CollectiveKind::AllGather, bytes * experts, span.composition, true);
    }
    result.optimizer = std::max(result.optimizer, update);
    if (context_.exhaustive) result.durations.push_back(update);
  }
  if (span.replicas < 2 || !cost_model::reduces_buckets(result.state.zero_stage)) return;
  for (const std::int64_t bytes :
       spans.buckets(span.first, span.end, context_.bucket_bytes, span.axes.tensor, expert, shards)) {
    result.sync_last =
        collective(cost_model::bucket_collective(result.state.zero_stage), bytes, span.composition, false);
    result.sync += result.sync_last;
  }
}

Ticks StageCosts::edge(int cut, std::int64_t samples, const BestLink& link, bool gradient) const {
  // At best both sides are the widest units that there are.
  const std::vector<Pool>& pools = *context_.pools;
  int widest = 1;
  for (const Composition& composition : context_.compositions) {
    for (std::size_t p = 0; p < pools.size(); ++p) widest = std::max(widest, composition.axes[p].size());
  }
  const std::int64_t bytes = context_.spans->edge_bytes(cut, samples, gradient) / widest;
  if (bytes == 0 || link.num_links == 0) return 0;
  return cost_model::to_ticks(link.latency + Bytes(bytes) / BytesPerSecond(link.bandwidth.value * link.num_links));
}

}  // namespace coxswain::planner
