// Llama as transformers writes it: RMS norms spelt out, rotary positions, grouped-query attention, gated MLP.
#include <cmath>
#include <string>
#include <utility>

#include "model/build_parts.h"

namespace coxswain::model {
namespace {

struct RotaryScaling {
  std::string kind = "default";
  double factor = 1, low_frequency = 1, high_frequency = 4;
  double original_positions = 8192;
};

struct LlamaConfig {
  std::int64_t vocabulary, positions, width, inner, layers, heads, key_heads, depth, length, padding;
  std::string activation;
  double attention_dropout, epsilon, theta, initializer_range;
  bool attention_bias, mlp_bias, tied;
  RotaryScaling scaling;
};

RotaryScaling read_scaling(ConfigReader& config, std::int64_t positions) {
  RotaryScaling scaling;
  const Json& json = config.member("rope_scaling");
  if (json.is_null()) return scaling;
  ConfigReader reader(json);
  scaling.kind = reader.text("rope_type", reader.text("type", "default"));
  if (scaling.kind != "default" && scaling.kind != "linear" && scaling.kind != "llama3") {
    config.problem(ErrorCode::Unimplemented, "rotary scaling that this version cannot build; export the model instead",
                   "rope_scaling.rope_type", "one of default, linear, llama3", scaling.kind);
    return scaling;
  }
  scaling.factor = reader.number("factor", 1);
  scaling.low_frequency = reader.number("low_freq_factor", 1);
  scaling.high_frequency = reader.number("high_freq_factor", 4);
  scaling.original_positions = reader.number("original_max_position_embeddings", static_cast<double>(positions));
  if (auto result = reader.finish(); !result.has_value())
    config.problem(ErrorCode::InvalidArgument, result.error().message, "rope_scaling." + result.error().path,
                   result.error().expected, result.error().got);
  if (!(scaling.factor > 0))
    config.problem(ErrorCode::InvalidArgument, "bad rotary scaling", "rope_scaling.factor", "above 0",
                   to_text(json["factor"]));
  return scaling;
}

Result<LlamaConfig> read_config(const Json& json, std::int64_t sequence_length) {
  ConfigReader config(json);
  LlamaConfig c;
  c.vocabulary = config.size("vocab_size", 32000);
  c.positions = config.size("max_position_embeddings", 2048);
  c.width = config.size("hidden_size", 4096);
  c.inner = config.size("intermediate_size", 11008);
  c.layers = config.size("num_hidden_layers", 32);
  c.heads = config.size("num_attention_heads", 32);
  c.key_heads = config.size("num_key_value_heads", c.heads);
  c.depth = config.size("head_dim", c.width / c.heads);
  const Json& padding = config.member("pad_token_id");
  c.padding = padding.is_integer() ? padding.integer() : -1;
  c.activation = read_activation(config, "hidden_act", "silu");
  c.attention_dropout = config.probability("attention_dropout", 0.0);
  c.epsilon = config.number("rms_norm_eps", 1e-6);
  c.theta = config.number("rope_theta", 10000.0);
  c.initializer_range = config.number("initializer_range", 0.02);
  c.attention_bias = config.flag("attention_bias", false);
  c.mlp_bias = config.flag("mlp_bias", false);
  c.tied = config.flag("tie_word_embeddings", false);
  c.scaling = read_scaling(config, c.positions);
  if (config.member("head_dim").is_null()) config.divides("num_attention_heads", c.heads, "hidden_size", c.width);
  config.divides("num_key_value_heads", c.key_heads, "num_attention_heads", c.heads);
  config.divides("2", 2, "head_dim", c.depth);
  c.length = read_length(config, "max_position_embeddings", c.positions, sequence_length);
  COX_TRY_VOID(config.finish());
  return c;
}

/// theta^(-2 i / depth), in float32 as transformers computes it.
std::vector<double> rotary_frequencies(const LlamaConfig& c) {
  constexpr double kTwoPi = 6.283185307179586;
  std::vector<double> frequencies;
  for (std::int64_t i = 0; i < c.depth; i += 2) {
    double frequency =
        1.0F / std::pow(static_cast<float>(c.theta), static_cast<float>(i) / static_cast<float>(c.depth));
    if (c.scaling.kind == "linear") frequency /= c.scaling.factor;
    if (c.scaling.kind == "llama3") {
      // Long waves are stretched by the factor, short ones kept, those between are blended.
      const double wave = kTwoPi / frequency, low = c.scaling.low_frequency, high = c.scaling.high_frequency;
      if (wave > c.scaling.original_positions / low) {
        frequency /= c.scaling.factor;
      } else if (!(wave < c.scaling.original_positions / high)) {
        const double blend = (c.scaling.original_positions / wave - low) / (high - low);
        frequency = (1 - blend) * frequency / c.scaling.factor + blend * frequency;
      }
    }
    frequencies.push_back(static_cast<double>(static_cast<float>(frequency)));
  }
  return frequencies;
}

class Llama {
 public:
  explicit Llama(LlamaConfig config) : c_(std::move(config)), b_("llama", c_.length, c_.initializer_range) {}

  Result<ModelGraph> build() {
    const ValueId tokens = b_.input("input_ids"), labels = b_.input("labels");
    b_.enter("model.embed_tokens");
    const ValueId table =
        b_.parameter("model.embed_tokens.weight", {c_.vocabulary, c_.width}, "normal",
                     c_.tied ? std::vector<std::string>{"lm_head.weight"} : std::vector<std::string>{});
    ValueId x = b_.embedding(table, tokens, c_.padding);
    b_.enter("model");
    rotary(b_.positions());
    for (std::int64_t layer = 0; layer < c_.layers; ++layer) x = block("model.layers." + std::to_string(layer), x);
    x = norm("model.norm", x);
    b_.enter("lm_head");
    const ValueId head = c_.tied ? table : b_.parameter("lm_head.weight", {c_.vocabulary, c_.width}, "normal");
    const ValueId logits = b_.linear(x, head);
    b_.enter("");
    return b_.finish(logits, labels);
  }

 private:
  /// cos and sin of position x frequency, (1, length, depth), both halves alike.
  void rotary(ValueId positions) {
    b_.enter("model.rotary_emb");
    b_.set_grad(false);
    const ValueId frequencies = b_.buffer("model.rotary_emb.inv_freq", rotary_frequencies(c_));
    const ValueId column = b_.unsqueeze(b_.unsqueeze(frequencies, 0), 2);
    const ValueId row_of_places = b_.unsqueeze(positions, 1);
    const ValueId row = b_.emit("aten::to.dtype", {{"self", ValueRef{row_of_places}}, {"dtype", DType::Float32}},
                                b_.dims(row_of_places));
    const ValueId angles = b_.emit("aten::matmul", {{"self", ValueRef{column}}, {"other", ValueRef{row}}},
                                   {Dim(1), Dim(c_.depth / 2), Dim(c_.length)});
    const ValueId turned = b_.transpose(angles, 1, 2);
    const ValueId both = concatenate(turned, turned);
    cosine_ = b_.emit_like("aten::cos", {{"self", ValueRef{both}}}, both);
    sine_ = b_.emit_like("aten::sin", {{"self", ValueRef{both}}}, both);
    b_.set_grad(true);
  }

  ValueId concatenate(ValueId a, ValueId b) {
    std::vector<Dim> wide = b_.dims(a);
    wide.back() = Dim(2 * wide.back().constant());
    const std::vector<std::optional<ValueRef>> parts{ValueRef{a}, ValueRef{b}};
    return b_.emit("aten::cat", {{"tensors", parts}, {"dim", Dim(-1)}}, std::move(wide));
  }

  /// x cos + rotate_half(x) sin
  ValueId rotate(ValueId x, ValueId cosine, ValueId sine) {
    const ValueId straight = b_.multiply(x, cosine, x);
    const ValueId first = b_.slice(x, 3, 0, c_.depth / 2), second = b_.slice(x, 3, c_.depth / 2, c_.depth);
    const ValueId negated = b_.emit_like("aten::neg", {{"self", ValueRef{second}}}, second);
    const ValueId crossed = b_.multiply(concatenate(negated, first), sine, x);
    return b_.add(straight, crossed, x);
  }

  ValueId norm(const std::string& path, ValueId x) {
    b_.enter(path);
    const ValueId square = b_.emit_like("aten::pow.Tensor_Scalar", {{"self", ValueRef{x}}, {"exponent", Dim(2)}}, x);
    std::vector<Dim> row = b_.dims(x);
    row.back() = Dim(1);
    const ValueId mean = b_.emit(
        "aten::mean.dim", {{"self", ValueRef{square}}, {"dim", std::vector<Dim>{Dim(-1)}}, {"keepdim", true}}, row);
    const ValueId shifted = b_.add(mean, c_.epsilon);
    const ValueId scale = b_.emit_like("aten::rsqrt", {{"self", ValueRef{shifted}}}, shifted);
    const ValueId normal = b_.multiply(x, scale, x);
    return b_.multiply(b_.parameter(path + ".weight", {c_.width}, "one"), normal, normal);
  }

  ValueId project(const std::string& path, ValueId x, std::int64_t in, std::int64_t out, bool biased,
                  const std::string& init = "normal") {
    b_.enter(path);
    const ValueId weight = b_.parameter(path + ".weight", {out, in}, init);
    return b_.linear(x, weight, biased ? b_.parameter(path + ".bias", {out}, "zero") : -1);
  }

  ValueId heads(const std::string& path, const std::string& which, ValueId x, std::int64_t count) {
    const ValueId flat = project(path + "." + which, x, c_.width, count * c_.depth, c_.attention_bias);
    b_.enter(path);
    return b_.transpose(b_.view(flat, {b_.batch(), Dim(c_.length), Dim(count), Dim(c_.depth)}), 1, 2);
  }

  ValueId attention(const std::string& path, ValueId x) {
    const ValueId query = heads(path, "q_proj", x, c_.heads), key = heads(path, "k_proj", x, c_.key_heads),
                  value = heads(path, "v_proj", x, c_.key_heads);
    const ValueId cosine = b_.unsqueeze(cosine_, 1), sine = b_.unsqueeze(sine_, 1);
    const ValueId turned_query = rotate(query, cosine, sine), turned_key = rotate(key, cosine, sine);
    const double scale = 1 / std::sqrt(static_cast<double>(c_.depth));
    const ValueId mixed =
        b_.transpose(b_.attention(turned_query, turned_key, value, c_.attention_dropout, scale, true), 1, 2);
    const std::vector<Dim> merged{b_.batch(), Dim(c_.length), Dim(c_.heads * c_.depth)};
    const ValueId joined = b_.emit("aten::reshape", {{"self", ValueRef{mixed}}, {"shape", merged}}, merged);
    return project(path + ".o_proj", joined, c_.heads * c_.depth, c_.width, c_.attention_bias, "residual");
  }

  ValueId mlp(const std::string& path, ValueId x) {
    const ValueId gate = project(path + ".gate_proj", x, c_.width, c_.inner, c_.mlp_bias);
    b_.enter(path + ".act_fn");
    const ValueId open = b_.activation(c_.activation, gate);
    const ValueId up = project(path + ".up_proj", x, c_.width, c_.inner, c_.mlp_bias);
    b_.enter(path);
    return project(path + ".down_proj", b_.multiply(open, up, up), c_.inner, c_.width, c_.mlp_bias, "residual");
  }

  ValueId block(const std::string& path, ValueId x) {
    const ValueId mixed = attention(path + ".self_attn", norm(path + ".input_layernorm", x));
    b_.enter(path);
    x = b_.add(x, mixed, x);
    const ValueId fed = mlp(path + ".mlp", norm(path + ".post_attention_layernorm", x));
    b_.enter(path);
    return b_.add(x, fed, x);
  }

  LlamaConfig c_;
  GraphBuilder b_;
  ValueId cosine_ = -1, sine_ = -1;
};

}  // namespace

Result<ModelGraph> build_llama(const Json& config, std::int64_t sequence_length) {
  COX_TRY(LlamaConfig read, read_config(config, sequence_length));
  return Llama(std::move(read)).build();
}

}  // namespace coxswain::model
