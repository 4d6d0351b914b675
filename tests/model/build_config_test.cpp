#include <algorithm>
#include <cmath>

#include "model/load.h"
#include "model/op_cost.h"
#include "tests/model/analysis_data.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::model;

namespace {

ModelGraph build(const std::string& text, std::int64_t length = 0) {
  auto graph = build_from_config(parse_json(text).value(), {length});
  REQUIRE(graph.has_value());
  return std::move(*graph);
}

std::int64_t num_parameters(const ModelGraph& graph) {
  std::int64_t count = 0;
  for (const Parameter& parameter : graph.parameters) {
    std::int64_t elements = 1;
    for (const std::int64_t dim : parameter.dims) elements *= dim;
    count += elements;
  }
  return count;
}

struct Sums {
  std::int64_t parameters = 0;
  double forward = 0, backward = 0;
  Bytes saved{0}, transient{0}, shared{0};
};
Sums add_up(const ModelGraph& graph, std::int64_t samples) {
  Sums sums;
  for (int block = 0; block < graph.num_blocks(); ++block) {
    const BlockTotals one = estimate_block(graph, block, samples);
    sums.parameters += one.parameter_elements;
    sums.forward += one.forward_flop.value;
    sums.backward += one.backward_input_flop.value + one.backward_weight_flop.value;
    sums.saved += one.saved_bytes;
    sums.transient += one.transient_bytes;
    sums.shared = std::max(sums.shared, one.shared_bytes);
  }
  return sums;
}

}  // namespace

// Published sizes: GPT-2 (transformers' gpt2), Llama 2 (transformers' meta-llama/Llama-2-7b-hf), Llama 3.1 8B.
TEST_CASE("known models have their published number of parameters") {
  CHECK(num_parameters(build(R"({"model_type": "gpt2"})")) == 124439808);
  CHECK(num_parameters(build(R"({"model_type": "gpt2", "n_layer": 48, "n_embd": 1600, "n_head": 25})")) == 1557611200);
  CHECK(num_parameters(build(R"({"model_type": "llama", "max_position_embeddings": 4096})")) == 6738415616);
  CHECK(
      num_parameters(build(
          R"({"model_type": "llama", "vocab_size": 128256, "intermediate_size": 14336, "num_key_value_heads": 8})")) ==
      8030261248);
}

TEST_CASE("a 13B model of GPT-3's shape is built, and its FLOPs follow the closed form") {
  const ModelGraph graph =
      build(R"({"model_type": "gpt2", "n_layer": 40, "n_embd": 5120, "n_head": 40, "n_positions": 2048})");
  CHECK(graph.num_blocks() == 42);
  const double layers = 40, width = 5120, length = 2048, vocabulary = 50257;
  const double products = 2 * length * (12 * layers * width * width + vocabulary * width),
               attention = 4 * layers * length * length * width;
  const Sums sums = add_up(graph, 1);
  CHECK(sums.forward == products + attention);
  CHECK(sums.backward == 2 * products + 2 * attention);  // dropout: explicit attention, two products per product
  CHECK(sums.parameters == num_parameters(graph));
}

TEST_CASE("a built model agrees with the export of the same model") {
  const Json data = analysis_data();
  for (const std::string name : {"saved_gpt2_2", "saved_gpt2_3", "saved_llama_2", "saved_llama_3"}) {
    INFO(name);
    const Json& expected = data[name];
    const auto built = build_from_config(expected["config"], {});
    const auto exported = load_pt2(analysis_folder() / (name + ".pt2"));
    REQUIRE(built.has_value());
    REQUIRE(exported.has_value());
    // The exported module wraps the model as `model`.
    std::map<std::string, std::vector<std::int64_t>> ours;
    for (const Parameter& parameter : built->parameters) ours["model." + parameter.name] = parameter.dims;
    REQUIRE(ours.size() == expected["parameters"].object().size());
    for (const auto& [parameter, dims] : expected["parameters"].object()) {
      REQUIRE(ours.count(parameter) == 1);
      CHECK(JsonArray(ours[parameter].begin(), ours[parameter].end()) == dims.array());
    }
    std::vector<std::vector<std::string>> our_ties, their_ties;
    for (const Parameter& parameter : built->parameters)
      for (const std::string& tied : parameter.tied_names)
        our_ties.push_back({"model." + parameter.name, "model." + tied});
    for (const Parameter& parameter : exported->parameters)
      for (const std::string& tied : parameter.tied_names) their_ties.push_back({parameter.name, tied});
    for (auto* ties : {&our_ties, &their_ties})
      for (auto& tie : *ties) std::sort(tie.begin(), tie.end());
    CHECK(our_ties == their_ties);

    REQUIRE(built->num_blocks() == exported->num_blocks());
    for (int block = 0; block < built->num_blocks(); ++block) {
      const BlockTotals a = estimate_block(*built, block, 2), b = estimate_block(*exported, block, 2);
      CHECK(a.parameter_elements == b.parameter_elements);
      CHECK(a.forward_flop == b.forward_flop);
      CHECK(a.saved_bytes == b.saved_bytes);
      CHECK(a.cut_bytes == b.cut_bytes);
      CHECK(a.transient_bytes == b.transient_bytes);
    }
    const Sums sums = add_up(*built, 2);
    CHECK((sums.saved + sums.shared).value == expected["saved_bytes"].integer());
    CHECK(sums.forward == expected["forward_flop"].number());
    CHECK(sums.backward == expected["backward_flop"].number());
    CHECK(built->coupled.empty());
    CHECK(exported->coupled.empty());
  }
}

TEST_CASE("layers of a built model are equal and send the hidden state alone") {
  const ModelGraph graph = build(
      R"({"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 32})",
      16);
  REQUIRE(graph.num_blocks() == 5);
  CHECK(graph.blocks[1].name == "model.layers.0");
  CHECK(graph.blocks[1].signature == graph.blocks[3].signature);
  for (int cut = 1; cut < 5; ++cut) {
    const StageSlice slice = slice_stage(graph, cut, 5);
    REQUIRE(slice.received.size() == 1);
    CHECK(graph.values[slice.received[0]].dims == std::vector<Dim>{Dim::symbol("batch"), Dim(16), Dim(64)});
  }
  // The rotary frequencies are recomputed where they are used, and the last stage alone reads labels.
  CHECK(slice_stage(graph, 2, 3).buffers.size() == 1);
  CHECK(slice_stage(graph, 4, 5).buffers.empty());
  CHECK(slice_stage(graph, 4, 5).inputs == std::vector<int>{1});
}

TEST_CASE("parameters know how they start") {
  const ModelGraph graph = build(
      R"({"model_type": "gpt2", "n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 8, "vocab_size": 10, "initializer_range": 0.01})");
  CHECK(graph.initializer_range == 0.01);
  const auto init = [&](const std::string& name) {
    const auto found = std::find_if(graph.parameters.begin(), graph.parameters.end(),
                                    [&](const Parameter& parameter) { return parameter.name == name; });
    REQUIRE(found != graph.parameters.end());
    return found->init;
  };
  CHECK(init("transformer.wte.weight") == "normal");
  CHECK(init("transformer.h.1.attn.c_attn.weight") == "normal");
  CHECK(init("transformer.h.1.attn.c_attn.bias") == "zero");
  CHECK(init("transformer.h.0.attn.c_proj.weight") == "residual");
  CHECK(init("transformer.h.0.mlp.c_proj.weight") == "residual");
  CHECK(init("transformer.ln_f.weight") == "one");
  CHECK(init("transformer.ln_f.bias") == "zero");
}

TEST_CASE("every mistake of a configuration is reported at once") {
  const auto result = build_from_config(
      parse_json(
          R"({"model_type": "gpt2", "n_layer": 0, "n_embd": 10, "n_head": 3, "attn_pdrop": 1.5, "activation_function": "snake", "tie_word_embeddings": "yes"})")
          .value(),
      {5000});
  REQUIRE_FALSE(result.has_value());
  std::vector<std::string> paths;
  for (const Error& detail : result.error().details) paths.push_back(detail.path);
  std::sort(paths.begin(), paths.end());
  CHECK(paths == std::vector<std::string>{"activation_function", "attn_pdrop", "n_head", "n_layer", "sequence_length",
                                          "tie_word_embeddings"});
}

TEST_CASE("an unknown family lists the known ones") {
  const auto result = build_from_config(parse_json(R"({"model_type": "bert"})").value(), {});
  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().path == "model_type");
  CHECK(result.error().expected == "one of gpt2, llama");
  CHECK_FALSE(build_from_config(Json(3), {}).has_value());
  CHECK_FALSE(build_from_config(parse_json("{}").value(), {}).has_value());
}

TEST_CASE("rotary scaling that cannot be built is refused by name") {
  const auto result = build_from_config(
      parse_json(R"({"model_type": "llama", "rope_scaling": {"rope_type": "yarn", "factor": 4.0}})").value(), {});
  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().path == "rope_scaling.rope_type");
  CHECK(result.error().got == "yarn");
}
