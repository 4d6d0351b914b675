// Downward-closed sets by the counts that order theory gives.
#include "planner/problems/piper_sets.h"

#include "tests/planner/problems/piper_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain::planner;

namespace {

PiperInstance graph(int num_nodes, const std::vector<std::pair<int, int>>& edges) {
  PiperBuilder builder;
  for (int v = 0; v < num_nodes; ++v) builder.node();
  for (const auto& [from, to] : edges) builder.edge(from, to, 0);
  for (int v = 0; v < num_nodes; ++v) builder.option(v, 1, false, {});
  return builder.build();
}

std::size_t count(const PiperInstance& instance) { return all_sets(instance).count(); }

}  // namespace

TEST_CASE("sets are counted", "[piper_sets_test]") {
  CHECK(count(graph(5, {{4, 3}, {3, 2}, {2, 1}, {1, 0}})) == 6);      // a chain, numbered backwards
  CHECK(count(graph(6, {})) == 64);                                   // no order: all subsets
  CHECK(count(graph(4, {{0, 1}, {0, 2}, {1, 3}, {2, 3}})) == 6);      // a diamond
  CHECK(count(graph(6, {{0, 1}, {1, 2}, {3, 4}, {4, 5}})) == 16);     // two chains: 4 x 4
  CHECK(count(graph(4, {{0, 2}, {0, 3}, {1, 2}, {1, 3}})) == 4 + 3);  // complete two by two
  CHECK_FALSE(PiperSets::all(graph(6, {}), 63).has_value());
}

TEST_CASE("a set is its parent and one node, closed, in order of size", "[piper_sets_test]") {
  const PiperInstance instance = graph(70, {{0, 1}, {0, 2}, {1, 3}, {2, 3}, {65, 66}});
  const PiperSets sets = all_sets(graph(6, {{5, 0}, {0, 1}, {0, 2}, {1, 3}, {2, 3}, {3, 4}}));
  const std::vector<double> sizes = sets.sum(std::vector<double>(6, 1));
  for (std::size_t set = 1; set < sets.count(); ++set) {
    const std::size_t parent = sets.parent(set);
    CHECK(sets.is_within(parent, set));
    CHECK_FALSE(sets.is_within(set, parent));
    CHECK(sets.between(parent, set) == std::vector<int>{sets.added(set)});
    CHECK(sizes[set] == sizes[parent] + 1);
    CHECK(sizes[set] >= sizes[set - 1]);
  }
  CHECK(sizes[sets.full()] == 6);
  CHECK_FALSE(PiperSets::all(instance, 1000).has_value());
  // More nodes than bits of a word, along one order.
  const PiperSets prefixes = PiperSets::prefixes(instance);
  CHECK(prefixes.count() == 71);
  CHECK(prefixes.between(0, prefixes.full()).size() == 70);
  CHECK(prefixes.is_within(3, 69));
  CHECK_FALSE(prefixes.is_within(69, 68));
  for (std::size_t set = 0; set < prefixes.count(); ++set) {
    for (const PiperEdge& edge : instance.edges)
      CHECK((!prefixes.contains(set, edge.to) || prefixes.contains(set, edge.from)));
  }
}
