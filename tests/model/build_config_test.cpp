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

std::vector<std::string> reasons(const ModelGraph& graph) {
  std::vector<std::string> all;
  for (const CoupledOp& coupled : graph.coupled) all.push_back(graph.ops[coupled.op].target + ": " + coupled.reason);
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace

const std::string kMixtral = R"({"model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "num_local_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 32768})";
const std::string kQwen235 = R"({"model_type": "qwen3_moe", "vocab_size": 151936, "hidden_size": 4096, "head_dim": 128,
    "intermediate_size": 12288, "moe_intermediate_size": 1536, "num_hidden_layers": 94, "num_attention_heads": 64,
    "num_key_value_heads": 4, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": true,
    "max_position_embeddings": 40960, "rope_theta": 1000000.0})";

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

// The totals that the model pages on huggingface.co show: Mistral-7B-v0.1, Qwen2-7B, Qwen3-8B.
TEST_CASE("grouped-query decoders have their published number of parameters") {
  CHECK(num_parameters(build(R"({"model_type": "mistral"})")) == 7241732096);
  CHECK(num_parameters(build(R"({"model_type": "qwen2", "vocab_size": 152064, "hidden_size": 3584,
      "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4})")) ==
        7615616512);
  CHECK(num_parameters(build(R"({"model_type": "qwen3", "intermediate_size": 12288, "num_hidden_layers": 36,
      "num_key_value_heads": 8})")) == 8190735360);
}

// Mixtral-8x7B-v0.1, Qwen3-235B-A22B, bert-base-uncased with its masked-language head, vit-base-patch16-224.
TEST_CASE("mixtures and encoders have their published number of parameters") {
  CHECK(num_parameters(build(kMixtral)) == 46702792704);
  CHECK(num_parameters(build(kQwen235)) == 235093634560);
  CHECK(num_parameters(build(R"({"model_type": "bert"})")) == 109514298);
  CHECK(num_parameters(build(R"({"model_type": "vit", "num_labels": 1000})")) == 86567656);
}

TEST_CASE("transformers 5 writes one name for the number of experts") {
  const std::string tiny = R"({"model_type": "qwen3_moe", "num_hidden_layers": 1, "hidden_size": 64, )";
  const std::int64_t eight = num_parameters(build(tiny + R"("num_experts": 8, "num_experts_per_tok": 2})"));
  CHECK(num_parameters(build(tiny + R"("num_local_experts": 8, "num_experts_per_tok": 2})")) == eight);
  CHECK(num_parameters(build(tiny + R"("num_local_experts": 9, "num_experts_per_tok": 2})")) - eight ==
        64 + 3 * 64 * 768);  // a router row and three projections
}

TEST_CASE("a mixture's FLOPs are those of the experts that each token uses") {
  const ModelGraph graph = build(kMixtral, 512);
  const double length = 512, width = 4096, layers = 32;
  const double projections = 2 * width * width + 2 * width * 1024, router = 8 * width, experts = 2 * 3 * width * 14336;
  const double rotary = 64;  // half a head's depth
  const Sums sums = add_up(graph, 1);
  CHECK(sums.forward == 2 * length * (layers * (projections + router + experts) + width * 32000 + rotary) +
                            4 * layers * length * length * width);
}

TEST_CASE("a mixture's balance loss couples samples and is a second term of the loss") {
  const std::string tiny =
      R"({"model_type": "mixtral", "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2,
          "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 8,
          "num_local_experts": 4,
          "router_aux_loss_coef": 0.25, "output_router_logits": )";
  const ModelGraph without = build(tiny + "false}"), with = build(tiny + "true}");
  CHECK(without.loss.size() == 1);
  CHECK(without.coupled.empty());
  REQUIRE(with.loss.size() == 2);
  CHECK(with.loss[0].denominator.has_value());
  CHECK(with.loss[1].coefficient == 0.25 * 4);  // transformers multiplies by the number of experts
  CHECK_FALSE(with.loss[1].denominator.has_value());
  // Two means over tokens in one product: what can be put together over parts of a batch.
  REQUIRE(with.coupled.size() == 1);
  REQUIRE(with.coupled.front().sums.size() == 2);
  for (const BatchSum& sum : with.coupled.front().sums) CHECK(sum.mean);
}

TEST_CASE("a sliding window shorter than the text needs a mask, a longer one none") {
  const std::string tiny =
      R"({"model_type": "qwen2", "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 3,
          "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 32,
          "use_sliding_window": true, "max_window_layers": 2, "sliding_window": 9})";
  const auto num_masked = [](const ModelGraph& graph) {
    return std::count_if(graph.ops.begin(), graph.ops.end(), [](const Op& op) {
      return op.target == "aten::scaled_dot_product_attention" &&
             std::holds_alternative<ValueRef>(op.arguments[3].value);
    });
  };
  CHECK(num_masked(build(tiny, 8)) == 0);
  CHECK(num_masked(build(tiny, 9)) == 1);
  const ModelGraph graph = build(tiny, 9);
  CHECK(graph.blocks[1].signature == graph.blocks[2].signature);
  CHECK(graph.blocks[1].signature != graph.blocks[3].signature);
}

TEST_CASE("transformers 5 writes rotary parameters in one member") {
  const auto frequencies = [](const std::string& rotary) {
    const ModelGraph graph =
        build(R"({"model_type": "mistral", "hidden_size": 64, "num_attention_heads": 8, "num_hidden_layers": 1, )" +
                  rotary + "}",
              8);
    REQUIRE(graph.buffers.size() == 1);
    return *graph.buffers[0].content;
  };
  CHECK(frequencies(R"("rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0})") ==
        frequencies(R"("rope_theta": 500.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0})"));
  CHECK(frequencies(R"("rope_parameters": {"rope_type": "default", "rope_theta": 16.0})") ==
        std::vector<double>{1, 0.5, 0.25, 0.125});
}

TEST_CASE("encoders take what transformers' forward takes, in its order") {
  const auto inputs = [](const ModelGraph& graph) {
    std::vector<std::string> names;
    for (const Input& input : graph.inputs) names.push_back(input.name);
    return names;
  };
  const ModelGraph bert = build(R"({"model_type": "bert", "num_hidden_layers": 2})", 16);
  CHECK(inputs(bert) == std::vector<std::string>{"input_ids", "attention_mask", "token_type_ids", "labels"});
  CHECK(bert.num_blocks() == 4);
  CHECK(bert.blocks[1].name == "bert.encoder.layer.0");
  CHECK(bert.blocks[1].signature == bert.blocks[2].signature);
  const ModelGraph vit = build(R"({"model_type": "vit", "num_hidden_layers": 2, "image_size": 32, "num_labels": 4})");
  CHECK(inputs(vit) == std::vector<std::string>{"pixel_values", "labels"});
  CHECK(vit.values[vit.inputs[0].value].dims == std::vector<Dim>{Dim::symbol("batch"), Dim(3), Dim(32), Dim(32)});
  CHECK(slice_stage(vit, 2, 4).received.size() == 1);
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
  for (const auto& [name, expected] : data.object()) {
    if (expected["config"].is_null()) continue;
    INFO(name);
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
    CHECK((sums.saved + sums.shared).value ==
          expected["saved_bytes"].integer() + expected["handed_on_bytes"].integer());
    CHECK(sums.forward == expected["forward_flop"].number());
    CHECK(sums.backward == expected["backward_flop"].number());
    CHECK(reasons(*built) == reasons(*exported));
    const bool balances = expected["config"]["output_router_logits"] == Json(true);
    CHECK(built->coupled.empty() != balances);
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

TEST_CASE("mistakes of the other families are named") {
  const auto paths = [](const std::string& text, std::int64_t length = 0) {
    const auto result = build_from_config(parse_json(text).value(), {length});
    REQUIRE_FALSE(result.has_value());
    std::vector<std::string> all;
    for (const Error& detail : result.error().details) all.push_back(detail.path);
    if (all.empty()) all.push_back(result.error().path);
    std::sort(all.begin(), all.end());
    return all;
  };
  CHECK(paths(R"({"model_type": "mixtral", "num_experts_per_tok": 9, "router_jitter_noise": 0.1})") ==
        std::vector<std::string>{"num_experts_per_tok", "router_jitter_noise"});
  CHECK(paths(R"({"model_type": "qwen3_moe", "mlp_only_layers": [1, "two"], "sliding_window": "wide",
      "use_sliding_window": true})") == std::vector<std::string>{"mlp_only_layers", "sliding_window"});
  CHECK(paths(R"({"model_type": "qwen2", "num_hidden_layers": 2, "layer_types": ["full_attention", "chunked"]})") ==
        std::vector<std::string>{"layer_types[1]"});
  CHECK(paths(R"({"model_type": "qwen2", "num_hidden_layers": 2, "layer_types": ["full_attention"]})") ==
        std::vector<std::string>{"layer_types"});
  CHECK(paths(R"({"model_type": "mistral", "num_attention_heads": 4})") ==
        std::vector<std::string>{"num_key_value_heads"});
  CHECK(paths(R"({"model_type": "bert", "is_decoder": true, "position_embedding_type": "relative_key"})", 600) ==
        std::vector<std::string>{"is_decoder", "position_embedding_type", "sequence_length"});
  CHECK(paths(R"({"model_type": "vit", "image_size": [8, 32], "num_labels": 1})", 5) ==
        std::vector<std::string>{"num_labels", "patch_size", "sequence_length"});
}

TEST_CASE("an unknown family lists the known ones") {
  const auto result = build_from_config(parse_json(R"({"model_type": "t5"})").value(), {});
  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().path == "model_type");
  CHECK(result.error().expected == "one of bert, gpt2, llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, vit");
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
