#pragma once
// What the builders of model families share: strict reading of a Hugging Face config.json, and operators written as the
// exporter records them. Private to this folder. Threads: one at a time.
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "model/model_graph.h"
#include "model/pt2_ops.h"

namespace coxswain::model {

/// Reads members with Hugging Face's defaults; collects every problem.
class ConfigReader {
 public:
  explicit ConfigReader(const Json& config) : config_(config) {}
  [[nodiscard]] std::int64_t size(const std::string& key, std::int64_t otherwise);  // at least 1
  [[nodiscard]] std::optional<std::int64_t> optional_size(const std::string& key);
  [[nodiscard]] double number(const std::string& key, double otherwise);
  [[nodiscard]] double probability(const std::string& key, double otherwise);
  [[nodiscard]] bool flag(const std::string& key, bool otherwise);
  [[nodiscard]] std::string text(const std::string& key, const std::string& otherwise);
  [[nodiscard]] const Json& member(const std::string& key) const { return config_[key]; }
  /// The member is there, perhaps null.
  [[nodiscard]] bool has(const std::string& key) const;
  /// `what` must be `expected`; this version builds nothing else.
  void require_flag(const std::string& key, bool expected, bool otherwise);
  void divides(const std::string& divisor_key, std::int64_t divisor, const std::string& key, std::int64_t value);
  void problem(ErrorCode code, std::string message, const std::string& key, std::string expected, std::string got);
  [[nodiscard]] Result<void> finish();

 private:
  const Json& config_;
  std::vector<Error> problems_;
};

struct AttentionOptions {
  double dropout = 0;
  std::optional<double> scale;  // absent: 1 / sqrt(depth)
  bool grouped = false;         // fewer heads of keys and values than of queries
  bool causal = true;
  ValueId mask = -1;  // excludes `causal`
};

/// A graph over samples of `length` tokens under construction. Methods append one operator and return its output.
class GraphBuilder {
 public:
  GraphBuilder(std::string name, std::int64_t length, double initializer_range);

  /// Module path of the operators that follow.
  void enter(std::string module_path) { origin_.module_path = std::move(module_path); }
  void set_grad(bool enabled) { origin_.grad_enabled = enabled; }

  ValueId parameter(const std::string& name, std::vector<std::int64_t> dims, const std::string& init,
                    std::vector<std::string> tied_names = {});
  ValueId buffer(const std::string& name, std::vector<double> content, std::vector<std::int64_t> dims,
                 DType dtype = DType::Float32);
  ValueId input(const std::string& name);  // int64 (batch, length)
  ValueId input(const std::string& name, std::vector<Dim> dims, DType dtype);

  ValueId emit(std::string_view target, NamedArguments given, std::vector<Dim> dims, DType dtype = DType::Float32);
  /// Output like `like`.
  ValueId emit_like(std::string_view target, NamedArguments given, ValueId like);
  /// One output per (dims, dtype).
  std::vector<ValueId> emit_several(std::string_view target, NamedArguments given,
                                    const std::vector<std::pair<std::vector<Dim>, DType>>& outputs);
  ValueId add(ValueId a, ValueId b, ValueId like) {
    return emit_like("aten::add.Tensor", {{"self", ValueRef{a}}, {"other", ValueRef{b}}}, like);
  }
  ValueId multiply(ValueId a, ValueId b, ValueId like) {
    return emit_like("aten::mul.Tensor", {{"self", ValueRef{a}}, {"other", ValueRef{b}}}, like);
  }
  ValueId multiply(ValueId a, double factor) {
    return emit_like("aten::mul.Tensor", {{"self", ValueRef{a}}, {"other", factor}}, a);
  }
  ValueId add(ValueId a, double term) {
    return emit_like("aten::add.Tensor", {{"self", ValueRef{a}}, {"other", term}}, a);
  }
  ValueId dropout(ValueId x, double probability);
  ValueId view(ValueId x, std::vector<Dim> dims);
  ValueId reshape(ValueId x, std::vector<Dim> dims);
  ValueId expand(ValueId x, std::vector<Dim> dims);
  ValueId transpose(ValueId x, int a, int b);
  ValueId unsqueeze(ValueId x, int dim);
  ValueId squeeze(ValueId x, int dim);
  ValueId slice(ValueId x, int dim, std::int64_t start, std::int64_t end);  // end: exclusive, in elements
  ValueId select(ValueId x, int dim, std::int64_t index);
  ValueId concatenate(const std::vector<ValueId>& parts, int dim);
  ValueId convert(ValueId x, DType dtype);
  ValueId embedding(ValueId weight, ValueId indices, std::int64_t padding = -1);
  ValueId linear(ValueId x, ValueId weight, ValueId bias = -1);
  /// x (.., in), weight (in, out): views to rows, `addmm`, view back, as transformers' Conv1D does.
  ValueId rows_linear(ValueId x, ValueId weight, ValueId bias);
  ValueId layer_norm(ValueId x, ValueId weight, ValueId bias, double epsilon);
  ValueId attention(ValueId query, ValueId key, ValueId value, const AttentionOptions& options);
  /// Of config's activation name; unknown names were refused by `is_known_activation`.
  ValueId activation(const std::string& name, ValueId x);
  std::vector<ValueId> split(ValueId x, std::int64_t size);
  ValueId positions();  // int64 (1, length)

  /// Mean cross-entropy of the logits (rows, classes) against the labels (rows); label -100 is ignored.
  ValueId cross_entropy(ValueId logits, ValueId labels);
  /// Mean cross-entropy of the logits (batch, length, vocabulary) against the labels moved by one.
  ValueId next_token_loss(ValueId logits, ValueId labels);
  /// The finished graph of this loss.
  [[nodiscard]] Result<ModelGraph> finish(ValueId loss);

  [[nodiscard]] const Dim& batch() const { return batch_; }
  [[nodiscard]] Dim rows() const { return Dim(length_) * batch_; }
  [[nodiscard]] std::int64_t length() const { return length_; }
  [[nodiscard]] const std::vector<Dim>& dims(ValueId value) const { return graph_.values[value].dims; }

 private:
  [[nodiscard]] std::string next_name();

  ModelGraph graph_;
  Dim batch_;
  std::int64_t length_;
  Origin origin_;
};

[[nodiscard]] const std::vector<std::string>& known_activations();
/// A known one of config's `key`; a problem otherwise.
[[nodiscard]] std::string read_activation(ConfigReader& config, const std::string& key, const std::string& otherwise);
/// Requested length, or the maximum; a problem when it is longer.
[[nodiscard]] std::int64_t read_length(ConfigReader& config, const std::string& maximum_key, std::int64_t maximum,
                                       std::int64_t requested);

[[nodiscard]] Result<ModelGraph> build_gpt2(const Json& config, std::int64_t sequence_length);
[[nodiscard]] Result<ModelGraph> build_decoder(const Json& config, std::int64_t sequence_length);
[[nodiscard]] Result<ModelGraph> build_bert(const Json& config, std::int64_t sequence_length);
[[nodiscard]] Result<ModelGraph> build_vit(const Json& config, std::int64_t sequence_length);

}  // namespace coxswain::model
