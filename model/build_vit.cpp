// Vision transformer with its classification head as transformers writes it: a convolution cuts the image into patches,
// a class token stands before them, pre-norm blocks, the class token's last state is classified.
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "model/build_parts.h"

namespace coxswain::model {
namespace {

struct VitConfig {
  std::array<std::int64_t, 2> image, patch;  // height, width
  std::int64_t channels, width, layers, heads, inner, labels;
  std::string activation;
  double dropout, attention_dropout, epsilon, initializer_range;
  bool query_bias;

  [[nodiscard]] std::int64_t patches() const { return (image[0] / patch[0]) * (image[1] / patch[1]); }
};

/// One number, or [height, width].
std::array<std::int64_t, 2> read_pair(ConfigReader& config, const std::string& key, std::int64_t otherwise) {
  const Json& json = config.member(key);
  if (!json.is_array()) {
    const std::int64_t side = config.size(key, otherwise);
    return {side, side};
  }
  const JsonArray& sides = json.array();
  const auto good = [](const Json& side) { return side.is_integer() && side.integer() >= 1; };
  if (sides.size() == 2 && good(sides[0]) && good(sides[1])) return {sides[0].integer(), sides[1].integer()};
  config.problem(ErrorCode::InvalidArgument, "bad size in the model configuration", key,
                 "an integer of at least 1, or [height, width]", to_text(json));
  return {otherwise, otherwise};
}

/// `num_labels`, or as many as `id2label` names; two without either, as in transformers.
std::int64_t read_num_labels(ConfigReader& config) {
  constexpr std::int64_t kLabels = 2;
  const Json& names = config.member("id2label");
  if (names.is_object() && !names.object().empty()) return static_cast<std::int64_t>(names.object().size());
  return config.size("num_labels", kLabels);
}

Result<VitConfig> read_config(const Json& json, std::int64_t sequence_length) {
  ConfigReader config(json);
  VitConfig c;
  c.image = read_pair(config, "image_size", 224);
  c.patch = read_pair(config, "patch_size", 16);
  c.channels = config.size("num_channels", 3);
  c.width = config.size("hidden_size", 768);
  c.layers = config.size("num_hidden_layers", 12);
  c.heads = config.size("num_attention_heads", 12);
  c.inner = config.size("intermediate_size", 3072);
  c.labels = read_num_labels(config);
  c.activation = read_activation(config, "hidden_act", "gelu");
  c.dropout = config.probability("hidden_dropout_prob", 0.0);
  c.attention_dropout = config.probability("attention_probs_dropout_prob", 0.0);
  c.epsilon = config.number("layer_norm_eps", 1e-12);
  c.initializer_range = config.number("initializer_range", 0.02);
  c.query_bias = config.flag("qkv_bias", true);
  const std::string problem = config.text("problem_type", "single_label_classification");
  if (problem != "single_label_classification" || c.labels < 2)
    config.problem(ErrorCode::Unimplemented, "a loss that this version cannot build; export the model instead",
                   c.labels < 2 ? "num_labels" : "problem_type", "single_label_classification of two labels or more",
                   c.labels < 2 ? std::to_string(c.labels) : problem);
  config.divides("num_attention_heads", c.heads, "hidden_size", c.width);
  for (std::size_t side = 0; side < 2; ++side)
    if (c.patch[side] > c.image[side])
      config.problem(ErrorCode::InvalidArgument, "the patch is larger than the image", "patch_size",
                     "at most " + std::to_string(c.image[side]), std::to_string(c.patch[side]));
  if (sequence_length != 0 && sequence_length != c.patches() + 1)
    config.problem(ErrorCode::InvalidArgument, "the image sets the sequence length", "sequence_length",
                   std::to_string(c.patches() + 1) + " or none", std::to_string(sequence_length));
  COX_TRY_VOID(config.finish());
  return c;
}

class Vit {
 public:
  explicit Vit(VitConfig config) : c_(std::move(config)), b_("vit", c_.patches() + 1, c_.initializer_range) {}

  Result<ModelGraph> build() {
    const ValueId pixels =
        b_.input("pixel_values", {b_.batch(), Dim(c_.channels), Dim(c_.image[0]), Dim(c_.image[1])}, DType::Float32);
    const ValueId labels = b_.input("labels", {b_.batch()}, DType::Int64);
    ValueId x = embeddings(pixels);
    for (std::int64_t layer = 0; layer < c_.layers; ++layer) x = block("vit.encoder.layer." + std::to_string(layer), x);
    x = norm("vit.layernorm", x);
    b_.enter("");
    const ValueId first = b_.select(x, 1, 0);
    const ValueId logits = project("classifier", first, c_.width, c_.labels, true);
    b_.enter("");
    const ValueId flat = b_.view(logits, {b_.batch(), Dim(c_.labels)});
    return b_.finish(b_.cross_entropy(flat, b_.view(labels, {b_.batch()})));
  }

 private:
  ValueId embeddings(ValueId pixels) {
    const std::string root = "vit.embeddings", path = root + ".patch_embeddings.projection";
    const ValueId token = b_.parameter(root + ".cls_token", {1, 1, c_.width}, "normal"),
                  places = b_.parameter(root + ".position_embeddings", {1, b_.length(), c_.width}, "normal");
    b_.enter(path);
    const ValueId weight = b_.parameter(path + ".weight", {c_.width, c_.channels, c_.patch[0], c_.patch[1]}, "normal");
    const ValueId bias = b_.parameter(path + ".bias", {c_.width}, "zero");
    const std::vector<Dim> step{Dim(c_.patch[0]), Dim(c_.patch[1])};
    const Dim rows(c_.image[0] / c_.patch[0]), columns(c_.image[1] / c_.patch[1]);
    const ValueId grid =
        b_.emit("aten::conv2d",
                {{"input", ValueRef{pixels}}, {"weight", ValueRef{weight}}, {"bias", ValueRef{bias}}, {"stride", step}},
                {b_.batch(), Dim(c_.width), rows, columns});
    b_.enter(root + ".patch_embeddings");
    const ValueId line = b_.emit("aten::flatten.using_ints", {{"self", ValueRef{grid}}, {"start_dim", Dim(2)}},
                                 {b_.batch(), Dim(c_.width), Dim(c_.patches())});
    const ValueId patches = b_.transpose(line, 1, 2);
    b_.enter(root);
    const ValueId tokens = b_.expand(token, {b_.batch(), Dim(1), Dim(c_.width)});
    const ValueId all = b_.concatenate({tokens, patches}, 1);
    const ValueId placed = b_.add(all, places, all);
    b_.enter(root + ".dropout");
    return b_.dropout(placed, c_.dropout);
  }

  ValueId norm(const std::string& path, ValueId x) {
    b_.enter(path);
    const ValueId weight = b_.parameter(path + ".weight", {c_.width}, "one"),
                  bias = b_.parameter(path + ".bias", {c_.width}, "zero");
    return b_.layer_norm(x, weight, bias, c_.epsilon);
  }

  ValueId project(const std::string& path, ValueId x, std::int64_t in, std::int64_t out, bool biased,
                  const std::string& init = "normal") {
    b_.enter(path);
    const ValueId weight = b_.parameter(path + ".weight", {out, in}, init);
    return b_.linear(x, weight, biased ? b_.parameter(path + ".bias", {out}, "zero") : -1);
  }

  ValueId heads(const std::string& path, const std::string& which, ValueId x) {
    const ValueId flat = project(path + "." + which, x, c_.width, c_.width, c_.query_bias);
    b_.enter(path);
    return b_.transpose(b_.view(flat, {b_.batch(), Dim(b_.length()), Dim(c_.heads), Dim(c_.width / c_.heads)}), 1, 2);
  }

  ValueId attention(const std::string& path, ValueId x) {
    const std::string self = path + ".attention";
    const ValueId key = heads(self, "key", x), value = heads(self, "value", x), query = heads(self, "query", x);
    AttentionOptions options;
    options.dropout = c_.attention_dropout;
    options.scale = 1 / std::sqrt(static_cast<double>(c_.width / c_.heads));
    options.causal = false;
    const ValueId mixed = b_.transpose(b_.attention(query, key, value, options), 1, 2);
    const ValueId joined = b_.reshape(mixed, {b_.batch(), Dim(b_.length()), Dim(c_.width)});
    const ValueId out = project(path + ".output.dense", joined, c_.width, c_.width, true, "residual");
    b_.enter(path + ".output.dropout");
    return b_.dropout(out, c_.dropout);
  }

  ValueId block(const std::string& path, ValueId x) {
    const ValueId mixed = attention(path + ".attention", norm(path + ".layernorm_before", x));
    b_.enter(path);
    x = b_.add(mixed, x, x);
    const ValueId wide =
        project(path + ".intermediate.dense", norm(path + ".layernorm_after", x), c_.width, c_.inner, true);
    b_.enter(path + ".intermediate.intermediate_act_fn");
    const ValueId active = b_.activation(c_.activation, wide);
    const ValueId out = project(path + ".output.dense", active, c_.inner, c_.width, true, "residual");
    b_.enter(path + ".output.dropout");
    const ValueId fed = b_.dropout(out, c_.dropout);
    b_.enter(path + ".output");
    return b_.add(fed, x, x);
  }

  VitConfig c_;
  GraphBuilder b_;
};

}  // namespace

Result<ModelGraph> build_vit(const Json& config, std::int64_t sequence_length) {
  COX_TRY(VitConfig read, read_config(config, sequence_length));
  return Vit(std::move(read)).build();
}

}  // namespace coxswain::model
