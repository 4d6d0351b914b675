#include "planner/problems/sailor_rows.h"

#include <algorithm>

#include "planner/problems/sailor_model.h"

namespace coxswain::planner {
namespace {

/// Paths through more pools than this are cut off.
constexpr std::size_t kMaxChain = 6;

/// A row under a limit. A runner is a pool whose replicas may follow each other; the runners stand in a chain, each a
/// run. Replicas of the other pools, the guests, are put between those of the chain.
class Row {
 public:
  Row(const SailorRow& row, double limit) : row_(row), limit_(limit), counts_(row.pools.size(), 0) {}

  [[nodiscard]] int missing() const { return row_.count - placed_; }
  [[nodiscard]] int tp() const { return row_.tp; }

  /// The chain of runners with the most room.
  void choose_chain(const std::vector<double>& room) {
    std::vector<std::size_t> chain;
    double best = -1;
    extend_chain(room, chain, 0, best);
    for (std::size_t place = 0; place < row_.pools.size(); ++place)
      can_take_.push_back(is_chained(place) || has_friend(place));
  }
  /// Takes what the row needs from the room of its chain, each runner's part alike.
  void expect(std::vector<double>& room) const {
    double all = 0;
    for (const std::size_t place : chain_) all += room[pool(place)];
    for (const std::size_t place : chain_) {
      double& left = room[pool(place)];
      left -= std::min(left, row_.count * row_.tp * left / all);
    }
  }

  /// Adds `gpus` to every pool that the row can take replicas of.
  void add_wanted(double gpus, std::vector<double>& wanted) const {
    for (std::size_t place = 0; place < row_.pools.size(); ++place)
      if (can_take_[place]) wanted[pool(place)] += gpus;
  }
  /// Takes a replica from the pool with the most room for the GPUs that are wanted of it, which is returned; none: -1.
  int take(const std::vector<int>& room, const std::vector<double>& wanted) {
    std::size_t best = row_.pools.size();
    double most = 0;
    for (std::size_t place = 0; place < row_.pools.size(); ++place) {
      if (!can_take_[place] || room[pool(place)] < row_.tp || !has_place(place)) continue;
      const double share = room[pool(place)] / wanted[pool(place)];
      if (best < row_.pools.size() && share <= most) continue;
      best = place;
      most = share;
    }
    if (best == row_.pools.size()) return -1;
    add(best, 1);
    return row_.pools[best];
  }

  /// Takes a replica that `giver` has, which takes one from a pool with room instead; that pool, or none: -1.
  int trade(Row& giver, const std::vector<int>& room) {
    if (&giver == this || giver.tp() != tp()) return -1;
    for (std::size_t given = 0; given < giver.counts_.size(); ++given) {
      const auto own = static_cast<std::size_t>(
          std::find(row_.pools.begin(), row_.pools.end(), giver.row_.pools[given]) - row_.pools.begin());
      if (giver.counts_[given] == 0 || own == row_.pools.size() || !can_take_[own] || !has_place(own)) continue;
      giver.add(given, -1);
      for (std::size_t next = 0; next < giver.counts_.size(); ++next) {
        if (next == given || !giver.can_take_[next] || room[giver.pool(next)] < tp()) continue;
        giver.add(next, 1);
        if (giver.has_places()) {
          add(own, 1);
          return giver.row_.pools[next];
        }
        giver.add(next, -1);
      }
      giver.add(given, 1);
    }
    return -1;
  }

  /// The runs of the chain with the guests between them; none: some guest has no place.
  [[nodiscard]] std::optional<std::vector<int>> order() const {
    std::vector<std::size_t> line;
    for (const std::size_t place : chain_) line.insert(line.end(), static_cast<std::size_t>(counts_[place]), place);
    std::vector<int> left = counts_;
    for (const std::size_t place : chain_) left[place] = 0;
    bool progress = true;
    while (progress && line.size() < static_cast<std::size_t>(row_.count)) {
      progress = false;
      for (std::size_t place = 0; place < left.size(); ++place) {
        if (left[place] == 0 || !insert(place, line)) continue;
        --left[place];
        progress = true;
      }
    }
    if (line.size() != static_cast<std::size_t>(row_.count)) return std::nullopt;
    std::vector<int> pools;
    for (std::size_t i = 0; i < line.size(); ++i) {
      // A runner without replicas leaves a gap in the chain.
      if (i > 0 && !links(line[i - 1], line[i])) return std::nullopt;
      pools.push_back(row_.pools[line[i]]);
    }
    return pools;
  }

 private:
  [[nodiscard]] std::size_t pool(std::size_t place) const { return static_cast<std::size_t>(row_.pools[place]); }
  [[nodiscard]] bool links(std::size_t a, std::size_t b) const {
    return row_.seconds[a * row_.pools.size() + b] <= limit_;
  }
  [[nodiscard]] bool is_chained(std::size_t place) const {
    return std::find(chain_.begin(), chain_.end(), place) != chain_.end();
  }
  [[nodiscard]] bool are_friends(std::size_t a, std::size_t b) const { return a != b && links(a, b) && links(b, a); }
  [[nodiscard]] bool has_friend(std::size_t place) const {
    for (std::size_t other = 0; other < row_.pools.size(); ++other)
      if (are_friends(place, other)) return true;
    return false;
  }

  void add(std::size_t place, int count) {
    counts_[place] += count;
    placed_ += count;
  }

  /// For one more: a guest needs a replica of a friend between any two of its own.
  [[nodiscard]] bool has_place(std::size_t place) const {
    return is_chained(place) || counts_[place] <= friends(place);
  }
  /// For all that the row has.
  [[nodiscard]] bool has_places() const {
    for (std::size_t place = 0; place < counts_.size(); ++place)
      if (!is_chained(place) && counts_[place] > friends(place) + 1) return false;
    return true;
  }
  /// Replicas that those of `place` may stand on both sides of.
  [[nodiscard]] int friends(std::size_t place) const {
    int count = 0;
    for (std::size_t other = 0; other < row_.pools.size(); ++other)
      if (are_friends(place, other)) count += counts_[other];
    return count;
  }

  void extend_chain(const std::vector<double>& room, std::vector<std::size_t>& chain, double size, double& best) {
    if (size > best) {
      best = size;
      chain_ = chain;
    }
    if (chain.size() == kMaxChain) return;
    for (std::size_t next = 0; next < row_.pools.size(); ++next) {
      if (!links(next, next) || (!chain.empty() && !links(chain.back(), next))) continue;
      if (std::find(chain.begin(), chain.end(), next) != chain.end()) continue;
      chain.push_back(next);
      extend_chain(room, chain, size + room[pool(next)], best);
      chain.pop_back();
    }
  }

  bool insert(std::size_t place, std::vector<std::size_t>& line) const {
    for (std::size_t at = 0; at <= line.size(); ++at) {
      if (at > 0 && !links(line[at - 1], place)) continue;
      if (at < line.size() && !links(place, line[at])) continue;
      line.insert(line.begin() + static_cast<std::ptrdiff_t>(at), place);
      return true;
    }
    return false;
  }

  const SailorRow& row_;
  double limit_;
  std::vector<int> counts_;  // by place in the row's pools
  std::vector<char> can_take_;
  std::vector<std::size_t> chain_;  // places of the runners
  int placed_ = 0;
};

/// One replica at a time, for the row that lacks most.
bool share_out(std::vector<Row>& rows, std::vector<int>& room) {
  // GPUs that rows still want of each pool, if all take from every pool they can.
  std::vector<double> wanted(room.size(), 0);
  for (const Row& row : rows) row.add_wanted(row.missing() * row.tp(), wanted);
  while (true) {
    const auto next = std::max_element(rows.begin(), rows.end(),
                                       [](const Row& a, const Row& b) { return a.missing() < b.missing(); });
    if (next->missing() == 0) return true;
    int pool = next->take(room, wanted);
    for (auto giver = rows.begin(); pool < 0 && giver != rows.end(); ++giver) pool = next->trade(*giver, room);
    if (pool < 0) return false;
    room[static_cast<std::size_t>(pool)] -= next->tp();
    next->add_wanted(-next->tp(), wanted);
  }
}

}  // namespace

std::optional<std::vector<std::vector<int>>> fill_rows(const std::vector<SailorRow>& rows, std::vector<int> room,
                                                       double limit) {
  std::vector<Row> filled;
  std::vector<double> expected(room.begin(), room.end());
  for (const SailorRow& each : rows) {
    filled.emplace_back(each, limit);
    filled.back().choose_chain(expected);
    filled.back().expect(expected);
  }
  if (!share_out(filled, room)) return std::nullopt;
  std::vector<std::vector<int>> orders;
  for (const Row& row : filled) {
    auto order = row.order();
    if (!order) return std::nullopt;
    orders.push_back(std::move(*order));
  }
  return orders;
}

double least_row_limit(const std::vector<SailorRow>& rows, const std::vector<int>& room) {
  std::vector<double> limits;
  for (const SailorRow& row : rows) limits.insert(limits.end(), row.seconds.begin(), row.seconds.end());
  std::sort(limits.begin(), limits.end());
  limits.erase(std::unique(limits.begin(), limits.end()), limits.end());
  const auto found =
      std::partition_point(limits.begin(), limits.end(), [&](double limit) { return !fill_rows(rows, room, limit); });
  return found == limits.end() ? kNever : *found;
}

}  // namespace coxswain::planner
