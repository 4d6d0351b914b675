#pragma once
// Label-setting dynamic programming over a `Problem`: states in layers, labels that no other label of their state
// dominates, bounds that never exceed what a completion costs. Exact for the problem's own cost; deterministic.
// Called by planner/ (PipelineProblem) and by tests; other planning problems are other types. Threads: pure.
// Source: DESIGN 3.5.
#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace coxswain::planner {

/// Costs are whole numbers, so that sums do not depend on their order.
using Cost = std::int64_t;
inline constexpr Cost kNoCost = std::numeric_limits<Cost>::max();

template <class P>
concept Problem = requires(P& problem, const typename P::State& state, const typename P::Label& label,
                           const typename P::Option& option, void (*visit)(const typename P::Option&)) {
  { problem.start() } -> std::same_as<std::pair<typename P::State, typename P::Label>>;
  { problem.layer(state) } -> std::convertible_to<int>;  // extend always leads to a higher one
  { problem.is_final(state) } -> std::convertible_to<bool>;
  problem.for_each_option(state, visit);  // what may come next, in a fixed order
  {
    problem.extend(state, label, option)
  } -> std::same_as<std::optional<std::pair<typename P::State, typename P::Label>>>;
  { problem.dominates(label, label) } -> std::convertible_to<bool>;  // no worse in any completion
  { problem.bound(state, label) } -> std::convertible_to<Cost>;      // admissible: no completion costs less
  { problem.finish(state, label) } -> std::convertible_to<Cost>;
  requires std::three_way_comparable<typename P::State>;
};

struct SearchLimits {
  Cost upper_bound = kNoCost;  // only what costs less is wanted
  int alternatives = 1;        // a label goes when this many others dominate it
  std::int64_t max_labels = std::numeric_limits<std::int64_t>::max();
  std::size_t max_results = 1;
  /// A layer keeps so many labels, those of least bound.
  std::size_t max_labels_per_layer = std::numeric_limits<std::size_t>::max();
};

template <Problem P>
struct SearchResult {
  struct Found {
    Cost cost = 0;
    std::vector<typename P::Option> path;  // first option first
  };
  std::vector<Found> best;  // ascending in cost, then in order of discovery
  /// No solution, found or not, costs less. kNoCost: there is none.
  Cost lower_bound = kNoCost;
  std::int64_t num_labels = 0;  // that were kept at first
  bool complete = true;         // false: max_labels ended it
};

/// Searches all of `problem`. Cost: labels x options of their state.
template <Problem P>
SearchResult<P> search_labels(P& problem, const SearchLimits& limits) {
  struct Node {
    typename P::Label label;
    typename P::Option option;
    std::int64_t parent = -1;
  };
  SearchResult<P> result;
  std::vector<Node> nodes;
  std::map<int, std::map<typename P::State, std::vector<std::int64_t>>> layers;
  std::vector<std::pair<Cost, std::int64_t>> finals;

  const auto start = problem.start();
  nodes.push_back({start.second, {}, -1});
  layers[problem.layer(start.first)][start.first] = {0};

  const auto insert = [&](std::vector<std::int64_t>& front, const typename P::Label& label,
                          const typename P::Option& option, std::int64_t parent) {
    int dominators = 0;
    for (const std::int64_t other : front) {
      if (problem.dominates(nodes[static_cast<std::size_t>(other)].label, label) && ++dominators >= limits.alternatives)
        return;
    }
    if (limits.alternatives == 1) {
      std::erase_if(front, [&](std::int64_t other) {
        return problem.dominates(label, nodes[static_cast<std::size_t>(other)].label);
      });
    }
    nodes.push_back({label, option, parent});
    front.push_back(static_cast<std::int64_t>(nodes.size()) - 1);
    ++result.num_labels;
  };

  // Of a layer that is too wide the labels of least bound; of the others only their bound counts.
  const auto narrow = [&](std::map<typename P::State, std::vector<std::int64_t>>& layer) {
    std::size_t width = 0;
    for (const auto& [state, front] : layer) width += front.size();
    if (width <= limits.max_labels_per_layer) return;
    std::vector<std::pair<Cost, std::int64_t>> order;
    for (const auto& [state, front] : layer) {
      for (const std::int64_t node : front)
        order.emplace_back(problem.bound(state, nodes[static_cast<std::size_t>(node)].label), node);
    }
    std::sort(order.begin(), order.end());
    const std::pair<Cost, std::int64_t> last = order[limits.max_labels_per_layer];
    result.lower_bound = std::min(result.lower_bound, last.first);
    result.complete = false;
    for (auto& [state, front] : layer) {
      std::erase_if(front, [&, &state = state](std::int64_t node) {
        return std::pair{problem.bound(state, nodes[static_cast<std::size_t>(node)].label), node} >= last;
      });
    }
  };

  while (!layers.empty()) {
    auto layer = layers.extract(layers.begin());
    if (!problem.is_final(layer.mapped().begin()->first)) narrow(layer.mapped());
    for (const auto& [state, front] : layer.mapped()) {
      if (problem.is_final(state)) {
        for (const std::int64_t node : front)
          finals.emplace_back(problem.finish(state, nodes[static_cast<std::size_t>(node)].label), node);
        continue;
      }
      if (result.num_labels >= limits.max_labels) {
        result.complete = false;
        for (const std::int64_t node : front)
          result.lower_bound =
              std::min<Cost>(result.lower_bound, problem.bound(state, nodes[static_cast<std::size_t>(node)].label));
        continue;
      }
      problem.for_each_option(state, [&, &front = front, &state = state](const typename P::Option& option) {
        for (const std::int64_t node : front) {
          // A copy: `insert` may move the nodes.
          const typename P::Label label = nodes[static_cast<std::size_t>(node)].label;
          auto next = problem.extend(state, label, option);
          if (!next) continue;
          const Cost bound = problem.bound(next->first, next->second);
          if (bound >= limits.upper_bound) {
            result.lower_bound = std::min(result.lower_bound, bound);
            continue;
          }
          insert(layers[problem.layer(next->first)][next->first], next->second, option, node);
        }
      });
    }
  }

  std::stable_sort(finals.begin(), finals.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [cost, node] : finals) {
    result.lower_bound = std::min(result.lower_bound, cost);
    if (result.best.size() >= limits.max_results || cost >= limits.upper_bound) continue;
    typename SearchResult<P>::Found found{cost, {}};
    for (std::int64_t at = node; nodes[static_cast<std::size_t>(at)].parent >= 0;
         at = nodes[static_cast<std::size_t>(at)].parent) {
      found.path.push_back(nodes[static_cast<std::size_t>(at)].option);
    }
    std::reverse(found.path.begin(), found.path.end());
    result.best.push_back(std::move(found));
  }
  return result;
}

}  // namespace coxswain::planner
