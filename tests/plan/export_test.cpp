// The choice of a tool by name.
#include "plan/export.h"

#include "tests/plan/export_plans.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::plan;

TEST_CASE("every format has a name and its own text", "[export_test]") {
  const Plan plan = make_export_plan({.layers = {4, 4}, .data = 2});
  const std::vector<std::pair<std::string, std::string>> signs{{"megatron", "--pipeline-model-parallel-size 2"},
                                                               {"torchtitan", "pipeline_parallel_degree = 2"},
                                                               {"deepspeed", "\"train_batch_size\": 16"}};
  for (const auto& [name, sign] : signs) {
    const auto format = parse_export_format(name);
    REQUIRE(format);
    CHECK(to_text(*format) == name);
    const auto exported = export_plan(plan, export_model(), export_cluster(), *format);
    REQUIRE(exported);
    CHECK(exported->text.find(sign) != std::string::npos);
    for (const std::string& lost : exported->not_expressed)
      CHECK(exported->text.find(lost.substr(0, 30)) != std::string::npos);
  }
  CHECK(!parse_export_format("Megatron"));
}

TEST_CASE("a plan of another model is refused", "[export_test]") {
  const Plan plan = make_export_plan({});
  CHECK(!export_plan(plan, make_chain_graph({.num_layers = 3}), export_cluster(), ExportFormat::Megatron));
}
