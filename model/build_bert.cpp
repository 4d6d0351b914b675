// BERT with its masked-language-model head as transformers writes it: post-norm, learned positions, token types, a
// padding mask given as an input, the head tied to the word embedding. Labels are not moved; -100 is ignored.
#include <string>
#include <vector>

#include "model/build_parts.h"

namespace coxswain::model {
namespace {

struct BertConfig {
  std::int64_t vocabulary, positions, types, width, layers, heads, inner, length, padding;
  std::string activation;
  double dropout, attention_dropout, epsilon, initializer_range;
  bool tied;
};

Result<BertConfig> read_config(const Json& json, std::int64_t sequence_length) {
  ConfigReader config(json);
  BertConfig c;
  c.vocabulary = config.size("vocab_size", 30522);
  c.positions = config.size("max_position_embeddings", 512);
  c.types = config.size("type_vocab_size", 2);
  c.width = config.size("hidden_size", 768);
  c.layers = config.size("num_hidden_layers", 12);
  c.heads = config.size("num_attention_heads", 12);
  c.inner = config.size("intermediate_size", 3072);
  const Json& padding = config.member("pad_token_id");
  c.padding = padding.is_integer() ? padding.integer() : config.has("pad_token_id") ? -1 : 0;
  c.activation = read_activation(config, "hidden_act", "gelu");
  c.dropout = config.probability("hidden_dropout_prob", 0.1);
  c.attention_dropout = config.probability("attention_probs_dropout_prob", 0.1);
  c.epsilon = config.number("layer_norm_eps", 1e-12);
  c.initializer_range = config.number("initializer_range", 0.02);
  c.tied = config.flag("tie_word_embeddings", true);
  config.require_flag("is_decoder", false, false);
  config.require_flag("add_cross_attention", false, false);
  if (const std::string kind = config.text("position_embedding_type", "absolute"); kind != "absolute")
    config.problem(ErrorCode::Unimplemented, "positions that this version cannot build; export the model instead",
                   "position_embedding_type", "absolute", kind);
  config.divides("num_attention_heads", c.heads, "hidden_size", c.width);
  c.length = read_length(config, "max_position_embeddings", c.positions, sequence_length);
  COX_TRY_VOID(config.finish());
  return c;
}

class Bert {
 public:
  explicit Bert(BertConfig config) : c_(std::move(config)), b_("bert", c_.length, c_.initializer_range) {}

  Result<ModelGraph> build() {
    const ValueId tokens = b_.input("input_ids"), padding = b_.input("attention_mask"),
                  types = b_.input("token_type_ids"), labels = b_.input("labels");
    ValueId x = embeddings(tokens, types);
    mask_ = padding_mask(padding);
    for (std::int64_t layer = 0; layer < c_.layers; ++layer)
      x = block("bert.encoder.layer." + std::to_string(layer), x);
    const ValueId logits = head(x);
    b_.enter("");
    const ValueId flat = b_.view(logits, {b_.rows(), Dim(c_.vocabulary)});
    return b_.finish(b_.cross_entropy(flat, b_.view(labels, {b_.rows()})));
  }

 private:
  ValueId table(const std::string& name, std::int64_t rows, std::vector<std::string> tied = {}) {
    const std::string path = "bert.embeddings." + name;
    b_.enter(path);
    return b_.parameter(path + ".weight", {rows, c_.width}, "normal", std::move(tied));
  }

  ValueId embeddings(ValueId tokens, ValueId types) {
    const std::string root = "bert.embeddings";
    std::vector<double> places;
    for (std::int64_t i = 0; i < c_.positions; ++i) places.push_back(static_cast<double>(i));
    b_.enter(root);
    const ValueId all = b_.buffer(root + ".position_ids", std::move(places), {1, c_.positions}, DType::Int64);
    const ValueId used = b_.slice(all, 1, 0, c_.length);
    words_ = table("word_embeddings", c_.vocabulary,
                   c_.tied ? std::vector<std::string>{"cls.predictions.decoder.weight"} : std::vector<std::string>{});
    const ValueId words = b_.embedding(words_, tokens, c_.padding);
    const ValueId kinds = b_.embedding(table("token_type_embeddings", c_.types), types);
    b_.enter(root);
    const ValueId meant = b_.add(words, kinds, words);
    const ValueId placed = b_.embedding(table("position_embeddings", c_.positions), used);
    b_.enter(root);
    const ValueId sum = b_.add(meant, placed, meant);
    const ValueId normal = norm(root + ".LayerNorm", sum);
    b_.enter(root + ".dropout");
    return b_.dropout(normal, c_.dropout);
  }

  /// 0 where a token may be seen, the least float where not: (batch, 1, length, length).
  ValueId padding_mask(ValueId padding) {
    b_.enter("bert");
    const ValueId row = b_.unsqueeze(b_.unsqueeze(padding, 1), 2);
    const ValueId square = b_.expand(row, {b_.batch(), Dim(1), Dim(c_.length), Dim(c_.length)});
    const ValueId seen = b_.convert(square, DType::Float32);
    const ValueId hidden = b_.emit_like("aten::rsub.Scalar", {{"self", ValueRef{seen}}, {"other", 1.0}}, seen);
    const ValueId where = b_.convert(hidden, DType::Bool);
    return b_.emit_like("aten::masked_fill.Scalar",
                        {{"self", ValueRef{hidden}}, {"mask", ValueRef{where}}, {"value", kLeastFloat}}, hidden);
  }

  ValueId norm(const std::string& path, ValueId x) {
    b_.enter(path);
    const ValueId weight = b_.parameter(path + ".weight", {c_.width}, "one"),
                  bias = b_.parameter(path + ".bias", {c_.width}, "zero");
    return b_.layer_norm(x, weight, bias, c_.epsilon);
  }

  ValueId project(const std::string& path, ValueId x, std::int64_t in, std::int64_t out,
                  const std::string& init = "normal") {
    b_.enter(path);
    const ValueId weight = b_.parameter(path + ".weight", {out, in}, init),
                  bias = b_.parameter(path + ".bias", {out}, "zero");
    return b_.linear(x, weight, bias);
  }

  ValueId heads(const std::string& path, const std::string& which, ValueId x) {
    const ValueId flat = project(path + "." + which, x, c_.width, c_.width);
    b_.enter(path);
    return b_.transpose(b_.view(flat, {b_.batch(), Dim(c_.length), Dim(c_.heads), Dim(c_.width / c_.heads)}), 1, 2);
  }

  /// Projection, dropout, residual, norm.
  ValueId close(const std::string& path, ValueId x, std::int64_t in, ValueId residual) {
    const ValueId out = project(path + ".dense", x, in, c_.width, "residual");
    b_.enter(path + ".dropout");
    const ValueId dropped = b_.dropout(out, c_.dropout);
    b_.enter(path);
    return norm(path + ".LayerNorm", b_.add(dropped, residual, residual));
  }

  ValueId block(const std::string& path, ValueId x) {
    const std::string self = path + ".attention.self";
    const ValueId query = heads(self, "query", x), key = heads(self, "key", x), value = heads(self, "value", x);
    AttentionOptions options;
    options.dropout = c_.attention_dropout;
    options.mask = mask_;
    const ValueId mixed = b_.transpose(b_.attention(query, key, value, options), 1, 2);
    const ValueId joined = b_.reshape(mixed, {b_.batch(), Dim(c_.length), Dim(c_.width)});
    x = close(path + ".attention.output", joined, c_.width, x);
    const ValueId wide = project(path + ".intermediate.dense", x, c_.width, c_.inner);
    b_.enter(path + ".intermediate.intermediate_act_fn");
    return close(path + ".output", b_.activation(c_.activation, wide), c_.inner, x);
  }

  ValueId head(ValueId x) {
    const std::string root = "cls.predictions";
    const ValueId bias = b_.parameter(root + ".bias", {c_.vocabulary}, "zero", {root + ".decoder.bias"});
    const ValueId dense = project(root + ".transform.dense", x, c_.width, c_.width);
    b_.enter(root + ".transform.transform_act_fn");
    const ValueId normal = norm(root + ".transform.LayerNorm", b_.activation(c_.activation, dense));
    b_.enter(root + ".decoder");
    const ValueId weight =
        c_.tied ? words_ : b_.parameter(root + ".decoder.weight", {c_.vocabulary, c_.width}, "normal");
    return b_.linear(normal, weight, bias);
  }

  static constexpr double kLeastFloat = -3.4028234663852886e+38;

  BertConfig c_;
  GraphBuilder b_;
  ValueId words_ = -1, mask_ = -1;
};

}  // namespace

Result<ModelGraph> build_bert(const Json& config, std::int64_t sequence_length) {
  COX_TRY(BertConfig read, read_config(config, sequence_length));
  return Bert(std::move(read)).build();
}

}  // namespace coxswain::model
