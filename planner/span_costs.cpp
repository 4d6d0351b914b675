#include "planner/span_costs.h"

#include <algorithm>
#include <numeric>

#include "cost_model/offload_time.h"

namespace coxswain::planner {

using cost_model::BlockTime;
using cost_model::ModelFacts;
using cost_model::ParameterFacts;

SpanCosts::SpanCosts(const cost_model::CostModel& cost, plan::Precision precision, RecomputeRule rule,
                     std::vector<char> listed, bool selective)
    : cost_(cost),
      precision_(precision),
      rule_(rule),
      listed_(std::move(listed)),
      selective_(selective),
      num_blocks_(cost.facts().num_blocks()) {
  for (std::size_t c = 0; c < cost.resources().device_classes.size(); ++c)
    overhead_.push_back(cost_model::to_ticks(cost.estimate_action_overhead(static_cast<int>(c))));
  for (int cut = 0; cut <= num_blocks_; ++cut) {
    activation_lines_.push_back(make_line(cut, false));
    gradient_lines_.push_back(make_line(cut, true));
  }
  ops_sum_.push_back(0);
  for (const model::Block& block : cost.model().blocks)
    ops_sum_.push_back(ops_sum_.back() + block.end_op - block.first_op);
  for (const ParameterFacts& parameter : cost.facts().parameters()) {
    if (parameter.blocks.size() > 1) tied_.push_back(&parameter);
  }
}

SpanCosts::CutLine SpanCosts::make_line(int cut, bool gradient) const {
  const ModelFacts& facts = cost_.facts();
  if (facts.static_batch() > 0) return {};
  const auto at = [&](std::int64_t samples) {
    return (gradient ? facts.gradient_bytes(cut, samples, precision_)
                     : facts.activation_bytes(cut, samples, precision_))
        .value;
  };
  CutLine line;
  line.each = at(2) - at(1);
  line.fixed = at(1) - line.each;
  line.affine = at(5) == line.fixed + 5 * line.each;
  return line;
}

std::int64_t SpanCosts::cut_bytes(int cut, std::int64_t samples, bool gradient) const {
  const CutLine& line = (gradient ? gradient_lines_ : activation_lines_)[static_cast<std::size_t>(cut)];
  if (line.affine) return line.fixed + samples * line.each;
  return (gradient ? cost_.facts().gradient_bytes(cut, samples, precision_)
                   : cost_.facts().activation_bytes(cut, samples, precision_))
      .value;
}

const SpanCosts::Sums& SpanCosts::sums(int tensor, int expert) const {
  const std::pair key{tensor, expert};
  {
    const std::shared_lock lock(mutex_);
    const auto found = sums_.find(key);
    if (found != sums_.end()) return found->second;
  }
  Sums fresh = make_sums(tensor, expert);
  const std::unique_lock lock(mutex_);
  return sums_.emplace(key, std::move(fresh)).first->second;
}

SpanCosts::Sums SpanCosts::make_sums(int tensor, int expert) const {
  Sums sums;
  const auto blocks = static_cast<std::size_t>(num_blocks_);
  for (std::vector<std::int64_t>* list :
       {&sums.of_block, &sums.experts_of_block, &sums.whole_of_block, &sums.wide_of_block})
    list->resize(blocks, 0);
  std::vector<std::int64_t> frozen(blocks, 0);
  for (const ParameterFacts& parameter : cost_.facts().parameters()) {
    if (parameter.blocks.size() != 1) continue;
    const auto block = static_cast<std::size_t>(parameter.blocks.front());
    const std::int64_t elements = parameter.elements_at(tensor, expert);
    if (!parameter.trainable) {
      frozen[block] += size_of(parameter.dtype).value * elements;
      continue;
    }
    sums.of_block[block] += elements;
    sums.wide_of_block[block] += parameter.wide_bytes * elements;
    if (parameter.experts > 0) sums.experts_of_block[block] += elements;
    sums.whole_of_block[block] += parameter.elements;
  }
  sums.held = sums.experts = sums.frozen = {0};
  for (std::size_t block = 0; block < blocks; ++block) {
    sums.held.push_back(sums.held.back() + sums.of_block[block]);
    sums.experts.push_back(sums.experts.back() + sums.experts_of_block[block]);
    sums.frozen.push_back(sums.frozen.back() + frozen[block]);
  }
  return sums;
}

cost_model::PersistentElements SpanCosts::persistent(int first, int end, int tensor, int expert) const {
  const Sums& sums = this->sums(tensor, expert);
  const auto from = static_cast<std::size_t>(first), to = static_cast<std::size_t>(end);
  cost_model::PersistentElements count;
  count.held = sums.held[to] - sums.held[from];
  count.held_experts = sums.experts[to] - sums.experts[from];
  count.frozen = Bytes(sums.frozen[to] - sums.frozen[from]) + cost_.facts().buffer_bytes(first, end);
  for (std::size_t block = from; block < to; ++block) {
    count.add_block(sums.of_block[block]);
    count.wide += Bytes(sums.wide_of_block[block]);
  }
  for (const ParameterFacts* parameter : tied_) {
    const auto at = std::lower_bound(parameter->blocks.begin(), parameter->blocks.end(), first);
    if (at == parameter->blocks.end() || *at >= end) continue;
    const std::int64_t elements = parameter->elements_at(tensor, expert);
    if (!parameter->trainable) {
      count.frozen += size_of(parameter->dtype) * elements;
      continue;
    }
    count.held += elements;
    if (parameter->blocks.front() < first || parameter->blocks.back() >= end) {
      count.tied += elements;
    } else {
      count.shared += elements;
      count.shared_wide += Bytes(parameter->wide_bytes * elements);
    }
  }
  return count;
}

const SampleTable& SpanCosts::table(UnitKind kind, std::int64_t samples) const {
  const std::pair key{kind, samples};
  {
    const std::shared_lock lock(mutex_);
    const auto found = tables_.find(key);
    if (found != tables_.end()) return *found->second;
  }
  std::unique_ptr<SampleTable> fresh = make_table(kind, samples);
  const std::unique_lock lock(mutex_);
  return *tables_.emplace(key, std::move(fresh)).first->second;
}

void SpanCosts::add_block(SampleTable& table, int block, const cost_model::Mesh& mesh) const {
  const ModelFacts& facts = cost_.facts();
  const Axes axes = table.kind.axes;
  const auto split = [&](Bytes bytes) { return (bytes.value + axes.size() - 1) / axes.size(); };
  cost_model::BlockWork work{block,        table.kind.device_class, table.samples,        precision_, axes.tensor,
                             axes.context, table.kind.expert,       plan::Recompute::None};
  const BlockTime time = cost_.estimate_block(work);
  work.recompute = plan::Recompute::Selective;
  // Of equal replicas the others have at most one sample fewer.
  if (table.kind.expert > 1) work.expert_samples = table.kind.expert * (table.samples - 1) + 1;
  const cost_model::MeshTicks ticks = cost_model::estimate_block_on_mesh(cost_, work, mesh);
  table.forward.push_back(ticks.forward);
  table.backward.push_back(ticks.backward);
  table.weight.push_back(ticks.weight);
  table.replay.push_back(ticks.recompute);
  table.shared.push_back(time.counts_shared ? 0 : cost_model::shared_bytes(facts, work).value);
  const Bytes input(split(Bytes(cut_bytes(block, table.samples, false)))),
      gradient(split(Bytes(cut_bytes(block + 1, table.samples, true))));
  table.alike.push_back(static_cast<int>(table.held.size()));
  table.held.emplace_back();
  for (const auto kind : {plan::Recompute::None, plan::Recompute::Full, plan::Recompute::Selective})
    table.held.back()[static_cast<std::size_t>(kind)] = cost_model::held_bytes(time, kind, input, gradient);
}

void SpanCosts::order_recompute(SampleTable& table) const {
  struct Step {
    SampleTable::RecomputeStep step;
    double gain = 0;
  };
  const auto gain = [](std::int64_t bytes, Ticks ticks) {
    return static_cast<double>(bytes) / static_cast<double>(std::max<Ticks>(1, ticks));
  };
  std::vector<Step> steps;
  for (int block = 0; block < num_blocks_; ++block) {
    const auto i = static_cast<std::size_t>(block);
    const std::int64_t saved = table.kept(i, plan::Recompute::None), input = table.kept(i, plan::Recompute::Full),
                       selective = table.kept(i, plan::Recompute::Selective);
    const double full = gain(saved - input, table.forward[i]);
    const double part = gain(saved - selective, table.replay[i]);
    const double rest = gain(selective - input, table.forward[i] - table.replay[i]);
    if (selective_ && saved > selective && part > full) {
      steps.push_back({{block, plan::Recompute::Selective}, part});
      if (selective > input) steps.push_back({{block, plan::Recompute::Full}, rest});
    } else if (saved > input) {
      steps.push_back({{block, plan::Recompute::Full}, full});
    }
  }
  std::stable_sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) { return a.gain > b.gain; });
  table.most_recompute.assign(static_cast<std::size_t>(num_blocks_), plan::Recompute::None);
  for (const Step& step : steps) {
    table.recompute_steps.push_back(step.step);
    plan::Recompute& most = table.most_recompute[static_cast<std::size_t>(step.step.block)];
    if (most != plan::Recompute::Full) most = step.step.to;
  }
}

std::unique_ptr<SampleTable> SpanCosts::make_table(UnitKind kind, std::int64_t samples) const {
  auto table = std::make_unique<SampleTable>();
  table->kind = kind;
  table->samples = samples;
  cost_model::Mesh mesh;
  // Devices of one unit: tensor axis inside, context axis outside; experts are spread over the units that follow.
  const std::vector<plan::DeviceId> unit = first_unit(cost_.resources(), kind);
  const int tensor = kind.axes.tensor;
  mesh.devices = unit;
  mesh.tensor_group.assign(unit.begin(), unit.begin() + tensor);
  for (int c = 0; c < kind.axes.context; ++c) mesh.context_group.push_back(unit[static_cast<std::size_t>(c * tensor)]);
  for (int e = 0; e < kind.expert; ++e)
    mesh.expert_group.push_back({kind.device_class, unit.front().index + std::int64_t{e} * kind.axes.size()});
  const auto stream = [&](int cut) { return cut_bytes(cut, samples, false); };
  for (int block = 0; block < num_blocks_; ++block) {
    if (!cost_model::costs_like_previous(cost_, block, stream)) {
      add_block(*table, block, mesh);
      continue;
    }
    for (std::vector<Ticks>* ticks : {&table->forward, &table->backward, &table->weight, &table->replay})
      ticks->push_back(Ticks(ticks->back()));
    table->shared.push_back(std::int64_t(table->shared.back()));
    table->alike.push_back(int(table->alike.back()));
  }
  table->forward_sum = table->backward_sum = table->weight_sum = {0};
  for (const Ticks ticks : table->weight) table->weight_sum.push_back(table->weight_sum.back() + ticks);
  for (const Ticks ticks : table->forward) table->forward_sum.push_back(table->forward_sum.back() + ticks);
  for (const Ticks ticks : table->backward) table->backward_sum.push_back(table->backward_sum.back() + ticks);
  const auto split = [size = kind.axes.size()](Bytes bytes) { return (bytes.value + size - 1) / size; };
  for (int cut = 0; cut <= num_blocks_; ++cut) {
    table->activation_cut.push_back(split(Bytes(cut_bytes(cut, samples, false))));
    table->gradient_cut.push_back(split(Bytes(cut_bytes(cut, samples, true))));
  }
  table->alike_end.assign(table->alike.size(), num_blocks_);
  for (auto block = static_cast<std::size_t>(num_blocks_); block-- > 1;)
    table->alike_end[block - 1] =
        table->alike[block - 1] == table->alike[block] ? table->alike_end[block] : static_cast<int>(block);
  order_recompute(*table);
  return table;
}

Ticks SpanCosts::forward(const SampleTable& table, int first, int end) const {
  return overhead(table.kind.device_class) + table.forward_sum[static_cast<std::size_t>(end)] -
         table.forward_sum[static_cast<std::size_t>(first)];
}

Ticks SpanCosts::backward(const SampleTable& table, int first, int end) const {
  return overhead(table.kind.device_class) + table.backward_sum[static_cast<std::size_t>(end)] -
         table.backward_sum[static_cast<std::size_t>(first)];
}

Room SpanCosts::room(const SampleTable& table, const SpanQuery& query) const {
  const auto first = static_cast<std::size_t>(query.first), end = static_cast<std::size_t>(query.end);
  const cost_model::PersistentMemory lasting = cost_model::estimate_persistent_memory(
      persistent(query.first, query.end, table.kind.axes.tensor, table.kind.expert), precision_, query.zero_stage,
      query.replicas * table.kind.axes.context, table.kind.expert, query.offload);
  std::int64_t fixed = (lasting.parameters + lasting.gradients + lasting.optimizer + lasting.gathered +
                        cost_.base_memory(table.kind.device_class))
                           .value;
  cost_model::StageWork member;  // of communicators (C35)
  member.device_class = table.kind.device_class;
  member.tensor = table.kind.axes.tensor;
  member.context = table.kind.axes.context;
  member.expert = table.kind.expert;
  member.replicas = query.replicas;
  member.first_stage = query.first == 0;
  member.last_stage = query.end == num_blocks_;
  fixed += cost_model::estimate_communicators(cost_, member).value;
  fixed += *std::max_element(table.shared.begin() + query.first, table.shared.begin() + query.end);
  cost_model::EdgeBytes edges;
  if (query.first > 0) {
    edges.activation_in = table.activation_cut[first];
    edges.gradient_in = table.gradient_cut[first];
  }
  if (query.end < num_blocks_) {
    edges.activation_out = table.activation_cut[end];
    edges.gradient_out = table.gradient_cut[end];
  }
  const auto& device = cost_.resources().device_classes[static_cast<std::size_t>(table.kind.device_class)];
  Room room;
  room.fixed = fixed;
  room.host_fixed = lasting.host.value;
  room.capacity = device.memory.value.value;
  room.host_capacity = cost_model::host_memory_of(cost_.resources(), {table.kind.device_class, 0}).value;
  room.moments = query.moments != nullptr ? query.moments
                                          : &moments(plan::ScheduleKind::OneForwardOneBackward, 0, query.in_flight,
                                                     query.in_flight + query.credits + 1, query.credits);
  room.edges = edges;
  room.moves = query.offload == plan::Offload::Activations;
  for (const cost_model::Moment& moment : *room.moments) room.most_kept = std::max(room.most_kept, moment.before + 1);
  return room;
}

const std::vector<cost_model::Moment>& SpanCosts::moments(plan::ScheduleKind schedule, int stage, int num_stages,
                                                          std::int64_t count, int credits) const {
  // A longer list only repeats itself, but for GPipe's.
  constexpr int kRounds = 3;
  if (schedule != plan::ScheduleKind::GPipe && !plan::has_chunks(schedule))
    count = std::min<std::int64_t>(count, std::int64_t{kRounds} * num_stages + credits + 1);
  const std::tuple key{schedule, stage, num_stages, count, credits};
  {
    const std::shared_lock lock(mutex_);
    const auto found = moments_.find(key);
    if (found != moments_.end()) return found->second;
  }
  if (plan::has_chunks(schedule)) {
    num_stages = plan::peak_in_flight(schedule, stage, num_stages, count);
    stage = 0;
    schedule = plan::ScheduleKind::OneForwardOneBackward;
  }
  auto fresh = cost_model::moments_of(plan::make_schedule(schedule, stage, num_stages, static_cast<int>(count)),
                                      credits, stage == 0);
  const std::unique_lock lock(mutex_);
  return moments_.emplace(key, std::move(fresh)).first->second;
}

namespace {

std::int64_t with_margin(std::int64_t bytes) { return bytes + cost_model::margin_of(Bytes(bytes)).value; }

}  // namespace

std::int64_t Room::bytes(const cost_model::HeldRun& held) const {
  return with_margin(fixed + cost_model::most_held(*moments, held, edges, moves));
}

bool Room::may_hold(std::int64_t kept, std::int64_t owed) const {
  if (moves) return host_holds(kept);
  const cost_model::HeldRun run{{kept, owed, kept, kept, kept, owed}, {}};
  return with_margin(fixed + cost_model::most_held(*moments, run, edges, false)) <= capacity;
}

namespace {

/// Of all blocks at once: equal ones in a row count as one.
cost_model::HeldRun hold(const SampleTable& table, std::size_t first, const std::vector<plan::Recompute>& recompute) {
  cost_model::HeldRun held;
  for (std::size_t i = 0, next = 0; i < recompute.size(); i = next) {
    const std::size_t end = std::min(recompute.size(), static_cast<std::size_t>(table.alike_end[first + i]) - first);
    while (next < end && recompute[next] == recompute[i]) ++next;
    held.add(table.holds(first + i, recompute[i]), static_cast<std::int64_t>(next - i));
  }
  return held;
}

}  // namespace

std::vector<plan::Recompute> SpanCosts::recompute_kinds(int block) const {
  using plan::Recompute;
  switch (rule_) {
    case RecomputeRule::None: return {Recompute::None};
    case RecomputeRule::Full: return {Recompute::Full};
    case RecomputeRule::Selective: return {Recompute::Selective};
    case RecomputeRule::Listed:
      return {listed_[static_cast<std::size_t>(block)] != 0 ? Recompute::Full : Recompute::None};
    case RecomputeRule::Free: break;
  }
  if (selective_) return {Recompute::None, Recompute::Selective, Recompute::Full};
  return {Recompute::None, Recompute::Full};
}

Fit SpanCosts::fit(const SampleTable& table, const SpanQuery& query, const std::vector<plan::Recompute>& chosen) const {
  const auto first = static_cast<std::size_t>(query.first), end = static_cast<std::size_t>(query.end);
  Fit fit;
  fit.recompute = chosen;
  fit.recompute.resize(end - first, plan::Recompute::None);
  if (rule_ == RecomputeRule::Full) std::fill(fit.recompute.begin(), fit.recompute.end(), plan::Recompute::Full);
  if (rule_ == RecomputeRule::Selective)
    std::fill(fit.recompute.begin(), fit.recompute.end(), plan::Recompute::Selective);
  if (rule_ == RecomputeRule::Listed) {
    for (std::size_t block = first; block < end; ++block) {
      if (listed_[block] != 0) fit.recompute[block - first] = plan::Recompute::Full;
    }
  }

  const Room room = this->room(table, query);
  const auto weigh = [&](const cost_model::HeldRun& held) {
    fit.bytes = room.bytes(held);
    fit.fits = room.holds(held, fit.bytes);
    return fit.fits;
  };
  if (rule_ == RecomputeRule::Free && with_margin(room.fixed) > room.capacity) {
    // Whatever it recomputes: that much is missing at least.
    for (std::size_t block = first; block < end; ++block) {
      plan::Recompute& now = fit.recompute[block - first];
      if (now != plan::Recompute::Full && table.most_recompute[block] != plan::Recompute::None)
        now = table.most_recompute[block];
    }
    weigh(hold(table, first, fit.recompute));
    return fit;
  }
  const cost_model::HeldRun as_chosen = hold(table, first, fit.recompute);
  if (weigh(as_chosen) || rule_ != RecomputeRule::Free) return fit;
  struct Change {
    std::size_t at = 0;
    plan::Recompute from = plan::Recompute::None, to = plan::Recompute::None;
  };
  std::vector<Change> changes;
  changes.reserve(2 * (end - first));
  for (const SampleTable::RecomputeStep& step : table.recompute_steps) {
    const auto block = static_cast<std::size_t>(step.block);
    if (block < first || block >= end) continue;
    plan::Recompute& now = fit.recompute[block - first];
    if (now == step.to || now == plan::Recompute::Full) continue;
    changes.push_back({block - first, now, step.to});
    now = step.to;
  }
  std::size_t done = changes.size();
  const auto fits_after = [&](std::size_t count) {
    for (; done < count; ++done) fit.recompute[changes[done].at] = changes[done].to;
    for (; done > count; --done) fit.recompute[changes[done - 1].at] = changes[done - 1].from;
    return weigh(hold(table, first, fit.recompute));
  };
  if (!fits_after(changes.size())) {
    std::int64_t kept = 0;
    for (std::size_t block = first; block < end; ++block) kept += table.kept(block, fit.recompute[block - first]);
    if (!room.may_hold(kept, as_chosen.all.owed)) return fit;
    // Blocks that make all of theirs again may need more than what they freed.
    for (std::size_t count = 1; count < changes.size(); ++count) {
      if (fits_after(count)) return fit;
    }
    fits_after(changes.size());
    return fit;
  }
  std::size_t too_few = 0, enough = changes.size();
  while (too_few + 1 < enough) {
    const std::size_t middle = (too_few + enough) / 2;
    (fits_after(middle) ? enough : too_few) = middle;
  }
  fits_after(enough);
  return fit;
}

std::vector<std::int64_t> SpanCosts::buckets(int first, int end, Bytes bucket_bytes, int tensor, int expert,
                                             std::int64_t replicas) const {
  // Buckets close by the whole parameters' bytes, as in the plan; what a device reduces is its shard.
  constexpr std::int64_t kFloat32Bytes = 4;
  const Sums& sums = this->sums(tensor, expert);
  const auto more = [&](std::size_t block, bool shard) {  // used by several blocks, first by this one
    std::int64_t elements = 0;
    for (const ParameterFacts* parameter : tied_) {
      if (parameter->trainable && parameter->blocks.front() == static_cast<int>(block) &&
          parameter->blocks.back() < end)
        elements += shard ? parameter->elements_at(tensor, expert) : parameter->elements;
    }
    return elements;
  };
  std::vector<std::int64_t> result;
  std::int64_t held = 0, reduced = 0;
  for (auto block = static_cast<std::size_t>(end); block-- > static_cast<std::size_t>(first);) {
    held += kFloat32Bytes * (sums.whole_of_block[block] + more(block, false));
    const std::int64_t experts = sums.experts_of_block[block];
    reduced += kFloat32Bytes * cost_model::reduced_elements(sums.of_block[block] - experts + more(block, true), experts,
                                                            replicas, expert);
    if (held > 0 && held >= bucket_bytes.value) {
      result.push_back(reduced);
      held = reduced = 0;
    }
  }
  if (held > 0) result.push_back(reduced);
  return result;
}

}  // namespace coxswain::planner
