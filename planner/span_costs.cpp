#include "planner/span_costs.h"

#include <algorithm>
#include <numeric>

namespace coxswain::planner {

using cost_model::BlockTime;
using cost_model::ModelFacts;
using cost_model::ParameterFacts;

SpanCosts::SpanCosts(const cost_model::CostModel& cost, plan::Precision precision, RecomputeRule rule,
                     std::vector<char> listed)
    : cost_(cost),
      precision_(precision),
      rule_(rule),
      listed_(std::move(listed)),
      num_blocks_(cost.facts().num_blocks()) {
  for (std::size_t c = 0; c < cost.resources().device_classes.size(); ++c)
    overhead_.push_back(cost_model::to_ticks(cost.estimate_action_overhead(static_cast<int>(c))));
  ops_sum_.push_back(0);
  for (const model::Block& block : cost.model().blocks)
    ops_sum_.push_back(ops_sum_.back() + block.end_op - block.first_op);
  for (const ParameterFacts& parameter : cost.facts().parameters()) {
    if (parameter.blocks.size() > 1) tied_.push_back(&parameter);
  }
}

const SpanCosts::Sums& SpanCosts::sums(int tensor) const {
  {
    const std::shared_lock lock(mutex_);
    const auto found = sums_.find(tensor);
    if (found != sums_.end()) return found->second;
  }
  Sums fresh = make_sums(tensor);
  const std::unique_lock lock(mutex_);
  return sums_.emplace(tensor, std::move(fresh)).first->second;
}

SpanCosts::Sums SpanCosts::make_sums(int tensor) const {
  Sums sums;
  sums.of_block.resize(static_cast<std::size_t>(num_blocks_), 0);
  std::vector<std::int64_t> frozen(static_cast<std::size_t>(num_blocks_), 0);
  for (const ParameterFacts& parameter : cost_.facts().parameters()) {
    if (parameter.blocks.size() != 1) continue;
    const auto block = static_cast<std::size_t>(parameter.blocks.front());
    const std::int64_t elements = parameter.elements_at(tensor);
    if (parameter.trainable)
      sums.of_block[block] += elements;
    else
      frozen[block] += size_of(parameter.dtype).value * elements;
  }
  sums.held = sums.frozen = {0};
  for (std::size_t block = 0; block < sums.of_block.size(); ++block) {
    sums.held.push_back(sums.held.back() + sums.of_block[block]);
    sums.frozen.push_back(sums.frozen.back() + frozen[block]);
  }
  return sums;
}

cost_model::PersistentElements SpanCosts::persistent(int first, int end, int tensor) const {
  const Sums& sums = this->sums(tensor);
  const auto from = static_cast<std::size_t>(first), to = static_cast<std::size_t>(end);
  cost_model::PersistentElements count;
  count.held = count.owned = sums.held[to] - sums.held[from];
  count.frozen = Bytes(sums.frozen[to] - sums.frozen[from]) + cost_.facts().buffer_bytes(first, end);
  std::map<int, std::int64_t> more;  // by block: tied parameters count where this span uses them first
  for (const ParameterFacts* parameter : tied_) {
    const auto at = std::lower_bound(parameter->blocks.begin(), parameter->blocks.end(), first);
    if (at == parameter->blocks.end() || *at >= end) continue;
    const std::int64_t elements = parameter->elements_at(tensor);
    if (!parameter->trainable) {
      count.frozen += size_of(parameter->dtype) * elements;
      continue;
    }
    count.held += elements;
    more[*at] += elements;
    if (parameter->blocks.front() >= first) count.owned += elements;
  }
  for (std::size_t block = from; block < to; ++block) count.largest = std::max(count.largest, sums.of_block[block]);
  for (const auto& [block, elements] : more)
    count.largest = std::max(count.largest, sums.of_block[static_cast<std::size_t>(block)] + elements);
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
  const auto split = [unit = table.kind.size()](Bytes bytes) { return (bytes.value + unit - 1) / unit; };
  const cost_model::BlockWork work{block, table.kind.device_class, table.samples, precision_, table.kind.tensor};
  const BlockTime time = cost_.estimate_block(work);
  const cost_model::MeshTicks ticks = cost_model::estimate_block_on_mesh(cost_, work, mesh);
  table.forward.push_back(ticks.forward);
  table.backward.push_back(ticks.backward);
  table.saved.push_back(time.saved.value);
  table.transient.push_back(time.transient.value);
  table.shared.push_back(time.measured ? 0 : split(facts.totals(block, table.samples).shared_bytes));
  table.kept_input.push_back(split(facts.activation_bytes(block, table.samples, precision_)));
}

std::unique_ptr<SampleTable> SpanCosts::make_table(UnitKind kind, std::int64_t samples) const {
  auto table = std::make_unique<SampleTable>();
  table->kind = kind;
  table->samples = samples;
  cost_model::Mesh mesh;
  if (kind.size() > 1) mesh.tensor_group = first_unit(cost_.resources(), kind);
  const ModelFacts& facts = cost_.facts();
  const auto stream = [&](int cut) { return facts.activation_bytes(cut, samples, precision_); };
  for (int block = 0; block < num_blocks_; ++block) {
    const bool repeats = cost_.costs_by_signature() && block > 1 && block + 1 < num_blocks_ &&
                         facts.signature_of(block) == facts.signature_of(block - 1) &&
                         stream(block - 1) == stream(block) && stream(block) == stream(block + 1);
    if (!repeats) {
      add_block(*table, block, mesh);
      continue;
    }
    for (std::vector<Ticks>* ticks : {&table->forward, &table->backward}) ticks->push_back(Ticks(ticks->back()));
    for (std::vector<std::int64_t>* bytes : {&table->saved, &table->transient, &table->shared, &table->kept_input})
      bytes->push_back(std::int64_t(bytes->back()));
  }
  table->forward_sum = table->backward_sum = {0};
  for (const Ticks ticks : table->forward) table->forward_sum.push_back(table->forward_sum.back() + ticks);
  for (const Ticks ticks : table->backward) table->backward_sum.push_back(table->backward_sum.back() + ticks);
  const auto split = [unit = kind.size()](Bytes bytes) { return (bytes.value + unit - 1) / unit; };
  for (int cut = 0; cut <= num_blocks_; ++cut) {
    table->activation_cut.push_back(split(facts.activation_bytes(cut, samples, precision_)));
    table->gradient_cut.push_back(split(facts.gradient_bytes(cut, samples, precision_)));
  }
  table->recompute_order.resize(static_cast<std::size_t>(num_blocks_));
  std::iota(table->recompute_order.begin(), table->recompute_order.end(), 0);
  std::stable_sort(table->recompute_order.begin(), table->recompute_order.end(), [&](int a, int b) {
    const auto gain = [&](int block) {
      const auto i = static_cast<std::size_t>(block);
      return static_cast<double>(table->saved[i] - table->kept_input[i]) /
             static_cast<double>(std::max<Ticks>(1, table->forward[i]));
    };
    return gain(a) > gain(b);
  });
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

Fit SpanCosts::fit(const SampleTable& table, const SpanQuery& query, const std::vector<plan::Recompute>& chosen) const {
  const auto first = static_cast<std::size_t>(query.first), end = static_cast<std::size_t>(query.end);
  Fit fit;
  fit.recompute = chosen;
  fit.recompute.resize(end - first, plan::Recompute::None);
  if (rule_ == RecomputeRule::Full) std::fill(fit.recompute.begin(), fit.recompute.end(), plan::Recompute::Full);
  if (rule_ == RecomputeRule::Listed) {
    for (std::size_t block = first; block < end; ++block) {
      if (listed_[block] != 0) fit.recompute[block - first] = plan::Recompute::Full;
    }
  }

  // What recompute does not change.
  const cost_model::PersistentMemory lasting = cost_model::estimate_persistent_memory(
      persistent(query.first, query.end, table.kind.tensor), precision_, query.zero_stage, query.replicas);
  std::int64_t fixed = (lasting.parameters + lasting.gradients + lasting.optimizer + lasting.gathered +
                        cost_.base_memory(table.kind.device_class))
                           .value;
  if (query.first > 0) fixed += table.activation_cut[first] * query.credits + table.gradient_cut[first];
  if (query.end < num_blocks_) fixed += table.gradient_cut[end] * query.credits + table.activation_cut[end];
  std::int64_t transient = 0, shared = 0, kept = 0, replayed = 0;
  for (std::size_t block = first; block < end; ++block) {
    transient = std::max(transient, table.transient[block]);
    shared = std::max(shared, table.shared[block]);
    const bool full = fit.recompute[block - first] == plan::Recompute::Full;
    kept += full ? table.kept_input[block] : table.saved[block];
    if (full) replayed = std::max(replayed, table.saved[block]);
  }
  fixed += transient + shared;

  const std::int64_t capacity =
      cost_.resources().device_classes[static_cast<std::size_t>(table.kind.device_class)].memory.value.value;
  const auto need = [&] {
    const Bytes sum(fixed + kept * query.in_flight + replayed);
    fit.bytes = (sum + cost_model::margin_of(sum)).value;
    return fit.bytes <= capacity;
  };
  fit.fits = need();
  if (fit.fits || rule_ == RecomputeRule::None || rule_ == RecomputeRule::Listed || rule_ == RecomputeRule::Full)
    return fit;
  for (const int candidate : table.recompute_order) {
    const auto block = static_cast<std::size_t>(candidate);
    if (block < first || block >= end || fit.recompute[block - first] == plan::Recompute::Full) continue;
    if (table.saved[block] <= table.kept_input[block]) break;
    fit.recompute[block - first] = plan::Recompute::Full;
    kept += table.kept_input[block] - table.saved[block];
    replayed = std::max(replayed, table.saved[block]);
    fit.fits = need();
    if (fit.fits) return fit;
  }
  return fit;
}

std::vector<std::int64_t> SpanCosts::buckets(int first, int end, Bytes bucket_bytes, int tensor) const {
  // Buckets close by the whole parameters' bytes, as in the plan; what a device reduces is its shard.
  const auto length = static_cast<std::size_t>(end - first);
  std::vector<std::int64_t> whole(length, 0), shard(length, 0);
  for (const ParameterFacts& parameter : cost_.facts().parameters()) {
    if (!parameter.trainable || parameter.blocks.empty() || parameter.blocks.front() < first ||
        parameter.blocks.back() >= end)
      continue;
    const auto block = static_cast<std::size_t>(parameter.blocks.front() - first);
    whole[block] += size_of(DType::Float32).value * parameter.elements;
    shard[block] += size_of(DType::Float32).value * parameter.elements_at(tensor);
  }
  std::vector<std::int64_t> result;
  std::int64_t held = 0, reduced = 0;
  for (std::size_t i = length; i-- > 0;) {
    held += whole[i];
    reduced += shard[i];
    if (held > 0 && held >= bucket_bytes.value) {
      result.push_back(reduced);
      held = reduced = 0;
    }
  }
  if (held > 0) result.push_back(reduced);
  return result;
}

}  // namespace coxswain::planner
