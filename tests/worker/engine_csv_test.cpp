// Schedules that PyTorch's pipelining dumps, trained: each one against one rank with the same micro-batches.
#include "common/bytes_io.h"
#include "tests/worker/engine_support.h"

#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using plan::ScheduleKind;

struct Case {
  std::string name;
  ScheduleKind kind;
  int num_stages, num_chunks, count;
};

/// As make_schedule_csvs.py writes them.
const std::vector<Case> kCases = {
    {"gpipe", ScheduleKind::GPipe, 3, 1, 4},
    {"1f1b", ScheduleKind::Custom, 3, 1, 6},  // runs ahead twice as far as ours
    {"interleaved", ScheduleKind::Interleaved, 2, 2, 4},
    {"looped_bfs", ScheduleKind::Custom, 2, 2, 4},
    {"looped_bfs_comms", ScheduleKind::Custom, 2, 2, 4},
    {"interleaved_zero_bubble", ScheduleKind::Custom, 2, 2, 4},
    {"zbv", ScheduleKind::ZeroBubbleV, 2, 2, 4},
    {"dual_pipe_v", ScheduleKind::CustomV, 2, 2, 4},
    {"dual_pipe_v_long", ScheduleKind::CustomV, 2, 2, 8},
    {"interleaved_one_rank", ScheduleKind::Interleaved, 1, 3, 2},
};

std::string read_text(const std::string& name) {
  auto text = read_file(fixture("schedules/" + name + ".csv"));
  if (!text) throw std::runtime_error(to_text(text.error()));
  return *text;
}

}  // namespace

TEST_CASE("every schedule that PyTorch dumps trains as one rank does") {
  const model::ModelGraph graph = load_fixture("gpt_shared_layers.pt2");
  worker::TrainSettings settings = eager_settings();
  settings.steps = 2;
  settings.data.validation_steps = 1;
  const int blocks = graph.num_blocks();
  REQUIRE(blocks >= 4);
  for (const Case& one : kCases) {
    DYNAMIC_SECTION(one.name) {
      const auto order = plan::read_schedule_csv(read_text(one.name));
      if (!order) FAIL(to_text(order.error()));
      CHECK(order->kind == one.kind);
      REQUIRE(order->num_stages == one.num_stages);
      REQUIRE(order->num_chunks == one.num_chunks);
      REQUIRE(order->num_micro_batches == one.count);
      PlanSpec spec;
      spec.count = one.count;
      spec.order = *order;
      const int parts = one.num_stages * one.num_chunks;
      for (int part = 0; part < parts; ++part) spec.part_ends.push_back(part + 1 == parts ? blocks : part + 1);
      // Two replicas of the first stage: transfers and reductions beside the order.
      for (int s = 0; s < one.num_stages; ++s)
        spec.stages.push_back({0, s == 0 ? std::vector<std::int64_t>{3, 1} : std::vector<std::int64_t>{4}});
      const TrainingRun run = train(graph, make_plan(graph, spec), settings);
      REQUIRE(run.problems == std::vector<std::string>{});
      const TrainingRun whole = train(graph, make_plan(graph, {{{blocks, {4}}}, one.count}), settings);
      REQUIRE(run.losses.size() == 2);
      for (std::size_t i = 0; i < run.losses.size(); ++i)
        CHECK(std::abs(run.losses[i] - whole.losses[i]) <= 1e-5 * std::abs(whole.losses[i]));
      CHECK(std::abs(run.validation[0] - whole.validation[0]) <= 1e-5 * std::abs(whole.validation[0]));
      for (const auto& [name, values] : whole.parameters) {
        INFO(name);
        REQUIRE(run.parameters.count(name) == 1);
        CHECK(distance(run.parameters.at(name), values) <= 1e-4 * norm_of(values) + 1e-6);
      }
    }
  }
}

TEST_CASE("an order that PyTorch writes wrongly is refused with its line") {
  // Schedule1F1B of torch 2.13 begins the last line with micro-batch 1.
  const auto order = plan::read_schedule_csv(read_text("1f1b_broken"));
  REQUIRE_FALSE(order);
  const auto& details = order.error().details;
  CHECK(std::any_of(details.begin(), details.end(), [](const Error& problem) {
    return problem.path == "line 3" && problem.expected.find("of micro-batch 0 in part 2") != std::string::npos;
  }));
}

}  // namespace coxswain::tests
