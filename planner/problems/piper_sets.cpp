#include "planner/problems/piper_sets.h"

#include <algorithm>

namespace coxswain::planner {
namespace {

/// Depth first from the last nodes backwards: branches stay together, so that the prefixes cut few edges.
std::vector<int> topological_order(const PiperInstance& instance) {
  std::vector<int> order;
  std::vector<char> seen(instance.nodes.size(), 0);
  std::vector<std::pair<int, std::size_t>> path;  // node, in-edges followed
  for (std::size_t root = 0; root < instance.nodes.size(); ++root) {
    if (!instance.nodes[root].out_edges.empty()) continue;
    path.emplace_back(static_cast<int>(root), 0);
    seen[root] = 1;
    while (!path.empty()) {
      auto& [node, followed] = path.back();
      const std::vector<int>& edges = instance.nodes[static_cast<std::size_t>(node)].in_edges;
      if (followed == edges.size()) {
        order.push_back(node);
        path.pop_back();
        continue;
      }
      const int from = instance.edges[static_cast<std::size_t>(edges[followed++])].from;
      if (seen[static_cast<std::size_t>(from)] != 0) continue;
      seen[static_cast<std::size_t>(from)] = 1;
      path.emplace_back(from, 0);
    }
  }
  return order;
}

}  // namespace

PiperSets::PiperSets(const PiperInstance& instance) : order_(topological_order(instance)), rank_(order_.size()) {
  for (std::size_t r = 0; r < order_.size(); ++r) rank_[static_cast<std::size_t>(order_[r])] = r;
  num_words_ = std::max<std::size_t>(1, (order_.size() + 63) / 64);
  bits_.assign(num_words_, 0);
  parent_.push_back(0);
  rank_added_.push_back(0);
}

void PiperSets::add(std::size_t parent, std::size_t rank) {
  for (std::size_t w = 0; w < num_words_; ++w) bits_.push_back(bits_[parent * num_words_ + w]);
  bits_[parent_.size() * num_words_ + rank / 64] |= std::uint64_t{1} << (rank % 64);
  parent_.push_back(parent);
  rank_added_.push_back(rank);
}

std::optional<PiperSets> PiperSets::all(const PiperInstance& instance, std::size_t max_sets) {
  PiperSets sets(instance);
  const auto may_add = [&](std::size_t set, std::size_t rank) {
    for (const int e : instance.nodes[static_cast<std::size_t>(sets.order_[rank])].in_edges) {
      if (!sets.contains(set, instance.edges[static_cast<std::size_t>(e)].from)) return false;
    }
    return true;
  };
  for (std::size_t set = 0; set < sets.count(); ++set) {
    for (std::size_t rank = set == 0 ? 0 : sets.rank_added_[set] + 1; rank < sets.order_.size(); ++rank) {
      if (may_add(set, rank)) sets.add(set, rank);
    }
    if (sets.count() > max_sets) return std::nullopt;
  }
  return sets;
}

PiperSets PiperSets::prefixes(const PiperInstance& instance) {
  PiperSets sets(instance);
  for (std::size_t rank = 0; rank < sets.order_.size(); ++rank) sets.add(rank, rank);
  return sets;
}

std::vector<int> PiperSets::between(std::size_t lower, std::size_t upper) const {
  std::vector<int> nodes;
  for (std::size_t v = 0; v < rank_.size(); ++v) {
    const int node = static_cast<int>(v);
    if (contains(upper, node) && !contains(lower, node)) nodes.push_back(node);
  }
  return nodes;
}

std::vector<double> PiperSets::sum(const std::vector<double>& of_node) const {
  std::vector<double> sums(count(), 0);
  for (std::size_t set = 1; set < count(); ++set)
    sums[set] = sums[parent_[set]] + of_node[static_cast<std::size_t>(added(set))];
  return sums;
}

}  // namespace coxswain::planner
