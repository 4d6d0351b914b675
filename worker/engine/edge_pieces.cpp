#include "worker/engine/edge_pieces.h"

#include <algorithm>

#include "plan/layout/held_rows.h"
#include "worker/engine/tensor_types.h"

namespace coxswain::worker {
namespace {

using Rows = std::vector<std::vector<std::int64_t>>;

/// One replica's share of a value, by position: rows of the whole micro-batch's tensor.
std::vector<Rows> held_by(const model::ModelGraph& graph, const plan::Stage& stage, int replica, model::ValueId value,
                          const EdgeCuts& cuts) {
  const plan::Replica& given = stage.replicas[static_cast<std::size_t>(replica)];
  const auto sizes = sizes_of(graph, value, given.samples);
  const auto samples = graph.batch_symbol.empty() ? std::nullopt : sample_dim_of(graph, value);
  std::vector<Rows> held;
  for (std::size_t p = 0; p < given.devices.size(); ++p) {
    held.push_back(plan::held_rows(sizes, cuts(graph, value, given.samples, given, static_cast<int>(p))));
    if (!samples) continue;
    for (std::int64_t& row : held.back()[static_cast<std::size_t>(samples->dim)])
      row += plan::first_sample(stage, replica) * samples->multiple;
  }
  return held;
}

/// Of all positions of a replica that hold the same rows, one sends them to receiving position `receiver`.
bool is_sender(const std::vector<Rows>& held, int position, int receiver) {
  std::vector<int> equal;
  for (std::size_t p = 0; p < held.size(); ++p)
    if (held[p] == held[static_cast<std::size_t>(position)]) equal.push_back(static_cast<int>(p));
  return equal[static_cast<std::size_t>(receiver) % equal.size()] == position;
}

/// Whether two replicas have samples in common.
bool meet(const plan::Stage& a, int replica_a, const plan::Stage& b, int replica_b) {
  const std::int64_t first_a = plan::first_sample(a, replica_a), first_b = plan::first_sample(b, replica_b);
  return first_a < first_b + b.replicas[static_cast<std::size_t>(replica_b)].samples &&
         first_b < first_a + a.replicas[static_cast<std::size_t>(replica_a)].samples;
}

/// The first replica of `from` that meets `replica` of `to`: it sends what has no samples, which every replica has all
/// of.
int first_that_meets(const plan::Stage& from, const plan::Stage& to, int replica) {
  int r = 0;
  while (!meet(from, r, to, replica)) ++r;
  return r;
}

/// Places in `own` of what `other` has too; false where there is nothing.
bool intersect(const Rows& own, const Rows& other, RowRuns& runs) {
  runs.clear();
  for (std::size_t d = 0; d < own.size(); ++d) {
    std::vector<std::int64_t> places;
    for (std::size_t i = 0, j = 0; i < own[d].size() && j < other[d].size();) {
      if (own[d][i] == other[d][j]) places.push_back(static_cast<std::int64_t>(i));
      const bool behind = own[d][i] <= other[d][j];
      if (own[d][i] >= other[d][j]) ++j;
      if (behind) ++i;
    }
    if (places.empty()) return false;
    runs.push_back(plan::runs_of_rows(places));
  }
  return true;
}

}  // namespace

std::vector<EdgePiece> edge_pieces(const model::ModelGraph& graph, const plan::Plan& plan,
                                   const std::vector<model::ValueId>& values, int rank, int other_stage, bool sends,
                                   const EdgeCuts& cuts) {
  const plan::RankPlace place = plan::place_of(plan, rank);
  const plan::Stage& own_stage = plan.stages[static_cast<std::size_t>(place.stage)];
  const plan::Stage& peer_stage = plan.stages[static_cast<std::size_t>(other_stage)];
  std::vector<EdgePiece> pieces;
  for (std::size_t v = 0; v < values.size(); ++v) {
    const bool split = !graph.batch_symbol.empty() && sample_dim_of(graph, values[v]).has_value();
    const auto own = held_by(graph, own_stage, place.replica, values[v], cuts);
    const Rows& mine = own[static_cast<std::size_t>(place.position)];
    for (int r = 0; r < static_cast<int>(peer_stage.replicas.size()); ++r) {
      if (!meet(own_stage, place.replica, peer_stage, r)) continue;
      if (!split && (sends ? first_that_meets(own_stage, peer_stage, r) != place.replica
                           : first_that_meets(peer_stage, own_stage, place.replica) != r))
        continue;
      const auto theirs = held_by(graph, peer_stage, r, values[v], cuts);
      for (int p = 0; p < static_cast<int>(theirs.size()); ++p) {
        const bool meets = sends ? is_sender(own, place.position, p) : is_sender(theirs, p, place.position);
        EdgePiece piece{plan::rank_of(plan, {other_stage, r, p}), v, {}};
        if (meets && intersect(mine, theirs[static_cast<std::size_t>(p)], piece.rows))
          pieces.push_back(std::move(piece));
      }
    }
  }
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const EdgePiece& a, const EdgePiece& b) { return a.peer < b.peer; });
  return pieces;
}

bool covers_once(const std::vector<EdgePiece>& pieces, std::size_t value, const std::vector<std::int64_t>& sizes) {
  std::int64_t total = 1, held = 0;
  for (const std::int64_t size : sizes) total *= size;
  const auto overlap = [](const RowRuns& a, const RowRuns& b) {
    for (std::size_t d = 0; d < a.size(); ++d) {
      const bool meet = std::any_of(a[d].begin(), a[d].end(), [&](const plan::Cut::Run& x) {
        return std::any_of(b[d].begin(), b[d].end(), [&](const plan::Cut::Run& y) {
          return x.first < y.first + y.size && y.first < x.first + x.size;
        });
      });
      if (!meet) return false;
    }
    return true;
  };
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].value != value) continue;
    std::int64_t count = 1;
    for (const std::int64_t size : part_sizes(pieces[i].rows)) count *= size;
    held += count;
    for (std::size_t j = 0; j < i; ++j)
      if (pieces[j].value == value && overlap(pieces[i].rows, pieces[j].rows)) return false;
  }
  return held == total;
}

}  // namespace coxswain::worker
