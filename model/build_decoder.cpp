// Decoders of the Llama kind as transformers writes them: RMS norms spelt out, rotary positions, grouped-query
// attention, gated MLP or experts.
#include "model/build_decoder.h"

#include <cmath>
#include <utility>

namespace coxswain::model {
namespace {

class Decoder {
 public:
  explicit Decoder(DecoderConfig config) : c_(std::move(config)), b_(c_.family, c_.length, c_.initializer_range) {}

  Result<ModelGraph> build() {
    const ValueId tokens = b_.input("input_ids"), labels = b_.input("labels");
    b_.enter("model.embed_tokens");
    const ValueId table =
        b_.parameter("model.embed_tokens.weight", {c_.vocabulary, c_.width}, "normal",
                     c_.tied ? std::vector<std::string>{"lm_head.weight"} : std::vector<std::string>{});
    ValueId x = b_.embedding(table, tokens, c_.padding);
    b_.enter("model");
    const ValueId places = b_.positions();  // (1, length)
    if (c_.window > 0 && c_.length >= c_.window) mask_ = sliding_window_mask(b_, places, c_.window);
    rotary(places);
    for (std::size_t layer = 0; layer < c_.slides.size(); ++layer) x = block(layer, x);
    x = norm("model.norm", x, c_.width);
    b_.enter("lm_head");
    const ValueId head = c_.tied ? table : b_.parameter("lm_head.weight", {c_.vocabulary, c_.width}, "normal");
    const ValueId logits = b_.linear(x, head);
    b_.enter("");
    return b_.finish(loss(logits, labels));
  }

 private:
  ValueId loss(ValueId logits, ValueId labels) {
    const ValueId tokens = b_.next_token_loss(logits, labels);
    if (c_.experts.balance_loss == 0 || router_logits_.empty()) return tokens;
    const ValueId balance = build_balance_loss(b_, c_.experts, router_logits_);
    return b_.add(tokens, b_.multiply(balance, c_.experts.balance_loss), tokens);
  }

  /// cos and sin of position x frequency, (1, length, depth), both halves alike.
  void rotary(ValueId places) {
    b_.enter("model.rotary_emb");
    b_.set_grad(false);
    const ValueId frequencies = b_.buffer("model.rotary_emb.inv_freq", rotary_frequencies(c_), {c_.depth / 2});
    const ValueId column = b_.unsqueeze(b_.unsqueeze(frequencies, 0), 2);
    const ValueId row = b_.convert(b_.unsqueeze(places, 1), DType::Float32);
    const ValueId angles = b_.emit("aten::matmul", {{"self", ValueRef{column}}, {"other", ValueRef{row}}},
                                   {Dim(1), Dim(c_.depth / 2), Dim(c_.length)});
    const ValueId turned = b_.transpose(angles, 1, 2);
    const ValueId both = b_.concatenate({turned, turned}, -1);
    // transformers multiplies by the scaling of attention, which is one for every scaling that is built here.
    cosine_ = b_.multiply(b_.emit_like("aten::cos", {{"self", ValueRef{both}}}, both), 1.0);
    sine_ = b_.multiply(b_.emit_like("aten::sin", {{"self", ValueRef{both}}}, both), 1.0);
    b_.set_grad(true);
  }

  /// x cos + rotate_half(x) sin
  ValueId rotate(ValueId x, ValueId cosine, ValueId sine) {
    const ValueId straight = b_.multiply(x, cosine, x);
    const ValueId first = b_.slice(x, 3, 0, c_.depth / 2), second = b_.slice(x, 3, c_.depth / 2, c_.depth);
    const ValueId negated = b_.emit_like("aten::neg", {{"self", ValueRef{second}}}, second);
    const ValueId crossed = b_.multiply(b_.concatenate({negated, first}, -1), sine, x);
    return b_.add(straight, crossed, x);
  }

  ValueId norm(const std::string& path, ValueId x, std::int64_t width) {
    b_.enter(path);
    const ValueId square = b_.emit_like("aten::pow.Tensor_Scalar", {{"self", ValueRef{x}}, {"exponent", Dim(2)}}, x);
    std::vector<Dim> row = b_.dims(x);
    row.back() = Dim(1);
    const ValueId mean = b_.emit(
        "aten::mean.dim", {{"self", ValueRef{square}}, {"dim", std::vector<Dim>{Dim(-1)}}, {"keepdim", true}}, row);
    const ValueId shifted = b_.add(mean, c_.epsilon);
    const ValueId scale = b_.emit_like("aten::rsqrt", {{"self", ValueRef{shifted}}}, shifted);
    const ValueId normal = b_.multiply(x, scale, x);
    return b_.multiply(b_.parameter(path + ".weight", {width}, "one"), normal, normal);
  }

  ValueId project(const std::string& path, ValueId x, std::int64_t in, std::int64_t out, bool biased,
                  const std::string& init = "normal") {
    b_.enter(path);
    const ValueId weight = b_.parameter(path + ".weight", {out, in}, init);
    return b_.linear(x, weight, biased ? b_.parameter(path + ".bias", {out}, "zero") : -1);
  }

  ValueId heads(const std::string& path, const std::string& which, ValueId x, std::int64_t count, bool normed) {
    const ValueId flat = project(path + "." + which + "_proj", x, c_.width, count * c_.depth, c_.query_bias);
    b_.enter(path);
    ValueId apart = b_.view(flat, {b_.batch(), Dim(c_.length), Dim(count), Dim(c_.depth)});
    if (normed) apart = norm(path + "." + which + "_norm", apart, c_.depth);
    b_.enter(path);
    return b_.transpose(apart, 1, 2);
  }

  /// Keys or values once for each head of queries. (batch, key heads, length, depth) -> (batch, heads, length, depth)
  ValueId repeat_heads(ValueId x) {
    if (c_.heads == c_.key_heads) return x;
    const ValueId apart = b_.unsqueeze(x, 2);
    const ValueId wide =
        b_.expand(apart, {b_.batch(), Dim(c_.key_heads), Dim(c_.heads / c_.key_heads), Dim(c_.length), Dim(c_.depth)});
    return b_.reshape(wide, {b_.batch(), Dim(c_.heads), Dim(c_.length), Dim(c_.depth)});
  }

  ValueId attention(const std::string& path, ValueId x, bool slides) {
    const ValueId query = heads(path, "q", x, c_.heads, c_.head_norms),
                  key = heads(path, "k", x, c_.key_heads, c_.head_norms),
                  value = heads(path, "v", x, c_.key_heads, false);
    const ValueId cosine = b_.unsqueeze(cosine_, 1), sine = b_.unsqueeze(sine_, 1);
    const ValueId turned_query = rotate(query, cosine, sine), turned_key = rotate(key, cosine, sine);
    AttentionOptions options;
    options.dropout = c_.attention_dropout;
    options.scale = 1 / std::sqrt(static_cast<double>(c_.depth));
    options.mask = slides ? mask_ : -1;
    // With a mask transformers repeats keys and values itself.
    options.grouped = options.mask < 0;
    const ValueId mixed = options.grouped
                              ? b_.attention(turned_query, turned_key, value, options)
                              : b_.attention(turned_query, repeat_heads(turned_key), repeat_heads(value), options);
    const ValueId joined =
        b_.reshape(b_.transpose(mixed, 1, 2), {b_.batch(), Dim(c_.length), Dim(c_.heads * c_.depth)});
    return project(path + ".o_proj", joined, c_.heads * c_.depth, c_.width, c_.output_bias, "residual");
  }

  ValueId mlp(const std::string& path, ValueId x) {
    const ValueId gate = project(path + ".gate_proj", x, c_.width, c_.inner, c_.mlp_bias);
    b_.enter(path + ".act_fn");
    const ValueId open = b_.activation(c_.activation, gate);
    const ValueId up = project(path + ".up_proj", x, c_.width, c_.inner, c_.mlp_bias);
    b_.enter(path);
    return project(path + ".down_proj", b_.multiply(open, up, up), c_.inner, c_.width, c_.mlp_bias, "residual");
  }

  ValueId feed(std::size_t layer, const std::string& path, ValueId x) {
    if (c_.experts.is_sparse.empty() || !c_.experts.is_sparse[layer]) return mlp(path, x);
    const MixtureOutputs mixture = build_mixture(b_, c_, path, x);
    router_logits_.push_back(mixture.logits);
    return mixture.hidden;
  }

  ValueId block(std::size_t layer, ValueId x) {
    const std::string path = "model.layers." + std::to_string(layer);
    const ValueId mixed =
        attention(path + ".self_attn", norm(path + ".input_layernorm", x, c_.width), c_.slides[layer]);
    b_.enter(path);
    x = b_.add(x, mixed, x);
    const ValueId fed = feed(layer, path + ".mlp", norm(path + ".post_attention_layernorm", x, c_.width));
    b_.enter(path);
    return b_.add(x, fed, x);
  }

  DecoderConfig c_;
  GraphBuilder b_;
  ValueId cosine_ = -1, sine_ = -1, mask_ = -1;
  std::vector<ValueId> router_logits_;
};

}  // namespace

std::vector<double> rotary_frequencies(const DecoderConfig& c) {
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

// Operator by operator as transformers writes it: true, and key > query - window, and key <= query; one for all heads.
ValueId sliding_window_mask(GraphBuilder& b, ValueId places, std::int64_t window) {
  const Dim length = b.dims(places).back();
  const std::vector<Dim> square{Dim(1), Dim(1), length, length};
  const auto compare = [&](std::string_view target, ValueId keys, ValueId queries) {
    return b.emit(target, {{"self", ValueRef{keys}}, {"other", ValueRef{queries}}}, square, DType::Bool);
  };
  const auto both = [&](ValueId x, ValueId y) { return compare("aten::__and__.Tensor", x, y); };
  const ValueId row = b.emit("aten::arange", {{"end", length}}, {length}, DType::Int64);
  const ValueId moved = b.emit_like("aten::add.Tensor", {{"self", ValueRef{row}}, {"other", Dim(0)}}, row);
  const ValueId keys = b.unsqueeze(b.unsqueeze(b.unsqueeze(moved, 0), 0), 0);
  const ValueId queries = b.unsqueeze(b.unsqueeze(places, 0), 3);
  const ValueId all =
      b.emit("aten::new_ones", {{"self", ValueRef{queries}}, {"size", std::vector<Dim>{}}, {"dtype", DType::Bool}}, {},
             DType::Bool);
  const ValueId starts =
      b.emit_like("aten::sub.Tensor", {{"self", ValueRef{queries}}, {"other", Dim(window)}}, queries);
  const ValueId recent = both(all, compare("aten::gt.Tensor", keys, starts));
  const ValueId seen = both(recent, compare("aten::le.Tensor", keys, queries));
  return b.expand(seen, {b.batch(), Dim(1), length, length});
}

Result<ModelGraph> build_decoder(const Json& config, std::int64_t sequence_length) {
  COX_TRY(DecoderConfig read, read_decoder_config(config, sequence_length));
  return Decoder(std::move(read)).build();
}

}  // namespace coxswain::model
