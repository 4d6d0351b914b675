#pragma once
// From the archive's JSON to a raw ModelGraph: signature, values, operators with defaults, in-place operators and
// nested graphs rewritten, loss split into terms. Collects every problem before it gives up. Private to this folder.
// Threads: one at a time. Source: DESIGN 3.1, section 5; torch/_export/serde/schema.py of PyTorch 2.13 (schema 8.20).
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "model/archive.h"
#include "model/model_graph.h"
#include "model/pt2_alias.h"
#include "model/pt2_ops.h"
#include "model/schema.h"

namespace coxswain::model {

/// What the reader cannot take, each once, with how often and where it was met first.
class ProblemList {
 public:
  void add(Error error);
  [[nodiscard]] bool empty() const { return problems_.empty(); }
  [[nodiscard]] std::vector<Error> take();

 private:
  std::vector<Error> problems_;
  std::map<std::string, std::size_t> place_;
  std::vector<int> counts_;
};

/// A graph for finish_graph, and what it cannot know: values whose operator makes the loss depend on how the batch is
/// split.
struct RawModel {
  ModelGraph graph;
  std::vector<std::pair<ValueId, std::string>> coupled_losses;
};

class Pt2Reader {
 public:
  /// `root`: the folder inside the archive; `name`: the model's ("model").
  Pt2Reader(const Archive& archive, std::string root, std::string name)
      : archive_(archive), root_(std::move(root)), name_(std::move(name)), tensors_(graph_) {}

  /// Errors: DataLoss; InvalidArgument or Unimplemented with every problem.
  [[nodiscard]] Result<RawModel> read(const Json& document);

 private:
  /// Names of one (sub-)graph.
  struct Scope {
    const Json& graph;
    bool grad_enabled = true;
    std::map<std::string, TensorId> tensors;
    std::map<std::string, Dim> sizes;
    std::set<std::string> lost;  // results of operators that cannot run: what needs them is no problem of its own
  };
  struct Weight {
    WeightLocation location;
    std::vector<std::int64_t> dims;
    DType dtype = DType::Float32;
    bool trainable = false;
  };

  // pt2_signature.cpp
  Result<void> read_weights(const std::string& folder, const std::string& config);
  Result<Weight> read_weight(const std::string& folder, const std::string& name, const Json& entry) const;
  void find_batch_symbol(const Json& graph, const Json& specs);
  void read_inputs(const Json& specs, Scope& scope);
  void read_weight_input(const std::string& kind, const Json& spec, const std::string& value_name, Scope& scope);
  void read_user_input(const std::string& value_name, Scope& scope);

  // pt2_reader.cpp
  void make_names_unique();
  void read_sizes(Scope& scope);
  void read_graph(Scope& scope);
  void read_node(const Json& node, Scope& scope);
  void read_operator(const Json& node, const std::string& target, Scope& scope);
  void read_nested(const Json& node, const std::string& target, Scope& scope);
  bool drop_identity(const Json& node, const std::string& target, Scope& scope);
  void bind_outputs(const Json& node, const Op& op, Scope& scope);
  void stand_in_for_lost(const Json& node, Scope& scope);
  [[nodiscard]] std::optional<ValueId> make_value(const std::string& name, const Scope& scope);
  [[nodiscard]] std::optional<Dim> read_size(const Json& size);
  [[nodiscard]] std::optional<TensorId> first_tensor(const Json& node, const Scope& scope) const;
  [[nodiscard]] Origin origin_of(const Json& node, const Scope& scope) const;
  void problem(ErrorCode code, std::string message, const Json& node, std::string hint = "");

  // pt2_arguments.cpp
  [[nodiscard]] std::optional<Op> read_op(const Json& node, const std::string& target, Scope& scope);
  [[nodiscard]] Result<Argument::Variant> read_argument(const Json& argument, const SchemaArgument& schema,
                                                        Scope& scope);
  [[nodiscard]] Result<Argument::Variant> read_list(const std::string& kind, const Json& value,
                                                    const SchemaArgument& schema, Scope& scope);
  [[nodiscard]] Result<ValueRef> read_reference(const Json& name, Scope& scope);
  [[nodiscard]] Result<Dim> read_named_size(const Json& size, const Scope& scope) const;

  // pt2_in_place.cpp
  void read_in_place(const Json& node, const std::string& target, Scope& scope);
  [[nodiscard]] std::optional<ValueId> new_content(const Json& node, const std::string& target, ValueId self,
                                                   Scope& scope);
  [[nodiscard]] ValueId cast_and_expand(ValueId value, ValueId like, const Origin& origin);
  void check_written_buffers();

  const Archive& archive_;
  std::string root_, name_;
  ModelGraph graph_;
  AliasTracker tensors_;
  std::map<std::string, Weight> weights_;
  /// Entry, offset, sizes and strides -> parameter and its tensor: what is equal is tied.
  std::map<std::string, std::pair<std::size_t, TensorId>> parameter_of_storage_;
  std::string batch_name_;  // the archive's symbol for the batch
  ProblemList problems_;
};

/// Splits the scalar `loss` into terms (`graph.loss`), rewriting mean cross-entropies to a sum over a count. Returns
/// the values whose operator makes the loss depend on how the batch is split, with the reason.
std::vector<std::pair<ValueId, std::string>> split_loss(ModelGraph& graph, ValueId loss);

/// Writes the experts that transformers sorts into groups in the form without a sort (pt2_experts.cpp). Before
/// finish_graph, which drops what is left over.
void ungroup_experts(ModelGraph& graph);

/// Adds the operators that made these values to `graph.coupled`, each once. Requires: a finished graph.
void add_coupled_losses(ModelGraph& graph, const std::vector<std::pair<ValueId, std::string>>& losses);

/// torch's ScalarType number in the archive (its own enumeration) -> DType.
[[nodiscard]] std::optional<DType> dtype_of_code(std::int64_t code);
/// The elements of `json`, none when it is no array.
[[nodiscard]] const JsonArray& array_or_empty(const Json& json);
/// The string `json`, or "" when it is none.
[[nodiscard]] std::string text_or_empty(const Json& json);
/// The one member of a union ({"as_int": 3} -> "as_int", 3); ("", null) when there is not exactly one.
[[nodiscard]] std::pair<std::string, const Json*> union_member(const Json& json);

}  // namespace coxswain::model
