// The share of operators that a rule takes, in the archives of tests/model and in models built from configurations.
#include <cstdio>
#include <filesystem>
#include <map>

#include "common/env.h"
#include "model/load.h"
#include "plan/rules/rules.h"

#include <catch2/catch.hpp>

using namespace coxswain;
namespace files = std::filesystem;

namespace {

struct Coverage {
  int nodes = 0, with_rule = 0, split = 0;  // some factor may be split
  std::map<std::string, int> missing;
};

bool can_split(const plan::OpFactors& op) {
  for (const plan::Factor& factor : op.factors)
    if (factor.kind != plan::FactorKind::Whole) return true;
  return false;
}

Coverage cover(const model::ModelGraph& graph) {
  Coverage coverage;
  for (const model::Op& op : graph.ops) {
    ++coverage.nodes;
    const auto factors = plan::bind_rule(graph, op, graph.static_batch > 0 ? graph.static_batch : 4);
    if (!factors) ++coverage.missing[op.target];
    if (factors) ++coverage.with_rule;
    if (factors && can_split(*factors)) ++coverage.split;
  }
  return coverage;
}

void add(Coverage& all, const Coverage& one) {
  all.nodes += one.nodes;
  all.with_rule += one.with_rule;
  all.split += one.split;
  for (const auto& [target, count] : one.missing) all.missing[target] += count;
}

void print(const std::string& name, const Coverage& coverage) {
  std::printf("%-34s %6d nodes %6.1f %% with a rule %6.1f %% can be split", name.c_str(), coverage.nodes,
              100.0 * coverage.with_rule / coverage.nodes, 100.0 * coverage.split / coverage.nodes);
  for (const auto& [target, count] : coverage.missing) std::printf("  %s x%d", target.c_str(), count);
  std::printf("\n");
}

const char* const kConfigs[] = {
    R"({"model_type": "gpt2", "vocab_size": 96, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 4})",
    R"({"model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16})",
    R"({"model_type": "mistral", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16, "sliding_window": 8})",
    R"({"model_type": "qwen2", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16})",
    R"({"model_type": "qwen3", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 16})",
    R"({"model_type": "bert", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 16, "type_vocab_size": 2})",
    R"({"model_type": "vit", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": 16, "patch_size": 4, "num_channels": 3})",
    R"({"model_type": "mixtral", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16, "num_local_experts": 4,
        "num_experts_per_tok": 2})",
    R"({"model_type": "qwen3_moe", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64,
        "moe_intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 8, "max_position_embeddings": 16, "num_experts": 4, "num_experts_per_tok": 2})"};

}  // namespace

TEST_CASE("rules cover the operators of built models") {
  Coverage all;
  for (const char* text : kConfigs) {
    const Json config = parse_json(text).value();
    const auto graph = model::build_from_config(config, {});
    if (!graph) FAIL(to_text(graph.error()));
    const Coverage one = cover(*graph);
    print("config " + config["model_type"].string(), one);
    add(all, one);
  }
  print("all built models", all);
  CHECK(all.with_rule >= 0.95 * all.nodes);
}

TEST_CASE("rules cover the operators of exported models") {
  std::vector<files::path> archives;
  for (const auto& entry : files::directory_iterator(COX_FIXTURES))
    if (entry.path().extension() == ".pt2") archives.push_back(entry.path());
  std::sort(archives.begin(), archives.end());
  Coverage models, operators;
  int count = 0;
  for (const files::path& archive : archives) {
    const auto graph = model::load_pt2(archive);
    if (!graph || graph->ops.empty()) continue;  // damaged on purpose
    const Coverage one = cover(*graph);
    const std::string name = archive.stem().string();
    if (name.rfind("operator_", 0) == 0) {
      add(operators, one);
      continue;
    }
    ++count;
    print(name, one);
    add(models, one);
  }
  REQUIRE(count > 0);
  print(std::to_string(count) + " exported models", models);
  print("exports of single operators", operators);
  CHECK(models.with_rule >= 0.95 * models.nodes);
}
