// Piper's formulas by closed forms, and its optimum by trying every plan of small random graphs.
#include "planner/problems/piper.h"

#include <algorithm>
#include <random>

#include "common/bytes_io.h"
#include "planner/problems/piper_search.h"
#include "planner/problems/piper_sets.h"
#include "tests/planner/problems/piper_builder.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;

namespace {

/// a -> b -> c and a -> c; each number names its term by its digit.
PiperBuilder three_nodes() {
  PiperBuilder builder;
  builder.devices = 8;
  builder.micro_batches = 4;
  for (int i = 0; i < 3; ++i) builder.node();
  builder.edge(0, 1, 1);
  builder.edge(1, 2, 10);
  builder.edge(0, 2, 100);
  builder.sync_bytes = 1000;
  for (int v = 0; v < 3; ++v) {
    builder.option(v, 1, false, {.seconds = 1e6, .parameters = 0, .stash = 100, .fixed = 10});
    builder.option(v, 1, true, {.seconds = 2e6, .parameters = 0, .stash = 1, .fixed = 10});
    builder.option(v, 2, false, {.seconds = 6e5, .parameters = 8e8, .stash = 50, .fixed = 5});
  }
  return builder;
}

double load(const PiperInstance& instance, const std::vector<PiperStage>& stages) {
  const auto score = estimate_piper(instance, stages);
  REQUIRE(score.has_value());
  return *score;
}

/// Every plan: a stage is any set of nodes whose predecessors are placed, with any degrees and recomputed nodes.
struct EveryPlan {
  const PiperInstance& instance;
  double best = 1e300;
  std::vector<PiperStage> stages;

  bool may_place(unsigned placed, unsigned chosen) const {
    for (const PiperEdge& edge : instance.edges) {
      if ((chosen >> edge.to & 1U) != 0 && ((placed | chosen) >> edge.from & 1U) == 0) return false;
    }
    return true;
  }
  void place(unsigned placed, std::int64_t devices) {
    const unsigned all = (1U << instance.nodes.size()) - 1;
    if (placed == all) {
      if (const auto score = estimate_piper(instance, stages)) best = std::min(best, *score);
      return;
    }
    for (unsigned chosen = 1; chosen <= all; ++chosen) {
      if ((chosen & placed) != 0 || !may_place(placed, chosen)) continue;
      for (std::int64_t dp = 1; dp <= devices; ++dp) {
        if (instance.micro_batches % dp != 0) continue;
        for (std::int64_t tp = 1; dp * tp <= devices && tp <= 2; ++tp) choose(placed, chosen, dp, tp, devices);
      }
    }
  }
  void choose(unsigned placed, unsigned chosen, std::int64_t dp, std::int64_t tp, std::int64_t devices) {
    for (unsigned recomputed = chosen;; recomputed = (recomputed - 1) & chosen) {
      PiperStage stage{{}, dp, tp, {}};
      bool possible = true;
      for (int v = 0; v < static_cast<int>(instance.nodes.size()); ++v) {
        const bool own = (chosen >> v & 1U) != 0, again = (recomputed >> v & 1U) != 0;
        if (own) stage.nodes.push_back(v);
        if (again) stage.recompute_nodes.push_back(v);
        possible &= !own || find_option(instance.nodes[static_cast<std::size_t>(v)], tp, again) != nullptr;
      }
      if (possible) {
        stages.push_back(std::move(stage));
        place(placed | chosen, devices - dp * tp);
        stages.pop_back();
      }
      if (recomputed == 0) break;
    }
  }
};

PiperInstance random_instance(std::mt19937& random) {
  const auto roll = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  PiperBuilder builder;
  const int n = roll(1, 4);
  builder.devices = roll(1, 5);
  builder.micro_batches = std::vector<int>{1, 2, 4, 6, 12}[static_cast<std::size_t>(roll(0, 4))];
  builder.memory = roll(20, 160);
  builder.bandwidth = roll(5, 50);
  builder.sync_bytes = roll(0, 20);
  for (int v = 0; v < n; ++v) builder.node();
  for (int to = 1; to < n; ++to) {
    for (int from = 0; from < to; ++from) {
      if (roll(0, 1) == 1) builder.edge(from, to, roll(0, 30));
    }
  }
  for (int v = 0; v < n; ++v) {
    const int seconds = roll(0, 20), stash = roll(0, 20), fixed = roll(0, 20), parameters = roll(0, 50);
    for (int tp = 1; tp <= 2; ++tp) {
      const double part = tp == 1 ? 1 : 0.625;  // sums are exact, so that a stage may fill the memory to the byte
      const double bytes = parameters * part;
      const bool only_recompute = roll(0, 9) == 0;
      if (!only_recompute) builder.option(v, tp, false, {seconds * part, bytes, stash * part, fixed * part});
      if (only_recompute || roll(0, 3) > 0)
        builder.option(
            v, tp, true,
            {std::max(0.0, seconds * part + roll(-1, 6)), bytes, stash * part / (1 << roll(0, 2)), fixed * part + 1});
    }
  }
  return builder.build();
}

}  // namespace

TEST_CASE("each formula's term is there once", "[piper_test]") {
  const PiperInstance instance = three_nodes().build();
  // One stage: no edge leaves it.
  CHECK(load(instance, {{{0, 1, 2}, 1, 1, {}}}) == 3e6);
  CHECK(load(instance, {{{0, 1, 2}, 4, 1, {1}}}) == 4e6 / 4);
  // (6) of the last stage: b -> c and a -> c, doubled, on either side.
  CHECK(load(instance, {{{0, 1}, 2, 1, {0, 1}}, {{2}, 1, 1, {}}}) == (4e6 + 2 * 110) / 2);
  CHECK(load(instance, {{{0}, 1, 1, {}}, {{1}, 1, 1, {}}, {{2}, 1, 1, {2}}}) == 2e6 + 2 * 110);
  // Sync bytes come with the option of the inside node: 1000 for each of two edges. (7): 4 (2-1) 8e8 / 2 / 4.
  CHECK(load(instance, {{{0, 1}, 2, 1, {}}, {{2}, 2, 2, {}}}) == (2 * 2110) / 2.0 + 4e8 + 6e5 / 2);
}

TEST_CASE("stashes are counted from the loss side", "[piper_test]") {
  PiperBuilder builder = three_nodes();
  builder.micro_batches = 6;
  const std::vector<PiperStage> stages{{{0}, 2, 1, {}}, {{1}, 3, 1, {}}, {{2}, 1, 1, {}}};
  // ceil(6/2) = 3, ceil(4/3) = 2, 1: the first stage wants 310 bytes.
  builder.memory = 310;
  CHECK(estimate_piper(builder.build(), stages).has_value());
  builder.memory = 309;
  const auto refused = estimate_piper(builder.build(), stages);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().message == "does not fit in memory");
  CHECK(refused.error().path == "stages[0]");
  // With all recomputed 1 byte each: 13.
  CHECK(estimate_piper(builder.build(), {{{0}, 2, 1, {0}}, {{1}, 3, 1, {}}, {{2}, 1, 1, {}}}).has_value());
}

TEST_CASE("every broken rule of a plan is told", "[piper_test]") {
  const PiperInstance instance = three_nodes().build();
  const auto count = [&](const std::vector<PiperStage>& stages) {
    const auto score = estimate_piper(instance, stages);
    REQUIRE_FALSE(score.has_value());
    return std::max<std::size_t>(1, score.error().details.size());
  };
  CHECK(count({{{1}, 1, 1, {}}, {{0}, 1, 1, {}}, {{2}, 1, 1, {}}}) == 1);  // backwards
  CHECK(count({{{0, 1, 2}, 3, 1, {}}}) == 2);                              // 3 does not divide 4, so no node is placed
  CHECK(count({{{0, 1}, 4, 1, {}}, {{2}, 4, 1, {}}}) == 1);                // sum of dp over 4
  CHECK(count({{{0, 1, 2}, 4, 4, {}}}) == 1);                              // 16 devices
  CHECK(count({{{0, 1, 1, 2}, 1, 1, {}}}) == 1);
  CHECK(count({{{0, 1}, 1, 1, {2}}, {{2}, 1, 1, {}}}) == 1);
  CHECK(count({{{0, 1}, 1, 1, {}}}) == 1);
  CHECK(count({{{0, 1, 2}, 1, 2, {0, 1}}}) == 2);  // no option for tp 2 with recompute, twice
}

TEST_CASE("the best plan is as good as the best of all plans", "[piper_test]") {
  std::mt19937 random(20210);
  int solved = 0, refused = 0;
  for (int round = 0; round < 150; ++round) {
    const PiperInstance instance = random_instance(random);
    EveryPlan every{instance, 1e300, {}};
    every.place(0, instance.devices);
    const auto answer = solve_piper(instance, {});
    INFO("round " << round);
    REQUIRE(answer.has_value() == (every.best < 1e300));
    if (!answer) {
      CHECK(answer.error().code == ErrorCode::ResourceExhausted);
      ++refused;
      continue;
    }
    ++solved;
    CHECK(answer->score == Approx(every.best).epsilon(1e-10));
    // The same with a plan known before: candidates that cannot be in a better one were never made.
    const PiperSets sets = all_sets(instance);
    const auto better = PiperSearch(instance, sets, every.best * 1.1).solve();
    CHECK(better.has_value() == (every.best > 0));
    CHECK(better.value_or(PiperPlan{}).score == Approx(every.best).epsilon(1e-10));
  }
  CHECK(solved > 80);
  CHECK(refused > 5);
}

TEST_CASE("the answer has the documented form and the ids of the file", "[piper_test]") {
  PiperBuilder builder = piper_chain({3, 1, 1}, 0);
  builder.devices = 2;
  builder.micro_batches = 7;
  const auto answer = solve_piper(builder.build(), {});
  REQUIRE(answer.has_value());
  CHECK(to_text(answer->answer) == R"({"stages":[{"dp":1,"nodes":[0],"recompute_nodes":[],"tp":1},)"
                                   R"({"dp":1,"nodes":[10,20],"recompute_nodes":[],"tp":1}]})");
  CHECK(answer->score == 3);
}

TEST_CASE("all problems of a bad Piper instance are listed", "[piper_test]") {
  PiperBuilder builder = piper_chain({1, 1}, 0);
  Json instance = builder.instance(), model = builder.model();
  instance["devices"] = 0;
  instance["bandwidth_bytes_per_s"] = -1.0;
  model["edges"] = JsonArray{JsonArray{0, 99, 1.0}, JsonArray{0, 0, 1.0}};
  const auto parsed = parse_piper(instance, model);
  REQUIRE_FALSE(parsed.has_value());
  CHECK(parsed.error().code == ErrorCode::InvalidArgument);
  CHECK(parsed.error().details.size() == 4);

  model = builder.model();
  model["nodes"].array()[0]["options"].array()[0]["sync_out"] = JsonArray{};
  model["nodes"].array()[1]["options"].array()[0]["seconds"] = -1.0;
  model["nodes"].array()[1]["options"].array()[0]["variant"] = "other";
  const auto options = parse_piper(builder.instance(), model);
  REQUIRE_FALSE(options.has_value());
  CHECK(options.error().details.size() == 3);

  builder.edges.push_back(JsonArray{10, 0, 1.0});
  model = builder.model();
  model["nodes"].array()[0]["options"].array()[0]["sync_in"] = JsonArray(1, JsonArray{10, 0.0});
  model["nodes"].array()[1]["options"].array()[0]["sync_out"] = JsonArray(1, JsonArray{0, 0.0});
  const auto cycle = parse_piper(builder.instance(), model);
  REQUIRE_FALSE(cycle.has_value());
  CHECK(cycle.error().message == "the edges form a cycle");
}

TEST_CASE("the model is read from beside the instance", "[piper_test]") {
  const TempDir folder;
  const PiperBuilder builder = piper_chain({2, 2}, 0);
  CHECK_FALSE(load_piper(builder.instance(), folder / "instance.json").has_value());
  REQUIRE(write_file(folder / "model.json", to_text(builder.model())).has_value());
  const auto solver = load_piper(builder.instance(), folder / "instance.json");
  REQUIRE(solver.has_value());
  const auto answer = (*solver)({});
  REQUIRE(answer.has_value());
  CHECK(answer->score == 4);
}
