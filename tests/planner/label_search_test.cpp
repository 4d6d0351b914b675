// The search over a problem of its own: cheapest way to climb n steps by hops whose costs are a table.
#include "planner/label_search.h"

#include <array>
#include <random>

#include <catch2/catch.hpp>

using namespace coxswain::planner;

namespace {

/// From 0 to `height`; a hop of 1 to 3 steps costs (own part, shared part): the total is sum(own) + max(shared).
struct Stairs {
  struct State {
    int at = 0;
    friend auto operator<=>(const State&, const State&) = default;
  };
  struct Label {
    Cost sum = 0, most = 0;
  };
  struct Option {
    int hop = 0;
  };
  int height = 0;
  std::vector<std::array<Cost, 4>> own, shared;  // [from][hop]

  std::pair<State, Label> start() const { return {}; }
  int layer(const State& s) const { return s.at; }
  bool is_final(const State& s) const { return s.at == height; }
  template <class Visit>
  void for_each_option(const State& s, Visit&& visit) {
    for (int hop = 1; hop <= 3 && s.at + hop <= height; ++hop) visit(Option{hop});
  }
  std::optional<std::pair<State, Label>> extend(const State& s, const Label& l, const Option& o) {
    const auto i = static_cast<std::size_t>(s.at), h = static_cast<std::size_t>(o.hop);
    return std::pair{State{s.at + o.hop}, Label{l.sum + own[i][h], std::max(l.most, shared[i][h])}};
  }
  bool dominates(const Label& a, const Label& b) const { return a.sum <= b.sum && a.most <= b.most; }
  Cost bound(const State&, const Label& l) const { return l.sum + l.most; }
  Cost finish(const State&, const Label& l) const { return l.sum + l.most; }
};

Stairs random_stairs(std::mt19937& random) {
  Stairs stairs;
  stairs.height = std::uniform_int_distribution<int>(1, 9)(random);
  std::uniform_int_distribution<Cost> cost(0, 20);
  for (int i = 0; i < stairs.height; ++i) {
    stairs.own.push_back({0, cost(random), cost(random), cost(random)});
    stairs.shared.push_back({0, cost(random), cost(random), cost(random)});
  }
  return stairs;
}

Cost brute_force(const Stairs& stairs, int at, Cost sum, Cost most) {
  if (at == stairs.height) return sum + most;
  Cost best = kNoCost;
  for (int hop = 1; hop <= 3 && at + hop <= stairs.height; ++hop) {
    const auto i = static_cast<std::size_t>(at), h = static_cast<std::size_t>(hop);
    best = std::min(best, brute_force(stairs, at + hop, sum + stairs.own[i][h], std::max(most, stairs.shared[i][h])));
  }
  return best;
}

}  // namespace

TEST_CASE("the cheapest way is found, and found again from its path", "[label_search_test]") {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    Stairs stairs = random_stairs(random);
    const Cost best = brute_force(stairs, 0, 0, 0);
    for (const int alternatives : {1, 3}) {
      SearchLimits limits;
      limits.alternatives = alternatives;
      limits.max_results = 5;
      const auto found = search_labels(stairs, limits);
      REQUIRE(!found.best.empty());
      CHECK(found.best.front().cost == best);
      CHECK(found.lower_bound == best);
      CHECK(found.complete);
      for (const auto& one : found.best) {
        int at = 0;
        Cost sum = 0, most = 0;
        for (const auto& option : one.path) {
          sum += stairs.own[static_cast<std::size_t>(at)][static_cast<std::size_t>(option.hop)];
          most = std::max(most, stairs.shared[static_cast<std::size_t>(at)][static_cast<std::size_t>(option.hop)]);
          at += option.hop;
        }
        CHECK(at == stairs.height);
        CHECK(sum + most == one.cost);
      }
    }
  }
}

TEST_CASE("an upper bound prunes and the lower bound still holds", "[label_search_test]") {
  std::mt19937 random(4);
  for (int round = 0; round < 100; ++round) {
    Stairs stairs = random_stairs(random);
    const Cost best = brute_force(stairs, 0, 0, 0);
    SearchLimits limits;
    limits.upper_bound = best;  // nothing costs less
    const auto none = search_labels(stairs, limits);
    CHECK(none.best.empty());
    CHECK(none.lower_bound >= best);
    limits.upper_bound = best + 1;
    CHECK(search_labels(stairs, limits).best.front().cost == best);
  }
}

TEST_CASE("a budget of labels ends the search with a bound on the rest", "[label_search_test]") {
  std::mt19937 random(5);
  for (int round = 0; round < 100; ++round) {
    Stairs stairs = random_stairs(random);
    SearchLimits limits;
    limits.max_labels = 3;
    const auto found = search_labels(stairs, limits);
    CHECK(found.lower_bound <= brute_force(stairs, 0, 0, 0));
  }
}

TEST_CASE("a beam finds a way, and its bound stays below the cheapest", "[label_search_test]") {
  std::mt19937 random(4);
  int missed = 0;
  for (int round = 0; round < 200; ++round) {
    Stairs stairs = random_stairs(random);
    const Cost best = brute_force(stairs, 0, 0, 0);
    SearchLimits limits;
    limits.max_labels_per_layer = 1;
    const auto found = search_labels(stairs, limits);
    REQUIRE(found.best.size() == 1);
    CHECK(found.best.front().cost >= best);
    CHECK(found.lower_bound <= best);
    if (found.best.front().cost > best) CHECK_FALSE(found.complete);
    missed += found.best.front().cost > best ? 1 : 0;
    limits.max_labels_per_layer = 1000;
    CHECK(search_labels(stairs, limits).best.front().cost == best);
  }
  CHECK(missed > 0);  // so narrow a beam cannot always be right
}
