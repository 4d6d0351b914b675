#pragma once
// The training step of one model as ATen operators, forward only, loss included: what is read from a .pt2 archive or
// built from a Hugging Face config, and what everything after (cost, plan, engine) works on.
// Blocks are contiguous runs of `ops`: 0 = prologue (may be empty), then one per repeated module, last = epilogue.
// Threads: immutable after loading. Source: DESIGN 3.1.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "common/dtype.h"
#include "common/result.h"
#include "model/dim.h"

namespace coxswain::model {

using ValueId = int;
using OpId = int;

/// One tensor. Shapes may name symbols.
struct Value {
  std::string name;
  std::vector<Dim> dims;
  DType dtype = DType::Float32;
  /// Influenced by a trainable parameter (so it carries a gradient if floating point).
  bool depends_on_parameter = false;
  bool requires_grad = false;
  OpId producer = -1;  // -1: parameter, buffer or input
};

struct None {
  friend bool operator==(None, None) = default;
};
/// Layout, device and memory format arguments of factories; the engine supplies its own.
struct Ignored {
  friend bool operator==(Ignored, Ignored) = default;
};
struct ValueRef {
  ValueId id = -1;
  friend bool operator==(ValueRef, ValueRef) = default;
};

/// One argument of an operator, in schema order; defaults are filled in.
struct Argument {
  using Variant = std::variant<None, Ignored, ValueRef, std::vector<std::optional<ValueRef>>, Dim, std::vector<Dim>,
                               double, std::vector<double>, bool, std::vector<bool>, std::string, DType>;
  std::string name;
  Variant value;
};

struct Op {
  std::string target;  // name and overload: "aten::linear", "aten::add.Tensor"
  std::vector<Argument> arguments;
  std::vector<ValueId> outputs;  // -1 for an output nobody uses
  std::string module_path;       // "model.layers.3.mlp"
  std::string source;            // "modeling_gpt2.py:210", may be empty
  bool grad_enabled = true;      // false inside a no_grad region
};

/// Where the elements of a parameter or buffer lie in the model file.
struct WeightLocation {
  std::string entry;                // archive entry
  std::int64_t file_offset = 0;     // of the entry's first byte in the file (stored entries)
  std::int64_t storage_offset = 0;  // elements
  std::vector<std::int64_t> strides;
};

struct Parameter {
  std::string name;  // fully qualified
  ValueId value = -1;
  std::vector<std::int64_t> dims;
  DType dtype = DType::Float32;
  bool trainable = true;
  /// Parameters of one tie group are one tensor: they have one `value`; later names are listed here.
  std::vector<std::string> tied_names;
  std::optional<WeightLocation> weights;  // absent for a model from a configuration
  /// How to draw it without weights: "normal", "residual" (normal / sqrt(2 layers)), "zero", "one".
  std::string init = "normal";
};

/// Persistent or constant tensor that no gradient reaches.
struct Buffer {
  std::string name;
  ValueId value = -1;
  std::vector<std::int64_t> dims;
  DType dtype = DType::Float32;
  std::optional<WeightLocation> weights;
  std::optional<std::vector<double>> content;  // small constants of a builder
};

struct Input {
  std::string name;
  ValueId value = -1;
  int sample_dim = 0;  // the dim that is `batch`
};

/// loss = sum of coefficient x numerator / denominator. `numerator` is a sum over the samples at hand, `denominator`
/// (a scalar that depends on inputs alone) is summed over the global batch. No denominator: the numerator is a mean
/// over samples and is weighted by samples / global batch.
struct LossTerm {
  double coefficient = 1.0;
  ValueId numerator = -1;
  std::optional<ValueId> denominator;
};

struct Block {
  std::string name;  // module path, "prologue", "epilogue"
  OpId first_op = 0, end_op = 0;
  std::string signature;  // equal for blocks of equal work (structure, shapes, dtypes); sha256 prefix
};

/// A value without samples that is linear in them. Of parts of the batch: their mean weighted by samples, or their sum.
struct BatchSum {
  ValueId value = -1;
  bool mean = false;
  friend bool operator==(const BatchSum&, const BatchSum&) = default;
};

/// An operator whose result mixes samples (batch norm, in-batch losses); splitting the batch changes it.
struct CoupledOp {
  OpId op = -1;
  std::string reason;
  /// What it reads of all samples, made in its block: with these put together over the parts of a batch that is split,
  /// each part has the whole's result. Empty: nothing helps.
  std::vector<BatchSum> sums = {};
};

struct ModelGraph {
  std::string name;
  std::string source_file;             // .pt2, or empty for a configuration
  std::string batch_symbol = "batch";  // empty: the batch is static
  std::int64_t static_batch = 0;       // when batch_symbol is empty
  std::vector<Value> values;
  std::vector<Op> ops;  // topological; blocks are contiguous
  std::vector<Parameter> parameters;
  std::vector<Buffer> buffers;
  std::vector<Input> inputs;
  std::vector<LossTerm> loss;
  std::vector<Block> blocks;
  std::vector<CoupledOp> coupled;
  /// Remarks for people ("the repeated modules interleave: no cuts"); not part of the hash.
  std::vector<std::string> notes;
  /// Repeated layers' initialisation scale for a model without weights.
  double initializer_range = 0.02;

  [[nodiscard]] int num_blocks() const { return static_cast<int>(blocks.size()); }
};

/// What one stage (blocks [first, end)) needs and gives. Values that no parameter influences are recomputed on the
/// stage from inputs and constants, never sent.
struct StageSlice {
  std::vector<OpId> ops;          // in order; parameter-free producers from outside the blocks come first
  std::vector<ValueId> received;  // live values cut at `first`, in value order
  std::vector<ValueId> sent;      // live values cut at `end`
  std::vector<int> parameters;    // indices into graph.parameters (a tied one occurs in several stages)
  std::vector<int> buffers;
  std::vector<int> inputs;
  bool has_loss = false;
};
[[nodiscard]] StageSlice slice_stage(const ModelGraph& graph, int first_block, int end_block);

/// Stages (by cut indices) that use parameter `p`: the first one owns it.
[[nodiscard]] std::vector<int> blocks_using(const ModelGraph& graph, int parameter);

/// Canonical hash of the graph without weights and file names: sha256 hex.
[[nodiscard]] std::string model_hash(const ModelGraph& graph);

/// Number of elements with `batch` bound to `samples`.
[[nodiscard]] std::int64_t num_elements(const ModelGraph& graph, ValueId value, std::int64_t samples);
[[nodiscard]] Bytes value_bytes(const ModelGraph& graph, ValueId value, std::int64_t samples);

}  // namespace coxswain::model
