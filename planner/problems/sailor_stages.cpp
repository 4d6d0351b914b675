#include "planner/problems/sailor_stages.h"

#include <algorithm>
#include <cmath>

namespace coxswain::planner {
namespace {

constexpr double kGigabyte = 1e9;
/// Bounds may be off by their roundings; a plan at a limit is not to be lost for that.
constexpr double kTolerance = 1e-9;
constexpr double kLongestSeconds = 1e5;

double seconds_of(Cost ticks) { return static_cast<double>(ticks) / kSailorTicks; }

}  // namespace

Cost SailorGoal::cost(double seconds, double usd) const {
  if (!(seconds <= max_seconds * (1 + kTolerance)) || !(usd <= max_usd * (1 + kTolerance))) return kNoCost;
  if (seconds > kLongestSeconds) return kNoCost;
  return std::llround((minimise_cost ? usd : seconds) * kSailorTicks);
}

SailorTables::SailorTables(const SailorSpans& spans, SailorRings& rings, const SailorShape& shape,
                           const SailorGoal& goal, Cost cost_limit)
    : spans_(spans), rings_(rings), shape_(shape), goal_(goal) {
  least_round_ = bound_round(spans, shape);
  time_limit_ = find_time_limit(cost_limit);
  options_.resize(static_cast<std::size_t>(spans.num_layers()) + 1);
  for (std::size_t g = 0; g < spans.groups().size(); ++g) list_stages({static_cast<int>(g), -1}, options_);
  rest_.emplace(spans, shape.whole, options_);
  fill_least_rate();
}

std::size_t SailorTables::class_of(int group) const {
  return static_cast<std::size_t>(spans_.groups()[static_cast<std::size_t>(group)].class_index);
}

Cost SailorTables::find_time_limit(Cost cost_limit) const {
  double seconds = std::min(goal_.max_seconds, kLongestSeconds);
  double cheapest = kNever;
  for (std::size_t g = 0; g < spans_.groups().size(); ++g)
    cheapest = std::min(cheapest, usd_per_second(static_cast<int>(g)) * shape_.num_replicas);
  seconds = std::min(seconds, goal_.max_usd / cheapest);
  if (cost_limit != kNoCost) seconds = std::min(seconds, seconds_of(cost_limit) / (goal_.minimise_cost ? cheapest : 1));
  const Cost first_round = std::max(least_round_, spans_.least_compute(spans_.num_layers()));
  return std::llround(seconds * (1 + kTolerance) * kSailorTicks) - first_round;
}

void SailorTables::list_stages(SailorComposition composition, SailorOptions& options) const {
  const int group = composition.first;
  const bool mixed = composition.mixed();
  if (!mixed && shape_.whole[class_of(group)] < tp(group)) return;
  const double rate = shape_.num_replicas * (mixed ? std::min(usd_per_second(group), usd_per_second(composition.second))
                                                   : usd_per_second(group));
  const auto takes = [&](Cost round) { return shape_.rounds * std::max(round, least_round_); };
  for (int end = 1; end <= spans_.num_layers(); ++end) {
    for (int first = end - 1; first >= 0; --first) {
      SailorStageOption stage{composition, first};
      stage.compute = spans_.compute(composition, first, end);
      if (stage.compute == kNoCost || takes(stage.compute) > time_limit_) break;  // as do longer ones
      stage.least_round = spans_.least_round(composition, first, end);
      if (stage.least_round == kNoCost || takes(stage.least_round) > time_limit_) continue;
      stage.sync = rings_.sync(composition, first, end);
      if (stage.sync == kNoCost || takes(stage.least_round) + stage.sync > time_limit_) continue;
      stage.max_depth = spans_.max_depth(composition, first, end);
      stage.class_index = mixed ? -1 : static_cast<int>(class_of(group));
      stage.units = mixed ? 0 : tp(group);
      stage.update = spans_.update(composition, first);
      stage.egress_usd = rings_.egress_usd(composition, first, end);
      stage.usd_per_second = rate;
      options[static_cast<std::size_t>(end)].push_back(stage);
    }
  }
}

SailorOptions SailorTables::list_mixed(SailorComposition mixed) const {
  SailorOptions options(static_cast<std::size_t>(spans_.num_layers()) + 1);
  list_stages(mixed, options);
  return options;
}

void SailorTables::fill_least_rate() {
  least_rate_.assign(static_cast<std::size_t>(spans_.num_layers()) + 1, kNever);
  least_rate_[0] = 0;
  // A mixed stage costs no less than all its replicas in the cheaper group.
  for (std::size_t end = 1; end < least_rate_.size(); ++end)
    for (const SailorStageOption& stage : options_[end])
      least_rate_[end] =
          std::min(least_rate_[end], stage.usd_per_second + least_rate_[static_cast<std::size_t>(stage.first)]);
}

double SailorStages::link_usd(SailorComposition a, SailorComposition b, int layer) const {
  if (a.mixed() || b.mixed()) return 0;
  return spans_.least_usd_per_gb(tables_.class_of(a.first), tables_.class_of(b.first)) *
         spans_.model().output_bytes(shape_.micro_batch, layer) / kGigabyte * static_cast<double>(shape_.rounds + 1) *
         shape_.num_replicas;
}

std::optional<std::pair<SailorStages::State, SailorStages::Label>> SailorStages::extend(const State& state,
                                                                                        const Label& label,
                                                                                        const Option& option) const {
  const SailorStageOption& stage = *option.stage;
  if (label.num_stages >= stage.max_depth) return std::nullopt;
  Label next = label;
  ++next.num_stages;
  if (stage.class_index >= 0) {
    const auto c = static_cast<std::size_t>(stage.class_index);
    if (label.used[c] + stage.units > box_[c]) return std::nullopt;
    next.used[c] = static_cast<std::int16_t>(label.used[c] + stage.units);
  }
  Cost forward = 0;
  if (label.num_stages > 0) {
    forward = spans_.send(stage.composition, state.next, state.layer - 1);
    const Cost backward = spans_.send(state.next, stage.composition, state.layer);
    if (forward == kNoCost || backward == kNoCost) return std::nullopt;
    const Cost round = label.pending + (label.num_stages == 1 ? 2 * backward : backward);
    next.slowest = std::max(label.slowest, round);
    next.sum = label.sum + round;
    if (spans_.has_egress()) next.egress_usd += link_usd(stage.composition, state.next, state.layer - 1);
  }
  next.pending = stage.compute + forward;
  if (stage.first == 0) {
    if (next.num_stages > 3) next.pending += forward;
    next.slowest = std::max(next.slowest, next.pending);
    next.sum += next.pending;
    next.pending = 0;
  }
  next.update = std::max(next.update, stage.update);
  next.sync = std::max(next.sync, stage.sync);
  next.usd_per_second += stage.usd_per_second;
  next.egress_usd += stage.egress_usd;
  return std::pair{State{stage.first, stage.composition, state.mixed || stage.composition.mixed()}, next};
}

bool SailorStages::dominates(const Label& a, const Label& b) const {
  if ((a.num_stages == 1) != (b.num_stages == 1) || a.num_stages > b.num_stages || a.egress_usd > b.egress_usd)
    return false;
  for (std::size_t c = 0; c < spans_.classes().size(); ++c)
    if (a.used[c] > b.used[c]) return false;
  const Cost slower = std::max<Cost>({0, a.slowest - b.slowest, a.pending - b.pending});
  return shape_.rounds * slower + (a.sum - b.sum) + (a.pending - b.pending) + std::max<Cost>(0, a.update - b.update) +
             std::max<Cost>(0, a.sync - b.sync) <=
         0;
}

Cost SailorStages::bound(const State& state, const Label& label) const {
  if (state.layer == 0) return finish(state, label);
  SailorUnits left{};
  for (std::size_t c = 0; c < spans_.classes().size(); ++c)
    left[c] = static_cast<std::int16_t>(box_[c] - label.used[c]);
  const SailorRest& rest = mix_ == nullptr || state.mixed ? tables_.rest() : *mix_->rest;
  const double sum = rest.sum(state.layer, left);
  if (!(sum < kNever)) return kNoCost;
  const Cost back = spans_.least_send(state.next, state.layer);
  if (back == kNoCost) return kNoCost;
  const Cost pending = label.pending + (label.num_stages == 1 ? 2 * back : back);
  const double slowest = std::max(seconds_of(std::max(label.slowest, pending)), rest.slowest(state.layer, left));
  const Cost placed =
      label.sum + pending + label.update + std::max(label.sync, tables_.rings().least_sync(state.layer));
  const double seconds = static_cast<double>(shape_.rounds) * slowest + seconds_of(placed) + sum;
  const double rest_usd =
      std::max(seconds * tables_.least_usd_per_second(state.layer),
               static_cast<double>(shape_.rounds + 1) * shape_.num_replicas * spans_.least_usd(state.layer));
  return tables_.goal().cost(seconds, label.egress_usd + seconds * label.usd_per_second + rest_usd);
}

int SailorStages::mixed_count(const SailorUnits& used) const {
  const SailorComposition& mixed = mix_->composition;
  const auto most = [&](int group) {
    const std::size_t c = tables_.class_of(group);
    return (spans_.classes()[c].count - used[c] * shape_.num_replicas) / tables_.tp(group);
  };
  const int low = std::max(1, shape_.num_replicas - most(mixed.second));
  const int high = std::min(shape_.num_replicas - 1, most(mixed.first));
  return tables_.usd_per_second(mixed.first) < tables_.usd_per_second(mixed.second) ? high : low;
}

Cost SailorStages::finish(const State& state, const Label& label) const {
  const double seconds = seconds_of(shape_.rounds * label.slowest + label.sum + label.update + label.sync);
  double rate = label.usd_per_second;
  if (mix_ != nullptr) {
    if (!state.mixed) return kNoCost;
    const int count = mixed_count(label.used);
    const double first = tables_.usd_per_second(mix_->composition.first);
    const double second = tables_.usd_per_second(mix_->composition.second);
    rate += count * first + (shape_.num_replicas - count) * second - shape_.num_replicas * std::min(first, second);
  }
  return tables_.goal().cost(seconds, label.egress_usd + seconds * rate);
}

}  // namespace coxswain::planner
