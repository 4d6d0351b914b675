// Layouts of real models against the whole graph: loss and every gradient, all positions in lockstep.
#include <algorithm>
#include <cstdio>
#include <string>

#include "model/load.h"
#include "plan/layout/context_runs.h"
#include "plan/layout/held_rows.h"
#include "tests/plan/layout/lockstep.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::tests;

namespace {

struct ModelCase {
  const char* file;
  std::int64_t tokens;
};
constexpr ModelCase kModels[] = {{"saved_gpt2_2", 90},  {"saved_llama_2", 90},   {"saved_bert_2", 90},
                                 {"saved_vit_2", 8},    {"saved_mixtral_2", 90}, {"saved_mistral_window_2", 90},
                                 {"saved_qwen3_2", 90}, {"gpt_four_layers", 60}, {"gpt_shared_layers", 60}};

model::ModelGraph load(const std::string& name) {
  auto graph = model::load_pt2(std::string(COX_FIXTURES) + "/" + name + ".pt2");
  REQUIRE(graph);
  return std::move(*graph);
}

struct WholeStage {
  plan::Stage stage;
  plan::Replica replica;
};
WholeStage on_mesh(const model::ModelGraph& graph, int tensor, int context) {
  WholeStage whole;
  whole.stage.end_block = graph.num_blocks();
  whole.replica.tensor = tensor;
  whole.replica.context = context;
  whole.replica.samples = 2;
  whole.replica.devices.resize(static_cast<std::size_t>(tensor) * static_cast<std::size_t>(context));
  return whole;
}

/// Pairs of a query and a key before it or at it, by member of the first ring of the graph: the r-th row has r + 1.
std::vector<std::int64_t> pairs_of_ring(const plan::LocalGraph& local, int members) {
  for (const model::Op& op : local.graph.ops) {
    if (op.target != "coxswain::ring_attention") continue;
    const auto runs = std::find_if(op.arguments.begin(), op.arguments.end(),
                                   [](const model::Argument& argument) { return argument.name == "runs"; });
    const auto& numbers = std::get<std::vector<model::Dim>>(runs->value);
    const std::size_t each = numbers.size() / static_cast<std::size_t>(members);
    std::vector<std::int64_t> pairs(static_cast<std::size_t>(members), 0);
    for (std::size_t i = 0; i < numbers.size(); i += 2)
      for (std::int64_t row = 0; row < numbers[i + 1].constant(); ++row)
        pairs[i / each] += numbers[i].constant() + row + 1;
    return pairs;
  }
  return {};
}

}  // namespace

TEST_CASE("causal attention is the same work on every device of a context axis, to one row", "[localise_test]") {
  for (const char* name : {"saved_gpt2_2", "saved_llama_2"}) {
    const model::ModelGraph graph = load(name);
    for (const auto& [tensor, context] : {std::pair{1, 2}, {1, 3}, {1, 4}, {2, 2}, {1, 5}}) {
      INFO(name << " tensor " << tensor << " context " << context);
      const WholeStage whole = on_mesh(graph, tensor, context);
      const auto spread = [&](const plan::LocalGraph& local) {
        const auto pairs = pairs_of_ring(local, context);
        REQUIRE(pairs.size() == static_cast<std::size_t>(context));
        const auto [least, most] = std::minmax_element(pairs.begin(), pairs.end());
        return *most - *least;
      };
      const std::int64_t rows = 32;
      const auto local = plan::localise_stage(graph, whole.stage, whole.replica, 0);
      REQUIRE(local);
      CHECK(spread(*local) <= (rows % (2 * context) == 0 ? 0 : rows));
      const auto one_run = plan::localise_stage(graph, whole.stage, whole.replica, 0, 1);
      REQUIRE(one_run);
      CHECK(spread(*one_run) > 4 * rows);
    }
  }
}

TEST_CASE("values between blocks lie as edges say, on every position of every mesh", "[localise_test]") {
  for (const ModelCase& one : kModels) {
    const model::ModelGraph graph = load(one.file);
    for (const auto& [tensor, context] : {std::pair{4, 1}, {1, 2}, {2, 2}, {1, 3}}) {
      INFO(one.file << " tensor " << tensor << " context " << context);
      const WholeStage whole = on_mesh(graph, tensor, context);
      const model::StageSlice slice = model::slice_stage(graph, 1, 2);
      for (int position = 0; position < tensor * context; ++position) {
        const auto local = plan::localise_stage(graph, whole.stage, whole.replica, position);
        REQUIRE(local);
        for (const auto* crossing : {&slice.received, &slice.sent}) {
          for (const model::ValueId v : *crossing) {
            std::vector<std::int64_t> sizes;
            for (const model::Dim& dim : graph.values[static_cast<std::size_t>(v)].dims)
              sizes.push_back(dim.evaluate({{graph.batch_symbol, 2}}));
            const auto cuts = plan::edge_cuts(graph, v, 2, whole.replica, position);
            CHECK(plan::held_rows(sizes, cuts) == plan::held_rows(sizes, local->cuts[static_cast<std::size_t>(v)]));
          }
        }
      }
    }
  }
}

TEST_CASE("every layout gives the loss and the gradients of the whole graph", "[localise_test]") {
  for (const ModelCase& one : kModels) {
    const model::ModelGraph graph = load(one.file);
    for (const auto& [tensor, context] : {std::pair{2, 1}, {3, 1}, {4, 1}, {1, 2}, {2, 2}, {1, 3}}) {
      INFO(one.file << " tensor " << tensor << " context " << context);
      const LayoutReport report = prove_layout(graph, {tensor, context}, one.tokens);
      std::printf("%-24s tensor %d context %d: loss %.1e, gradients %.1e (%s), weights held %.3f, transitions %zu\n",
                  one.file, tensor, context, report.loss_error, report.gradient_error, report.worst_parameter.c_str(),
                  report.share, report.targets.size());
      CHECK(report.loss_error < 1e-5);
      CHECK(report.gradient_error < 1e-5);
    }
  }
}
