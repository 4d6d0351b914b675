#include "planner/assignment.h"

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>

#include "planner/move.h"
#include "planner/state_slices.h"

namespace coxswain::planner {
namespace {

/// A place of a plan on a node: the device that stands there now, or stood there.
struct Seat {
  plan::RankPlace at;
  plan::DeviceId device;
};

/// What the nodes of one kind have in common: stages and mesh positions, whatever the replica.
using NodeKind = std::vector<std::pair<int, int>>;

NodeKind kind_of(const std::vector<Seat>& seats) {
  NodeKind kind;
  for (const Seat& seat : seats) kind.emplace_back(seat.at.stage, seat.at.position);
  std::sort(kind.begin(), kind.end());
  return kind;
}

int first_replica(const std::vector<Seat>& seats) {
  int first = std::numeric_limits<int>::max();
  for (const Seat& seat : seats) first = std::min(first, seat.at.replica);
  return first;
}

class Assigner {
 public:
  Assigner(const cost_model::CostModel& cost, const plan::Plan& running, const cluster::DeviceMap& devices,
           const plan::Plan& next)
      : graph_(cost.resources()), kept_(cost, running, next), next_(next) {
    const auto nodes = static_cast<std::size_t>(cluster::num_nodes(graph_));
    held_.resize(nodes);
    wanted_.resize(nodes);
    const PlacedDevices placed = place_devices(running, devices);
    for (std::size_t s = 0; s < placed.size(); ++s) {
      for (std::size_t r = 0; r < placed[s].size(); ++r) {
        for (std::size_t p = 0; p < placed[s][r].size(); ++p) {
          if (const auto& device = placed[s][r][p]) seats_of(held_, *device).push_back({place(s, r, p), *device});
        }
      }
    }
    for (std::size_t s = 0; s < next.stages.size(); ++s) {
      for (std::size_t r = 0; r < next.stages[s].replicas.size(); ++r) {
        const auto& mesh = next.stages[s].replicas[r].devices;
        for (std::size_t p = 0; p < mesh.size(); ++p) seats_of(wanted_, mesh[p]).push_back({place(s, r, p), mesh[p]});
      }
    }
  }

  plan::Plan run() {
    for (const std::vector<std::int64_t>& orbit : orbits()) {
      const std::vector<int> to = orbit.size() <= kMaxExactNodes ? match_best(orbit) : match_kinds(orbit);
      for (std::size_t i = 0; i < orbit.size(); ++i) fill_node(orbit[i], orbit[static_cast<std::size_t>(to[i])]);
    }
    return std::move(next_);
  }

 private:
  static plan::RankPlace place(std::size_t s, std::size_t r, std::size_t p) {
    return {static_cast<int>(s), static_cast<int>(r), static_cast<int>(p)};
  }
  std::vector<Seat>& seats_of(std::vector<std::vector<Seat>>& of_nodes, plan::DeviceId device) const {
    return of_nodes[static_cast<std::size_t>(cluster::locate(graph_, device).node)];
  }

  /// Nodes that any permutation may swap: of one group and one innermost domain; alone where single links are known.
  [[nodiscard]] std::vector<std::vector<std::int64_t>> orbits() const {
    const auto innermost = [](const std::vector<cluster::NetworkTier>& tiers) {
      return tiers.empty() || tiers.front().nodes_per_domain == 0 ? std::numeric_limits<std::int64_t>::max()
                                                                  : tiers.front().nodes_per_domain;
    };
    std::map<std::tuple<std::size_t, std::int64_t, std::int64_t, std::int64_t>, std::vector<std::int64_t>> orbits;
    std::int64_t node = 0, run_start = 0, own_size = 0;
    for (std::size_t g = 0; g < graph_.nodes.size(); ++g) {
      if (!graph_.nodes[g].continues) {
        run_start = node;
        own_size = innermost(graph_.nodes[g].tiers);
      }
      for (std::int64_t i = 0; i < graph_.nodes[g].count; ++i, ++node) {
        const std::int64_t alone = graph_.link_overrides.empty() ? 0 : node;
        orbits[{g, node / innermost(graph_.tiers), (node - run_start) / own_size, alone}].push_back(node);
      }
    }
    std::vector<std::vector<std::int64_t>> result;
    for (auto& [key, orbit] : orbits) result.push_back(std::move(orbit));
    return result;
  }

  /// What would stay of the places of node `from` on node `to`, each place on its best device.
  [[nodiscard]] double common(std::int64_t from, std::int64_t to) const {
    double sum = 0;
    for (const Seat& wanted : wanted_[static_cast<std::size_t>(from)]) {
      double best = 0;
      for (const Seat& held : held_[static_cast<std::size_t>(to)]) {
        if (held.device.device_class == wanted.device.device_class) best = std::max(best, kept_(held.at, wanted.at));
      }
      sum += best;
    }
    return sum;
  }

  [[nodiscard]] std::vector<int> match_best(const std::vector<std::int64_t>& orbit) const {
    std::vector<std::vector<std::int64_t>> value(orbit.size(), std::vector<std::int64_t>(orbit.size(), 0));
    for (std::size_t i = 0; i < orbit.size(); ++i) {
      for (std::size_t j = 0; j < orbit.size(); ++j) value[i][j] = preferred(common(orbit[i], orbit[j]), i == j);
    }
    return assign_most(value);
  }

  /// Whole bytes; of equal ones what is there already.
  static std::int64_t preferred(double bytes, bool same) {
    return 2 * static_cast<std::int64_t>(bytes) + (same ? 1 : 0);
  }

  /// Kinds of places to kinds of holdings, most in common first; inside a kind by replica, so that ZeRO's shards meet.
  [[nodiscard]] std::vector<int> match_kinds(const std::vector<std::int64_t>& orbit) const {
    std::map<NodeKind, std::vector<int>> wanting, holding;
    for (std::size_t i = 0; i < orbit.size(); ++i) {
      wanting[kind_of(wanted_[static_cast<std::size_t>(orbit[i])])].push_back(static_cast<int>(i));
      holding[kind_of(held_[static_cast<std::size_t>(orbit[i])])].push_back(static_cast<int>(i));
    }
    const auto node = [&](int i) { return orbit[static_cast<std::size_t>(i)]; };
    const auto by_replica = [&](const std::vector<std::vector<Seat>>& seats, std::vector<int>& nodes) {
      const auto seats_at = [&](int i) -> const auto& { return seats[static_cast<std::size_t>(node(i))]; };
      std::stable_sort(nodes.begin(), nodes.end(),
                       [&](int a, int b) { return first_replica(seats_at(a)) < first_replica(seats_at(b)); });
    };
    std::vector<std::tuple<double, std::vector<int>*, std::vector<int>*>> pairs;
    for (auto& [wanted, from] : wanting) {
      by_replica(wanted_, from);
      for (auto& [held, to] : holding) pairs.emplace_back(common(node(from.front()), node(to.front())), &from, &to);
    }
    for (auto& [held, to] : holding) by_replica(held_, to);
    std::stable_sort(pairs.begin(), pairs.end(),
                     [](const auto& a, const auto& b) { return std::get<0>(a) > std::get<0>(b); });
    std::vector<int> result(orbit.size(), -1);
    std::vector<char> used(orbit.size(), 0);
    for (const auto& [bytes, from, to] : pairs) {
      auto next = to->begin();
      for (const int i : *from) {
        if (result[static_cast<std::size_t>(i)] >= 0) continue;
        while (next != to->end() && used[static_cast<std::size_t>(*next)] != 0) ++next;
        if (next == to->end()) break;
        used[static_cast<std::size_t>(*next)] = 1;
        result[static_cast<std::size_t>(i)] = *next;
      }
    }
    return result;
  }

  /// The places of node `from` go to the devices of node `to`, class by class.
  void fill_node(std::int64_t from, std::int64_t to) {
    const auto& wanted = wanted_[static_cast<std::size_t>(from)];
    if (wanted.empty()) return;
    std::map<int, std::vector<plan::DeviceId>> devices;
    std::int64_t left = to;
    for (const cluster::NodeGroup& group : graph_.nodes) {
      if (left >= group.count) {
        left -= group.count;
        continue;
      }
      std::int64_t local = 0;
      const auto& node_class = graph_.node_classes[static_cast<std::size_t>(group.node_class)];
      for (const cluster::DeviceCount& entry : node_class.devices) {
        for (std::int64_t i = 0; i < entry.count; ++i, ++local)
          devices[entry.device_class].push_back(cluster::device_at(graph_, to, local));
      }
      break;
    }
    for (const auto& [device_class, here] : devices) {
      std::vector<std::vector<std::int64_t>> value(here.size(), std::vector<std::int64_t>(here.size(), 0));
      std::vector<const Seat*> seats;
      for (const Seat& seat : wanted) {
        if (seat.device.device_class != device_class) continue;
        auto& row = value[seats.size()];
        for (std::size_t d = 0; d < here.size(); ++d) {
          double bytes = 0;
          for (const Seat& held : held_[static_cast<std::size_t>(to)]) {
            if (held.device == here[d]) bytes = kept_(held.at, seat.at);
          }
          row[d] = preferred(bytes, seat.device == here[d]);
        }
        seats.push_back(&seat);
      }
      if (seats.empty()) continue;
      const std::vector<int> chosen = assign_most(value);
      for (std::size_t i = 0; i < seats.size(); ++i) {
        const plan::RankPlace at = seats[i]->at;
        next_.stages[static_cast<std::size_t>(at.stage)]
            .replicas[static_cast<std::size_t>(at.replica)]
            .devices[static_cast<std::size_t>(at.position)] = here[static_cast<std::size_t>(chosen[i])];
      }
    }
  }

  const cluster::ResourceGraph& graph_;
  const KeptBytes kept_;
  plan::Plan next_;
  std::vector<std::vector<Seat>> held_, wanted_;  // by node: of the running plan, of the next one
};

}  // namespace

std::vector<int> assign_most(const std::vector<std::vector<std::int64_t>>& value) {
  const auto n = static_cast<int>(value.size());
  constexpr std::int64_t kFar = std::numeric_limits<std::int64_t>::max() / 4;
  // Potentials of rows and columns; columns count from 1, 0 stands for the row that looks for one.
  std::vector<std::int64_t> row(static_cast<std::size_t>(n) + 1, 0), column(static_cast<std::size_t>(n) + 1, 0);
  std::vector<int> row_of(static_cast<std::size_t>(n) + 1, 0), way(static_cast<std::size_t>(n) + 1, 0);
  const auto at = [](int i) { return static_cast<std::size_t>(i); };
  for (int i = 1; i <= n; ++i) {
    row_of[0] = i;
    int j = 0;
    std::vector<std::int64_t> least(at(n) + 1, kFar);
    std::vector<char> seen(at(n) + 1, 0);
    do {
      seen[at(j)] = 1;
      std::int64_t step = kFar;
      int next = 0;
      for (int k = 1; k <= n; ++k) {
        if (seen[at(k)] != 0) continue;
        const std::int64_t slack = -value[at(row_of[at(j)] - 1)][at(k - 1)] - row[at(row_of[at(j)])] - column[at(k)];
        if (slack < least[at(k)]) {
          least[at(k)] = slack;
          way[at(k)] = j;
        }
        if (least[at(k)] < step) {
          step = least[at(k)];
          next = k;
        }
      }
      for (int k = 0; k <= n; ++k) {
        if (seen[at(k)] != 0) {
          row[at(row_of[at(k)])] += step;
          column[at(k)] -= step;
        } else {
          least[at(k)] -= step;
        }
      }
      j = next;
    } while (row_of[at(j)] != 0);
    while (j != 0) {
      row_of[at(j)] = row_of[at(way[at(j)])];
      j = way[at(j)];
    }
  }
  std::vector<int> column_of(at(n), 0);
  for (int k = 1; k <= n; ++k) column_of[at(row_of[at(k)] - 1)] = k - 1;
  return column_of;
}

plan::Plan assign_devices(const cost_model::CostModel& cost, const plan::Plan& running,
                          const cluster::DeviceMap& devices, const plan::Plan& next) {
  return Assigner(cost, running, devices, next).run();
}

}  // namespace coxswain::planner
