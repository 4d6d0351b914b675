// Bounds of the search over stages: what is left to place (SailorRest), what a shape costs at least.
#include <algorithm>
#include <cmath>
#include <limits>

#include "planner/problems/sailor_stages.h"

namespace coxswain::planner {
namespace {

constexpr float kNoWay = std::numeric_limits<float>::infinity();
/// Sums of singles are off by less than this part, which their bounds give up.
constexpr double kSingles = 1 - 4e-6;

float to_single(Cost ticks) { return static_cast<float>(static_cast<double>(ticks) / kSailorTicks * kSingles); }

/// One more round in front of every way: cells [0, count) of `to` become the better of themselves and of `from`.
void add_round(float round, const float* slowest_from, const float* sum_from, float* slowest_to, float* sum_to,
               std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    slowest_to[i] = std::min(slowest_to[i], std::max(round, slowest_from[i]));
    sum_to[i] = std::min(sum_to[i], round + sum_from[i]);
  }
}

}  // namespace

std::int64_t SailorRest::num_cells(int num_layers, std::size_t num_classes, const SailorUnits& whole) {
  std::int64_t cells = num_layers;
  for (std::size_t c = 0; c < num_classes; ++c) cells *= whole[c] + 1;
  return cells;
}

SailorRest::SailorRest(const SailorSpans& spans, const SailorUnits& whole, const SailorOptions& options)
    : num_layers_(spans.num_layers()) {
  for (std::size_t c = 0; c < spans.classes().size(); ++c) {
    sizes_.push_back(static_cast<std::size_t>(whole[c]) + 1);
    strides_.push_back(num_cells_);
    num_cells_ *= sizes_.back();
  }
  slowest_.assign(static_cast<std::size_t>(num_layers_) * num_cells_, kNoWay);
  sum_ = slowest_;
  std::fill_n(slowest_.begin(), num_cells_, 0.0F);
  std::fill_n(sum_.begin(), num_cells_, 0.0F);
  for (int k = 1; k < num_layers_; ++k)
    for (const SailorStageOption& option : options[static_cast<std::size_t>(k)]) add_alike(k, option);
}

SailorRest::SailorRest(const SailorRest& alike, const SailorOptions& options, const SailorOptions& mixed)
    : num_layers_(alike.num_layers_), sizes_(alike.sizes_), strides_(alike.strides_), num_cells_(alike.num_cells_) {
  slowest_.assign(static_cast<std::size_t>(num_layers_) * num_cells_, kNoWay);
  sum_ = slowest_;
  for (int k = 1; k < num_layers_; ++k) {
    const std::size_t to = static_cast<std::size_t>(k) * num_cells_;
    for (const SailorStageOption& option : mixed[static_cast<std::size_t>(k)]) {
      const std::size_t from = static_cast<std::size_t>(option.first) * num_cells_;
      add_round(to_single(option.least_round), &alike.slowest_[from], &alike.sum_[from], &slowest_[to], &sum_[to],
                num_cells_);
      work_ += static_cast<std::int64_t>(num_cells_);
    }
    for (const SailorStageOption& option : options[static_cast<std::size_t>(k)]) add_alike(k, option);
  }
}

/// The stage takes units of one class: cells with fewer of them are left out, the others read from those many below.
void SailorRest::add_alike(int k, const SailorStageOption& option) {
  const auto c = static_cast<std::size_t>(option.class_index), units = static_cast<std::size_t>(option.units);
  if (units >= sizes_[c]) return;
  const std::size_t skipped = units * strides_[c], block = sizes_[c] * strides_[c];
  const float round = to_single(option.least_round);
  work_ += static_cast<std::int64_t>(num_cells_);
  for (std::size_t start = 0; start < num_cells_; start += block) {
    const std::size_t from = static_cast<std::size_t>(option.first) * num_cells_ + start;
    const std::size_t to = static_cast<std::size_t>(k) * num_cells_ + start + skipped;
    add_round(round, &slowest_[from], &sum_[from], &slowest_[to], &sum_[to], block - skipped);
  }
}

std::size_t SailorRest::place(int k, const SailorUnits& units) const {
  std::size_t result = static_cast<std::size_t>(k) * num_cells_;
  for (std::size_t c = 0; c < strides_.size(); ++c) result += static_cast<std::size_t>(units[c]) * strides_[c];
  return result;
}

Cost bound_round(const SailorSpans& spans, const SailorShape& shape) {
  Cost longest = 0;
  for (int l = 0; l < spans.num_layers(); ++l)
    longest = std::max(longest, spans.least_compute(l + 1) - spans.least_compute(l));
  double speed = 0;  // whole models a second, over all replicas
  for (std::size_t c = 0; c < spans.classes().size(); ++c)
    speed += spans.classes()[c].count / spans.least_gpu_seconds(static_cast<int>(c));
  return std::max(longest, static_cast<Cost>(std::floor(shape.num_replicas / speed * kSailorTicks)));
}

Cost bound_shape(const SailorSpans& spans, const SailorRings& rings, const SailorShape& shape, const SailorGoal& goal) {
  const Cost compute = spans.least_compute(spans.num_layers()), sync = rings.least_sync(spans.num_layers());
  if (compute == kNoCost || sync == kNoCost) return kNoCost;
  const Cost round = bound_round(spans, shape);
  const double usd = static_cast<double>(shape.rounds + 1) * shape.num_replicas * spans.least_usd(spans.num_layers());
  return goal.cost(static_cast<double>(shape.rounds * round + std::max(round, compute) + sync) / kSailorTicks, usd);
}

}  // namespace coxswain::planner
