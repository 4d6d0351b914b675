#pragma once
// The downward-closed sets of a layer graph: what the stages before some cut may hold. A pipeline is a chain of them
// from the empty set to the full one, so a chain of layers and a graph with branches are searched alike. Numbered by
// size, the empty set first; each is its parent and one node more, so sums over sets take one addition each.
// Called by piper_search and piper_memory. Threads: pure values.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "planner/problems/piper.h"

namespace coxswain::planner {

class PiperSets {
 public:
  /// All of them, each made once: removing the last node of a fixed topological order from a closed set leaves a closed
  /// one, so that is its parent. Empty when there are more than `max_sets`. Cost: sets x nodes.
  [[nodiscard]] static std::optional<PiperSets> all(const PiperInstance& instance, std::size_t max_sets);
  /// Only the prefixes of the topological order: one chain.
  [[nodiscard]] static PiperSets prefixes(const PiperInstance& instance);

  [[nodiscard]] std::size_t count() const { return parent_.size(); }
  [[nodiscard]] std::size_t full() const { return count() - 1; }
  [[nodiscard]] std::size_t parent(std::size_t set) const { return parent_[set]; }
  /// The node (position) by which `set` exceeds its parent. Requires: not the empty set.
  [[nodiscard]] int added(std::size_t set) const { return order_[rank_added_[set]]; }
  [[nodiscard]] bool contains(std::size_t set, int node) const {
    const std::size_t rank = rank_[static_cast<std::size_t>(node)];
    return (bits_[set * num_words_ + rank / 64] >> (rank % 64) & 1) != 0;
  }
  [[nodiscard]] bool is_within(std::size_t inner, std::size_t outer) const {
    for (std::size_t w = 0; w < num_words_; ++w) {
      if ((bits_[inner * num_words_ + w] & ~bits_[outer * num_words_ + w]) != 0) return false;
    }
    return true;
  }
  /// Positions of the nodes of `upper` that are not in `lower`, ascending.
  [[nodiscard]] std::vector<int> between(std::size_t lower, std::size_t upper) const;
  /// For each set the sum of `of_node` over its nodes.
  [[nodiscard]] std::vector<double> sum(const std::vector<double>& of_node) const;

 private:
  explicit PiperSets(const PiperInstance& instance);
  /// Appends `parent` with the node of that rank.
  void add(std::size_t parent, std::size_t rank);

  std::size_t num_words_ = 1;
  std::vector<int> order_;           // topological
  std::vector<std::size_t> rank_;    // of each node in it
  std::vector<std::uint64_t> bits_;  // num_words_ per set, by rank
  std::vector<std::size_t> parent_, rank_added_;
};

}  // namespace coxswain::planner
