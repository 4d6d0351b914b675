// Layouts of real models against the whole graph: loss and every gradient, all positions in lockstep.
#include <cstdio>
#include <string>

#include "model/load.h"
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

}  // namespace

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
