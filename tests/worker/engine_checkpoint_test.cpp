// A run that goes on from a checkpoint: to the bits under the plan that saved it, within what sums in another order
// make under any other.
#include <algorithm>
#include <utility>

#include "tests/support/temp_dir.h"
#include "tests/worker/engine_support.h"

#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using plan::Precision;
using plan::ScheduleKind;

constexpr std::int64_t kSavedAfter = 4;
constexpr double kLossTolerance = 1e-5, kBFloat16Tolerance = 2e-2;

worker::TrainSettings settings() {
  worker::TrainSettings result = eager_settings();
  result.steps = 8;
  result.data.validation_steps = 1;
  return result;
}

struct NamedSpec {
  std::string name;
  PlanSpec spec;
};

/// Who holds what differs: wholly, by runs of elements, by rows and columns, by stages and chunks.
const std::vector<NamedSpec>& specs() {
  static const std::vector<NamedSpec> all = {
      {"one rank", {.stages = {{6, {32}}}}},
      {"dp2", {.stages = {{6, {20, 12}}}}},
      {"dp3, ZeRO 1", {.stages = {{6, {8, 5, 3}}}, .count = 2, .zero_stages = {1}}},
      {"dp2 x pp2, ZeRO 3 and 2, recompute",
       {.stages = {{4, {10, 6}}, {6, {3, 13}}}, .count = 2, .recompute = true, .zero_stages = {3, 2}}},
      {"tensor 2, then context 2", {.stages = {{3, {16}, {2}}, {6, {16}, {}, {2}}}, .count = 2}},
      {"tensor 2 x data 2, ZeRO 3", {.stages = {{6, {8, 8}, {2, 2}}}, .count = 2, .zero_stages = {3}}},
      {"zbv",
       {.stages = {{0, {4, 4}}, {0, {8}}},
        .count = 4,
        .schedule = ScheduleKind::ZeroBubbleV,
        .part_ends = {1, 3, 4, 6}}},
  };
  return all;
}

/// What `run` kept, on the disk, each piece once.
checkpoint::Found publish(const std::filesystem::path& directory, const TrainingRun& run) {
  checkpoint::Manifest manifest;
  manifest.progress = run.saved_progress;
  std::vector<std::vector<checkpoint::Piece>> by_rank;
  for (const auto& [rank, states] : run.saved) {
    by_rank.emplace_back();
    for (const checkpoint::PieceState& state : states) by_rank.back().push_back(state.piece);
  }
  const auto folder = checkpoint::make_partial_folder(directory, run.saved_progress.step);
  REQUIRE(folder.has_value());
  const auto written = checkpoint::share_out(by_rank);
  for (std::size_t rank = 0; rank < written.size(); ++rank) {
    std::vector<checkpoint::PieceState> mine;
    for (const checkpoint::PieceState& state : run.saved.at(static_cast<int>(rank)))
      if (std::count(written[rank].begin(), written[rank].end(), state.piece) > 0) mine.push_back(state);
    auto shard = checkpoint::write_shard(*folder, "rank_" + std::to_string(rank) + ".safetensors", mine);
    REQUIRE(shard.has_value());
    manifest.shards.push_back(std::move(*shard));
  }
  REQUIRE(checkpoint::publish(directory, manifest).has_value());
  auto found = checkpoint::find_newest(directory);
  REQUIRE(found.newest.has_value());
  return std::move(*found.newest);
}

/// By name.
std::pair<std::vector<std::string>, std::vector<plan::Plan>> plans_of(const model::ModelGraph& graph,
                                                                      Precision precision) {
  std::vector<std::string> names;
  std::vector<plan::Plan> plans;
  for (const NamedSpec& one : specs()) {
    PlanSpec spec = one.spec;
    // The threads' communicator adds up float32 alone.
    const bool has_mesh = std::any_of(spec.stages.begin(), spec.stages.end(), [](const StageSpec& stage) {
      return !stage.tensor.empty() || !stage.context.empty();
    });
    if (has_mesh && precision != Precision::Float32) continue;
    spec.precision = precision;
    plans.push_back(make_plan(graph, spec));
    names.push_back(one.name);
  }
  return {std::move(names), std::move(plans)};
}

void check_resumed(const model::ModelGraph& graph, Precision precision, double tolerance) {
  const auto [names, plans] = plans_of(graph, precision);
  for (std::size_t saver = 0; saver < plans.size(); ++saver) {
    DYNAMIC_SECTION(to_text(precision) << ", saved by " << names[saver]) {
      TempDir directory;
      const TrainingRun whole = train(graph, plans[saver], settings(), {}, {{}, kSavedAfter});
      REQUIRE(whole.problems == std::vector<std::string>{});
      const checkpoint::Found found = publish(directory.path(), whole);
      CHECK(found.manifest.progress.next_sample == kSavedAfter * 32);
      const TrainingRun same = train(graph, plans[saver], settings(), {}, {found});
      REQUIRE(same.problems == std::vector<std::string>{});
      CHECK(same.losses == std::vector<double>(whole.losses.begin() + kSavedAfter, whole.losses.end()));
      CHECK(same.grad_norms == std::vector<double>(whole.grad_norms.begin() + kSavedAfter, whole.grad_norms.end()));
      CHECK(same.learning_rates ==
            std::vector<double>(whole.learning_rates.begin() + kSavedAfter, whole.learning_rates.end()));
      CHECK(same.loss_scales == std::vector<double>(whole.loss_scales.begin() + kSavedAfter, whole.loss_scales.end()));
      CHECK(same.validation == whole.validation);
      CHECK(same.parameters == whole.parameters);
      const std::size_t loader = (saver + 1) % plans.size();
      INFO("resumed under " << names[loader]);
      const TrainingRun other = train(graph, plans[loader], settings(), {}, {found});
      REQUIRE(other.problems == std::vector<std::string>{});
      REQUIRE(other.losses.size() == same.losses.size());
      for (std::size_t i = 0; i < other.losses.size(); ++i)
        CHECK(std::abs(other.losses[i] - same.losses[i]) <= tolerance * same.losses[i]);
    }
  }
}

/// What ranks hold outlives their engines, and is what a checkpoint of that step would hold.
void check_held(const model::ModelGraph& graph, Precision precision, double tolerance) {
  const auto [names, plans] = plans_of(graph, precision);
  for (std::size_t holder = 0; holder < plans.size(); ++holder) {
    DYNAMIC_SECTION(to_text(precision) << ", held by " << names[holder]) {
      const TrainingRun whole = train(graph, plans[holder], settings());
      const TrainingRun ended = train(graph, plans[holder], settings(), {}, {.hold_after = kSavedAfter});
      REQUIRE(ended.problems == std::vector<std::string>{});
      REQUIRE(ended.held.size() == static_cast<std::size_t>(plan::num_ranks(plans[holder])));
      CHECK(ended.held.at(0).progress.step == kSavedAfter);
      const TrainingRun same = train(graph, plans[holder], settings(), {}, {.held = &ended.held});
      REQUIRE(same.problems == std::vector<std::string>{});
      CHECK(same.losses == std::vector<double>(whole.losses.begin() + kSavedAfter, whole.losses.end()));
      CHECK(same.parameters == whole.parameters);
      const std::size_t loader = (holder + 1) % plans.size();
      INFO("gone on under " << names[loader]);
      const TrainingRun other = train(graph, plans[loader], settings(), {}, {.held = &ended.held});
      REQUIRE(other.problems == std::vector<std::string>{});
      REQUIRE(other.losses.size() == same.losses.size());
      for (std::size_t i = 0; i < other.losses.size(); ++i)
        CHECK(std::abs(other.losses[i] - same.losses[i]) <= tolerance * same.losses[i]);
    }
  }
}

const model::ModelGraph& gpt() {
  static const model::ModelGraph loaded = load_fixture("gpt_four_layers.pt2");
  return loaded;
}

}  // namespace

TEST_CASE("a resumed run goes on to the bits, and under any other plan") {
  check_resumed(gpt(), Precision::Float32, kLossTolerance);
}

TEST_CASE("masters and the loss scale of mixed precision come back") {
  check_resumed(gpt(), Precision::BFloat16, kBFloat16Tolerance);
  check_resumed(gpt(), Precision::Float16, kBFloat16Tolerance);
}

TEST_CASE("what ranks hold when their engines are gone goes on to the bits, and under any other plan") {
  check_held(gpt(), Precision::Float32, kLossTolerance);
  check_held(gpt(), Precision::Float16, kBFloat16Tolerance);
}

TEST_CASE("a checkpoint of another global batch is refused") {
  TempDir directory;
  worker::TrainSettings few = settings();
  few.steps = 1;
  const TrainingRun run = train(gpt(), make_plan(gpt(), {{{6, {16}}}}), few, {}, {{}, 1});
  const checkpoint::Found found = publish(directory.path(), run);
  few.steps = 2;
  const TrainingRun other = train(gpt(), make_plan(gpt(), {{{6, {32}}}}), few, {}, {found});
  REQUIRE(other.problems.size() == 1);
  CHECK(other.problems[0].find("another global batch") != std::string::npos);
}

}  // namespace coxswain::tests
