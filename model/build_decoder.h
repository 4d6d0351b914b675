#pragma once
// Decoders of the Llama kind (llama, mistral, qwen2, qwen3, mixtral, qwen3_moe): what their configurations say, under
// one set of names, and the parts that stand in files of their own. Private to this folder. Threads: one at a time.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "model/build_parts.h"

namespace coxswain::model {

struct RotaryScaling {
  std::string kind = "default";
  double factor = 1, low_frequency = 1, high_frequency = 4;
  double original_positions = 8192;
};

/// Layers whose MLP is `count` experts, of which each token uses `chosen`.
struct ExpertConfig {
  std::int64_t count = 0, chosen = 0, inner = 0;
  bool normalised = true;       // the chosen experts' weights add up to one
  double balance_loss = 0;      // coefficient; 0: none
  std::vector<bool> is_sparse;  // by layer; empty: no layer
};

struct DecoderConfig {
  std::string family;
  std::int64_t vocabulary, positions, width, inner, layers, heads, key_heads, depth, length, padding;
  std::string activation;
  double attention_dropout, epsilon, theta, initializer_range;
  bool query_bias, output_bias, mlp_bias, tied;  // query_bias: of query, key and value
  bool head_norms;                               // RMS norms of each head's query and key
  std::int64_t window = 0;                       // tokens that a sliding layer sees; 0: every layer sees all
  std::vector<bool> slides;                      // by layer
  RotaryScaling scaling;
  ExpertConfig experts;
};

/// Hugging Face's keys and defaults of that family. Errors: every mistake of `json` at once.
[[nodiscard]] Result<DecoderConfig> read_decoder_config(const Json& json, std::int64_t sequence_length);

/// theta^(-2 i / depth) with scaling, in float32 as transformers computes it.
[[nodiscard]] std::vector<double> rotary_frequencies(const DecoderConfig& config);

/// Which keys each query of a sliding layer sees: bool (batch, 1, length, length). `places`: int64 (1, length).
[[nodiscard]] ValueId sliding_window_mask(GraphBuilder& builder, ValueId places, std::int64_t window);

/// The mixture of experts at module path `path`, in the form that transformers exports without kernels of its own: each
/// (token, chosen expert) pair is one product with its expert's gathered weights.
struct MixtureOutputs {
  ValueId hidden = -1;  // like x
  ValueId logits = -1;  // of the router: (batch x length, experts)
};
[[nodiscard]] MixtureOutputs build_mixture(GraphBuilder& builder, const DecoderConfig& config, const std::string& path,
                                           ValueId x);
/// Switch Transformer's balance loss over the routers of all layers, before its coefficient.
[[nodiscard]] ValueId build_balance_loss(GraphBuilder& builder, const ExpertConfig& experts,
                                         const std::vector<ValueId>& logits);

}  // namespace coxswain::model
