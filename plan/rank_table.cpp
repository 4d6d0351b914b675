#include "plan/rank_table.h"

#include <algorithm>

#include "common/ensure.h"

namespace coxswain::plan {
namespace {

/// One shard each: a device meets the devices of the other mesh that hold a part of its shard.
void add_shards(std::vector<Transfer>& transfers, Transfer whole, int position, int own, int other) {
  whole.num_shards = std::max(own, other);
  const int first_peer = whole.peer;
  const int meets = other > own ? other / own : 1;
  for (int i = 0; i < meets; ++i) {
    whole.peer = first_peer + (other > own ? position * meets + i : position * other / own);
    transfers.push_back(whole);
  }
}

}  // namespace

RankTable::RankTable(const Plan& plan) : plan_(plan) {
  int rank = 0;
  for (const Stage& stage : plan.stages) {
    std::vector<int> ranks{rank};
    std::vector<std::int64_t> samples{0};
    for (const Replica& replica : stage.replicas) {
      ranks.push_back(rank += static_cast<int>(replica.devices.size()));
      samples.push_back(samples.back() + replica.samples);
    }
    first_rank_.push_back(std::move(ranks));
    first_sample_.push_back(std::move(samples));
  }
  if (first_rank_.empty()) first_rank_.push_back({0});
}

RankPlace RankTable::place_of(int rank) const {
  const auto stage = std::partition_point(first_rank_.begin(), first_rank_.end(),
                                          [rank](const std::vector<int>& ranks) { return ranks.back() <= rank; });
  COX_ENSURE(stage != first_rank_.end() && rank >= 0, rank);
  const auto after = std::upper_bound(stage->begin(), stage->end(), rank);
  const auto replica = static_cast<int>(after - stage->begin()) - 1;
  return {static_cast<int>(stage - first_rank_.begin()), replica, rank - *(after - 1)};
}

DeviceId RankTable::device_of(int rank) const {
  const RankPlace place = place_of(rank);
  return plan_.stages[static_cast<std::size_t>(place.stage)]
      .replicas[static_cast<std::size_t>(place.replica)]
      .devices[static_cast<std::size_t>(place.position)];
}

// Overlaps of this rank's samples with those of the replicas of stage `other`.
std::vector<Transfer> RankTable::transfers_with(int rank, int other) const {
  if (other < 0 || other >= static_cast<int>(plan_.stages.size())) return {};
  const RankPlace place = place_of(rank);
  const auto own_stage = static_cast<std::size_t>(place.stage), peer_stage = static_cast<std::size_t>(other);
  const auto replica = static_cast<std::size_t>(place.replica);
  const std::int64_t mine = first_sample_[own_stage][replica], mine_end = first_sample_[own_stage][replica + 1];
  const auto own = static_cast<int>(plan_.stages[own_stage].replicas[replica].devices.size());
  const std::vector<std::int64_t>& begins = first_sample_[peer_stage];
  std::vector<Transfer> transfers;
  const auto from = std::upper_bound(begins.begin(), begins.end(), mine);
  for (auto peer = static_cast<std::size_t>(std::max<std::ptrdiff_t>(from - begins.begin() - 1, 0));
       peer + 1 < begins.size() && begins[peer] < mine_end; ++peer) {
    const std::int64_t first = std::max(begins[peer], mine), last = std::min(begins[peer + 1], mine_end);
    const auto size = static_cast<int>(plan_.stages[peer_stage].replicas[peer].devices.size());
    if (first < last)
      add_shards(transfers, {first_rank_[peer_stage][peer], first - mine, last - first, 1}, place.position, own, size);
  }
  return transfers;
}

std::vector<Transfer> RankTable::transfers_of(int rank, const Action& action) const {
  const int stage = place_of(rank).stage;
  const std::optional<Edge> edge = edge_of(plan_, stage, action);
  if (!edge) return {};
  return transfers_with(rank, edge->from == stage ? edge->to : edge->from);
}

std::vector<Transfer> transfers_with(const Plan& plan, int rank, int other) {
  return RankTable(plan).transfers_with(rank, other);
}

std::vector<Transfer> transfers_of(const Plan& plan, int rank, const Action& action) {
  return RankTable(plan).transfers_of(rank, action);
}

}  // namespace coxswain::plan
