#include "planner/state_slices.h"

#include <algorithm>
#include <tuple>

namespace coxswain::planner {
namespace {

constexpr double kFloat32Bytes = 4, kHalfBytes = 2;
/// Two float32 moments of AdamW (C14).
constexpr double kMomentBytes = 8;

/// Ascending stages that own one of `blocks`.
std::vector<int> stages_of(const plan::Plan& plan, const std::vector<int>& blocks) {
  std::vector<int> stages;
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const auto at = std::lower_bound(blocks.begin(), blocks.end(), plan.stages[s].first_block);
    if (at != blocks.end() && *at < plan.stages[s].end_block) stages.push_back(static_cast<int>(s));
  }
  return stages;
}

class PartMaker {
 public:
  PartMaker(const plan::Plan& running, const plan::Plan& next) : running_(running), next_(next) {}

  void add_parameter(const cost_model::ParameterFacts& parameter) {
    const auto& [from, to] = stages(parameter.blocks);
    if (from.empty() || to.empty()) return;
    const auto elements = static_cast<double>(parameter.elements);
    const Strip strip{parameter.sharded, parameter.experts > 0};
    if (!parameter.trainable) {
      add(from, to, SplitFrom::Never, strip, static_cast<double>(size_of(parameter.dtype).value) * elements);
      return;
    }
    const bool half = plan::is_mixed(next_.precision);
    add(from, to, SplitFrom::Parameters, strip, (half ? kHalfBytes : kFloat32Bytes) * elements);
    add(from, to, SplitFrom::Optimizer, strip, (half ? kFloat32Bytes + kMomentBytes : kMomentBytes) * elements);
  }

  void add_buffer(Bytes bytes, const std::vector<int>& blocks) {
    const auto& [from, to] = stages(blocks);
    if (!from.empty() && !to.empty()) add(from, to, SplitFrom::Never, Strip{}, static_cast<double>(bytes.value));
  }

  [[nodiscard]] std::vector<StatePart> take() {
    std::vector<StatePart> parts;
    for (auto& [key, part] : parts_) parts.push_back(std::move(part));
    return parts;
  }

 private:
  const std::pair<std::vector<int>, std::vector<int>>& stages(const std::vector<int>& blocks) {
    const auto found = stages_.find(blocks);
    if (found != stages_.end()) return found->second;
    return stages_.emplace(blocks, std::pair{stages_of(running_, blocks), stages_of(next_, blocks)}).first->second;
  }

  void add(const std::vector<int>& from, const std::vector<int>& to, SplitFrom split, Strip strip, double bytes) {
    StatePart& part = parts_[{from, to, split}];
    part.from = from;
    part.to = to;
    part.split = split;
    part.bytes[(strip.tensor ? 1 : 0) + (strip.expert ? 2 : 0)] += bytes;
  }

  const plan::Plan& running_;
  const plan::Plan& next_;
  std::map<std::vector<int>, std::pair<std::vector<int>, std::vector<int>>> stages_;  // by blocks
  std::map<std::tuple<std::vector<int>, std::vector<int>, SplitFrom>, StatePart> parts_;
};

}  // namespace

Slice intersect(Slice a, Slice b) { return {std::max(a.begin, b.begin), std::min(a.end, b.end)}; }

std::vector<Slice> unite(std::vector<Slice> slices) {
  std::sort(slices.begin(), slices.end(),
            [](Slice a, Slice b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
  std::vector<Slice> united;
  for (const Slice slice : slices) {
    if (slice.length() == 0) continue;
    if (!united.empty() && slice.begin <= united.back().end)
      united.back().end = std::max(united.back().end, slice.end);
    else
      united.push_back(slice);
  }
  return united;
}

std::vector<Slice> subtract(const std::vector<Slice>& from, const std::vector<Slice>& taken) {
  std::vector<Slice> rest;
  for (const Slice slice : from) {
    double begin = slice.begin;
    for (const Slice hole : taken) {
      if (hole.end <= begin) continue;
      if (hole.begin >= slice.end) break;
      if (hole.begin > begin) rest.push_back({begin, hole.begin});
      begin = std::max(begin, hole.end);
    }
    if (begin < slice.end) rest.push_back({begin, slice.end});
  }
  return rest;
}

double length_of(const std::vector<Slice>& slices) {
  double length = 0;
  for (const Slice slice : slices) length += slice.length();
  return length;
}

// C70. One division each, so that equal fractions are equal numbers whatever the degrees are.
Slice slice_of(const plan::Stage& stage, int replica, int position, Strip strip, SplitFrom split) {
  const plan::Replica& place = stage.replicas[static_cast<std::size_t>(replica)];
  const std::int64_t experts = strip.expert ? place.expert : 1, shards = strip.tensor ? place.tensor : 1;
  const std::int64_t shard =
      (strip.expert ? replica % experts : 0) * shards + (strip.tensor ? position % place.tensor : 0);
  // Those that hold the same: replicas with the same experts, each with its context axis.
  const std::int64_t context = place.context, replicas = static_cast<std::int64_t>(stage.replicas.size());
  const bool divided = stage.zero_stage >= static_cast<int>(split);
  const std::int64_t holders = divided ? (replicas + experts - 1) / experts * context : 1;
  const std::int64_t holder = divided ? replica / experts * context + position / place.tensor : 0;
  const auto all = static_cast<double>(experts * shards * holders);
  const std::int64_t first = shard * holders + holder;
  return {static_cast<double>(first) / all, static_cast<double>(first + 1) / all};
}

std::vector<StatePart> make_state_parts(const cost_model::CostModel& cost, const plan::Plan& running,
                                        const plan::Plan& next) {
  PartMaker maker(running, next);
  for (const cost_model::ParameterFacts& parameter : cost.facts().parameters()) maker.add_parameter(parameter);
  for (const auto& [bytes, blocks] : cost.facts().buffers()) maker.add_buffer(bytes, blocks);
  return maker.take();
}

KeptBytes::KeptBytes(const cost_model::CostModel& cost, const plan::Plan& running, const plan::Plan& next)
    : running_(running), next_(next), parts_(make_state_parts(cost, running, next)) {
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    for (const int from : parts_[i].from) {
      for (const int to : parts_[i].to) of_stages_[{from, to}].push_back(i);
    }
  }
}

// C71
double KeptBytes::operator()(plan::RankPlace from, plan::RankPlace to) const {
  const auto parts = of_stages_.find({from.stage, to.stage});
  if (parts == of_stages_.end()) return 0;
  double bytes = 0;
  for (const std::size_t i : parts->second) {
    for (std::size_t strip = 0; strip < kStrips.size(); ++strip) {
      const double all = parts_[i].bytes[strip];
      if (all == 0) continue;
      const Slice held = slice_of(running_.stages[static_cast<std::size_t>(from.stage)], from.replica, from.position,
                                  kStrips[strip], parts_[i].split);
      const Slice needed = slice_of(next_.stages[static_cast<std::size_t>(to.stage)], to.replica, to.position,
                                    kStrips[strip], parts_[i].split);
      bytes += all * intersect(held, needed).length();
    }
  }
  return bytes;
}

}  // namespace coxswain::planner
