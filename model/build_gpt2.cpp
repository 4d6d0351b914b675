// GPT-2 as transformers writes it: pre-norm, learned positions, Conv1D (weights stored as (in, out)), one fused
// projection for query, key and value, the head tied to the token embedding.
#include <string>

#include "model/build_parts.h"

namespace coxswain::model {
namespace {

struct Gpt2Config {
  std::int64_t vocabulary, positions, width, layers, heads, inner, length;
  std::string activation;
  double residual_dropout, embedding_dropout, attention_dropout, epsilon, initializer_range;
  bool tied;
};

Result<Gpt2Config> read_config(const Json& json, std::int64_t sequence_length) {
  ConfigReader config(json);
  Gpt2Config c;
  c.vocabulary = config.size("vocab_size", 50257);
  c.positions = config.size("n_positions", 1024);
  c.width = config.size("n_embd", 768);
  c.layers = config.size("n_layer", 12);
  c.heads = config.size("n_head", 12);
  c.inner = config.size("n_inner", 4 * c.width);
  c.activation = read_activation(config, "activation_function", "gelu_new");
  c.residual_dropout = config.probability("resid_pdrop", 0.1);
  c.embedding_dropout = config.probability("embd_pdrop", 0.1);
  c.attention_dropout = config.probability("attn_pdrop", 0.1);
  c.epsilon = config.number("layer_norm_epsilon", 1e-5);
  c.initializer_range = config.number("initializer_range", 0.02);
  c.tied = config.flag("tie_word_embeddings", true);
  config.require_flag("add_cross_attention", false, false);
  config.divides("n_head", c.heads, "n_embd", c.width);
  c.length = read_length(config, "n_positions", c.positions, sequence_length);
  COX_TRY_VOID(config.finish());
  return c;
}

class Gpt2 {
 public:
  explicit Gpt2(Gpt2Config config) : c_(std::move(config)), b_("gpt2", c_.length, c_.initializer_range) {}

  Result<ModelGraph> build() {
    const ValueId tokens = b_.input("input_ids"), labels = b_.input("labels");
    const std::string root = "transformer";
    b_.enter(root + ".wte");
    const ValueId table =
        b_.parameter(root + ".wte.weight", {c_.vocabulary, c_.width}, "normal",
                     c_.tied ? std::vector<std::string>{"lm_head.weight"} : std::vector<std::string>{});
    const ValueId words = b_.embedding(table, tokens);
    b_.enter(root);
    const ValueId positions = b_.positions();
    b_.enter(root + ".wpe");
    const ValueId places =
        b_.embedding(b_.parameter(root + ".wpe.weight", {c_.positions, c_.width}, "normal"), positions);
    b_.enter(root);
    ValueId x = b_.add(words, places, words);
    b_.enter(root + ".drop");
    x = b_.dropout(x, c_.embedding_dropout);
    for (std::int64_t layer = 0; layer < c_.layers; ++layer) x = block(root + ".h." + std::to_string(layer), x);
    x = norm(root + ".ln_f", x);
    b_.enter("lm_head");
    const ValueId head = c_.tied ? table : b_.parameter("lm_head.weight", {c_.vocabulary, c_.width}, "normal");
    const ValueId logits = b_.linear(x, head);
    b_.enter("");
    return b_.finish(b_.next_token_loss(logits, labels));
  }

 private:
  ValueId norm(const std::string& path, ValueId x) {
    b_.enter(path);
    const ValueId weight = b_.parameter(path + ".weight", {c_.width}, "one"),
                  bias = b_.parameter(path + ".bias", {c_.width}, "zero");
    return b_.layer_norm(x, weight, bias, c_.epsilon);
  }

  ValueId project(const std::string& path, ValueId x, std::int64_t in, std::int64_t out, const std::string& init) {
    b_.enter(path);
    const ValueId weight = b_.parameter(path + ".weight", {in, out}, init),
                  bias = b_.parameter(path + ".bias", {out}, "zero");
    return b_.rows_linear(x, weight, bias);
  }

  ValueId heads(ValueId x) {
    return b_.transpose(b_.view(x, {b_.batch(), Dim(c_.length), Dim(c_.heads), Dim(c_.width / c_.heads)}), 1, 2);
  }

  ValueId attention(const std::string& path, ValueId x) {
    const ValueId fused = project(path + ".c_attn", x, c_.width, 3 * c_.width, "normal");
    b_.enter(path);
    const std::vector<ValueId> parts = b_.split(fused, c_.width);
    const ValueId key = heads(parts[1]), value = heads(parts[2]), query = heads(parts[0]);
    AttentionOptions options;
    options.dropout = c_.attention_dropout;
    const ValueId mixed = b_.transpose(b_.attention(query, key, value, options), 1, 2);
    const ValueId joined = b_.reshape(mixed, {b_.batch(), Dim(c_.length), Dim(c_.width)});
    const ValueId out = project(path + ".c_proj", joined, c_.width, c_.width, "residual");
    b_.enter(path + ".resid_dropout");
    return b_.dropout(out, c_.residual_dropout);
  }

  ValueId mlp(const std::string& path, ValueId x) {
    const ValueId wide = project(path + ".c_fc", x, c_.width, c_.inner, "normal");
    b_.enter(path + ".act");
    const ValueId active = b_.activation(c_.activation, wide);
    const ValueId out = project(path + ".c_proj", active, c_.inner, c_.width, "residual");
    b_.enter(path + ".dropout");
    return b_.dropout(out, c_.residual_dropout);
  }

  ValueId block(const std::string& path, ValueId x) {
    const ValueId mixed = attention(path + ".attn", norm(path + ".ln_1", x));
    b_.enter(path);
    x = b_.add(mixed, x, x);
    const ValueId fed = mlp(path + ".mlp", norm(path + ".ln_2", x));
    b_.enter(path);
    return b_.add(x, fed, x);
  }

  Gpt2Config c_;
  GraphBuilder b_;
};

}  // namespace

Result<ModelGraph> build_gpt2(const Json& config, std::int64_t sequence_length) {
  COX_TRY(Gpt2Config read, read_config(config, sequence_length));
  return Gpt2(std::move(read)).build();
}

}  // namespace coxswain::model
