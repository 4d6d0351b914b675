// config.json of the decoders of the Llama kind. The families differ in defaults and in which keys they know.
#include <array>
#include <string_view>

#include "model/build_decoder.h"

namespace coxswain::model {
namespace {

enum class Biases { Keys, QueryKeyValue, None };           // attention_bias and mlp_bias; always on q, k, v; never
enum class Window { None, Every, ByLayer, EveryIfAsked };  // which layers slide; ByLayer and EveryIfAsked need a flag

struct Family {
  std::string_view name;
  std::int64_t vocabulary, width, inner, layers, heads;
  std::int64_t key_heads;  // 0: as many as heads
  std::int64_t depth;      // 0: width / heads
  std::int64_t positions;
  double epsilon, theta;
  Biases biases;
  bool head_norms;
  Window window;
  std::int64_t window_size;      // 0: none unless named
  std::int64_t experts, chosen;  // 0: none
};

constexpr std::array<Family, 6> kFamilies{{
    {"llama", 32000, 4096, 11008, 32, 32, 0, 0, 2048, 1e-6, 1e4, Biases::Keys, false, Window::None, 0, 0, 0},
    {"mistral", 32000, 4096, 14336, 32, 32, 8, 0, 131072, 1e-6, 1e4, Biases::None, false, Window::Every, 4096, 0, 0},
    {"qwen2", 151936, 4096, 22016, 32, 32, 32, 0, 32768, 1e-6, 1e4, Biases::QueryKeyValue, false, Window::ByLayer, 4096,
     0, 0},
    {"qwen3", 151936, 4096, 22016, 32, 32, 32, 128, 32768, 1e-6, 1e4, Biases::Keys, true, Window::ByLayer, 4096, 0, 0},
    {"mixtral", 32000, 4096, 14336, 32, 32, 8, 0, 131072, 1e-5, 1e6, Biases::None, false, Window::Every, 0, 8, 2},
    {"qwen3_moe", 151936, 2048, 6144, 24, 32, 4, 0, 32768, 1e-6, 1e4, Biases::Keys, true, Window::EveryIfAsked, 4096,
     128, 8},
}};

class DecoderReader {
 public:
  DecoderReader(const Json& json, const Family& family) : config_(json), family_(family) {}

  Result<DecoderConfig> read(std::int64_t sequence_length) {
    read_sizes();
    read_attention();
    c_.scaling = read_scaling();
    if (family_.experts > 0) read_experts();
    c_.length = read_length(config_, "max_position_embeddings", c_.positions, sequence_length);
    COX_TRY_VOID(config_.finish());
    return std::move(c_);
  }

 private:
  void read_sizes() {
    c_.family = family_.name;
    c_.vocabulary = config_.size("vocab_size", family_.vocabulary);
    c_.positions = config_.size("max_position_embeddings", family_.positions);
    c_.width = config_.size("hidden_size", family_.width);
    c_.inner = config_.size("intermediate_size", family_.inner);
    c_.layers = config_.size("num_hidden_layers", family_.layers);
    c_.heads = config_.size("num_attention_heads", family_.heads);
    // A null means one for each head of queries; an absent member means the family's number.
    const bool named = family_.key_heads == 0 || config_.has("num_key_value_heads");
    c_.key_heads = config_.size("num_key_value_heads", named ? c_.heads : family_.key_heads);
    const bool divided = config_.member("head_dim").is_null() && (family_.depth == 0 || config_.has("head_dim"));
    c_.depth = config_.size("head_dim", divided ? c_.width / c_.heads : family_.depth);
    if (divided) config_.divides("num_attention_heads", c_.heads, "hidden_size", c_.width);
    config_.divides("num_key_value_heads", c_.key_heads, "num_attention_heads", c_.heads);
    config_.divides("2", 2, "head_dim", c_.depth);
    const Json& padding = config_.member("pad_token_id");
    c_.padding = padding.is_integer() ? padding.integer() : -1;
    c_.activation = read_activation(config_, "hidden_act", "silu");
    c_.epsilon = config_.number("rms_norm_eps", family_.epsilon);
    c_.initializer_range = config_.number("initializer_range", 0.02);
    c_.tied = config_.flag("tie_word_embeddings", false);
  }

  void read_attention() {
    c_.attention_dropout = config_.probability("attention_dropout", 0.0);
    const bool asked = family_.biases == Biases::Keys && config_.flag("attention_bias", false);
    c_.query_bias = asked || family_.biases == Biases::QueryKeyValue;
    c_.output_bias = asked;
    c_.mlp_bias = family_.name == "llama" && config_.flag("mlp_bias", false);
    c_.head_norms = family_.head_norms;
    const bool flagged = family_.window == Window::ByLayer || family_.window == Window::EveryIfAsked;
    const bool slides = family_.window != Window::None && (!flagged || config_.flag("use_sliding_window", false));
    c_.slides.assign(static_cast<std::size_t>(c_.layers), slides);
    if (slides) c_.window = config_.has("sliding_window") ? config_.size("sliding_window", 0) : family_.window_size;
    if (family_.window == Window::ByLayer) read_sliding_layers();
  }

  /// `layer_types`, or every layer from `max_window_layers` on.
  void read_sliding_layers() {
    const Json& types = config_.member("layer_types");
    const std::int64_t first = config_.number("max_window_layers", 28) < 0
                                   ? 0
                                   : static_cast<std::int64_t>(config_.number("max_window_layers", 28));
    if (types.is_null()) {
      for (std::int64_t layer = 0; layer < c_.layers && layer < first; ++layer)
        c_.slides[static_cast<std::size_t>(layer)] = false;
      return;
    }
    const bool fits = types.is_array() && types.array().size() == c_.slides.size();
    if (!fits)
      config_.problem(ErrorCode::InvalidArgument, "bad list of layer types", "layer_types",
                      "one of full_attention, sliding_attention for each of " + std::to_string(c_.layers) + " layers",
                      to_text(types));
    for (std::size_t layer = 0; fits && layer < c_.slides.size(); ++layer) {
      const Json& type = types.array()[layer];
      const std::string name = type.is_string() ? type.string() : to_text(type);
      c_.slides[layer] = name == "sliding_attention" && c_.window > 0;
      if (name != "sliding_attention" && name != "full_attention")
        config_.problem(ErrorCode::Unimplemented, "unknown kind of layer", "layer_types[" + std::to_string(layer) + "]",
                        "one of full_attention, sliding_attention", name);
    }
  }

  /// transformers 5 writes `rope_parameters`, with the base in it; before, `rope_scaling` and `rope_theta`.
  RotaryScaling read_scaling() {
    RotaryScaling scaling;
    const std::string key = config_.member("rope_parameters").is_null() ? "rope_scaling" : "rope_parameters";
    c_.theta = config_.number("rope_theta", family_.theta);
    const Json& json = config_.member(key);
    if (json.is_null()) return scaling;
    ConfigReader reader(json);
    c_.theta = reader.number("rope_theta", c_.theta);
    scaling.kind = reader.text("rope_type", reader.text("type", "default"));
    if (scaling.kind != "default" && scaling.kind != "linear" && scaling.kind != "llama3") {
      config_.problem(ErrorCode::Unimplemented,
                      "rotary scaling that this version cannot build; export the model instead", key + ".rope_type",
                      "one of default, linear, llama3", scaling.kind);
      return scaling;
    }
    scaling.factor = reader.number("factor", 1);
    scaling.low_frequency = reader.number("low_freq_factor", 1);
    scaling.high_frequency = reader.number("high_freq_factor", 4);
    scaling.original_positions = reader.number("original_max_position_embeddings", static_cast<double>(c_.positions));
    if (auto result = reader.finish(); !result.has_value())
      config_.problem(ErrorCode::InvalidArgument, result.error().message, key + "." + result.error().path,
                      result.error().expected, result.error().got);
    if (!(scaling.factor > 0))
      config_.problem(ErrorCode::InvalidArgument, "bad rotary scaling", key + ".factor", "above 0",
                      to_text(json["factor"]));
    return scaling;
  }

  void read_experts() {
    ExpertConfig& experts = c_.experts;
    const bool is_qwen = family_.name == "qwen3_moe";
    // transformers 5 writes Mixtral's name for both.
    const std::string key = is_qwen && config_.has("num_experts") ? "num_experts" : "num_local_experts";
    experts.count = config_.size(key, family_.experts);
    experts.chosen = config_.size("num_experts_per_tok", family_.chosen);
    if (experts.chosen > experts.count)
      config_.problem(ErrorCode::InvalidArgument, "more experts per token than experts", "num_experts_per_tok",
                      "1 to " + std::to_string(experts.count) + " (" + key + ")", std::to_string(experts.chosen));
    if (config_.flag("output_router_logits", false))
      experts.balance_loss = config_.number("router_aux_loss_coef", 0.001);
    experts.is_sparse.assign(static_cast<std::size_t>(c_.layers), true);
    if (is_qwen) {
      experts.inner = config_.size("moe_intermediate_size", 768);
      experts.normalised = config_.flag("norm_topk_prob", false);
      read_dense_layers();
      return;
    }
    experts.inner = c_.inner;
    if (config_.number("router_jitter_noise", 0) != 0)
      config_.problem(ErrorCode::Unimplemented, "a model option that this version cannot build", "router_jitter_noise",
                      "0", to_text(config_.member("router_jitter_noise")));
  }

  /// Every `decoder_sparse_step`-th layer has experts, `mlp_only_layers` excepted.
  void read_dense_layers() {
    const std::int64_t step = config_.size("decoder_sparse_step", 1);
    for (std::int64_t layer = 0; layer < c_.layers; ++layer)
      if ((layer + 1) % step != 0) c_.experts.is_sparse[static_cast<std::size_t>(layer)] = false;
    const Json& dense = config_.member("mlp_only_layers");
    if (dense.is_null()) return;
    bool good = dense.is_array();
    for (std::size_t i = 0; good && i < dense.array().size(); ++i) {
      const Json& layer = dense.array()[i];
      good = layer.is_integer();
      if (good && layer.integer() >= 0 && layer.integer() < c_.layers)
        c_.experts.is_sparse[static_cast<std::size_t>(layer.integer())] = false;
    }
    if (!good)
      config_.problem(ErrorCode::InvalidArgument, "bad list of layers", "mlp_only_layers", "integers", to_text(dense));
  }

  ConfigReader config_;
  const Family& family_;
  DecoderConfig c_;
};

}  // namespace

Result<DecoderConfig> read_decoder_config(const Json& json, std::int64_t sequence_length) {
  const Json& type = json["model_type"];
  const Family* family = &kFamilies.front();
  for (const Family& one : kFamilies)
    if (type.is_string() && type.string() == one.name) family = &one;
  return DecoderReader(json, *family).read(sequence_length);
}

}  // namespace coxswain::model
