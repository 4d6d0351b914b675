#pragma once
// Sharding rules: what may be split of an ATen operator, as data. Each dim of each tensor is named by factors; a factor
// that stands in several dims is split in all of them at once, and everything else follows:
//   tensor with the factor      Shard(factor): its part of that dim
//   input without it            Replicate; Partial(sum) where it is `added` (a bias beside a summed factor)
//   output without it           Partial(sum | max)
//   gradient                    the dual: Shard(factor) for Shard(factor), Partial(sum) for Replicate, Replicate for
//                               Partial(sum); the local operator's own backward computes it from the dual of its
//                               outputs
//   saved for backward          model::saved_arguments(target): each with the placement of the tensor that it names
// An operator without a rule, or whose arguments the rule does not take, is replicated, never guessed.
// Called by the planner to search and by the engine to lower. Threads: pure. Source: DESIGN 3.7, docs/sharding.md.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/model_graph.h"

namespace coxswain::plan {

enum class RuleFamily {
  Pointwise,
  Matmul,
  Attention,
  Reduction,
  Normalisation,
  Loss,  // and softmax
  View,
  Index,
  Convolution,  // and pooling
  Factory
};
[[nodiscard]] std::string_view to_text(RuleFamily family);

enum class FactorKind {
  Free,   // parts are independent
  Sum,    // outputs without it are Partial(sum)
  Max,    // outputs without it are Partial(max); no gradient may be asked of them
  Whole,  // must not be split
};
/// How an operator runs on a part, beyond its arguments.
enum class PartForm {
  Plain,
  Scaled,  // floating-point outputs times part / whole (a mean)
  Masked,  // `index` minus the part's first, clamped to the part; where it lay outside, outputs are 0
};

struct Factor {
  std::string name;
  std::int64_t size = 1;
  FactorKind kind = FactorKind::Whole;
  PartForm form = PartForm::Plain;
  int index = -1;           // Masked: the input that holds the indices
  bool contiguous = false;  // parts are runs [first, first + size) of the factor; else any equal subset on all tensors
};

struct TensorFactors {
  int argument = -1;  // of op.arguments; an output: of op.outputs
  int element = -1;   // of a list of tensors
  model::ValueId value = -1;
  std::vector<std::vector<int>> dims;  // factors of each dim, outermost first; none: one row, or read by all
  bool added = false;                  // Partial(sum) where a summed factor that it does not hold is split
};

/// An integer of op.arguments that follows the parts: constant + coefficient x (product of the factors' local sizes);
/// or, where `from` is set, x (first row of the part of the single factor, or the row behind its last).
struct Rewrite {
  int argument = -1;
  int element = -1;  // of a list of integers
  std::int64_t constant = 0, coefficient = 1;
  std::vector<int> factors;
  enum class From { Size, First, End } from = From::Size;
};

/// A rule on one operator's shapes.
struct OpFactors {
  std::vector<Factor> factors;
  std::vector<TensorFactors> inputs, outputs;
  /// Groups of inputs (indices into `inputs`) in which the operator is linear: where all of one are Partial(sum) and
  /// the others Replicate, the outputs are Partial(sum).
  std::vector<std::vector<int>> linear;
  std::vector<Rewrite> rewrites;
};

struct ShardRule;
class OpReader;
using RuleBinder = std::optional<OpFactors> (*)(const OpReader& op, const ShardRule& rule);

/// `notation`: "[b.. i], [o i], [o]? -> [b.. o]; sum i; add bias; linear input+bias, weight+bias": docs/sharding.md.
struct ShardRule {
  std::string_view target;  // without overload: every overload that has no line of its own
  RuleFamily family = RuleFamily::Pointwise;
  std::string_view notation;
  RuleBinder bind = nullptr;  // where dims follow from arguments; null: the notation says all
};

/// Every rule, by family, then as listed.
[[nodiscard]] std::span<const ShardRule> shard_rules();
/// The rule of `target` ("aten::sum.dim_IntList"), or null.
[[nodiscard]] const ShardRule* find_shard_rule(std::string_view target);
/// The factors of one operator with the batch bound to `samples`; absent: replicate it. Every dim's size is the product
/// of its factors' sizes, or the dim has no factors.
[[nodiscard]] std::optional<OpFactors> bind_rule(const model::ModelGraph& graph, const model::Op& op,
                                                 std::int64_t samples);
[[nodiscard]] std::optional<OpFactors> bind_rule(const ShardRule& rule, const model::ModelGraph& graph,
                                                 const model::Op& op, std::int64_t samples);

/// "[b0 b1 i], [o i] -> [b0 b1 o]; sum i", with sizes: "b0=2 ...".
[[nodiscard]] std::string to_text(const OpFactors& op);

/// `factor` as a product of factors of the same kind, outermost first: GPT-2's o = (qkv heads head_dim).
/// Requires: the sizes' product is the factor's size. Factors whose parts must be contiguous stay as they are.
[[nodiscard]] OpFactors refine(const OpFactors& op, int factor, std::span<const std::int64_t> sizes);

enum class PlacementKind { Replicate, Shard, PartialSum, PartialMax };
struct OpPlacement {
  std::vector<PlacementKind> inputs, outputs;  // Shard: of the factor that was asked for
};
/// Splits `factor` over an axis. Requires: not Whole.
[[nodiscard]] OpPlacement place_shard(const OpFactors& op, int factor);
/// The inputs of one group of `linear` are Partial(sum).
[[nodiscard]] OpPlacement place_partial(const OpFactors& op, std::size_t group);
/// What a gradient has where its tensor has `kind`. Absent: there is none through a maximum.
[[nodiscard]] std::optional<PlacementKind> dual(PlacementKind kind);

/// Rows [first, first + size) of one factor.
struct Part {
  int factor = -1;
  std::int64_t first = 0, size = 0;
};
/// The operator's arguments as they are on that part.
[[nodiscard]] model::Op localise(const model::Op& op, const OpFactors& factors, std::span<const Part> parts);

}  // namespace coxswain::plan
