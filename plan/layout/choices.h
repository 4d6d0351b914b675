#pragma once
// What may be chosen for every operator of a run of blocks over one step of the mesh: replicated, split by a factor,
// or, where it is linear, on parts of a sum; and so the forms that every value may have. Splits spread from factors
// through values to other operators (GPT-2's attention says that its fused projection reads as (qkv heads depth)).
// Private to plan/layout. Threads: pure. Source: docs/layout.md.
#include <map>
#include <optional>
#include <vector>

#include "plan/layout/form.h"

namespace coxswain::plan {

/// Stands for the samples while layouts are searched: a prime that no size of a model is a multiple of, so that every
/// replica of a stage, whatever its samples, finds the same layout, and sizes that hold samples are known by it.
inline constexpr std::int64_t kSamples = 1'000'003;

/// A step splits over all members of `axes` at once.
struct MeshStep {
  AxisKind kind = AxisKind::Tensor;
  AxisSet axes = 0;
  int size = 1;
  bool even = false;       // later steps follow: parts must be equal, so that all members go on alike
  int runs = 1;            // of rows a member has: context_runs of the model on a context axis
  double start_share = 1;  // of what starting a collective costs: equal ones of several steps become one
  const std::vector<int>* edge_dims = nullptr;  // by value, of find_edge_dims; borrowed
};

/// One tensor that an operator reads.
struct Read {
  int argument = -1, element = -1;
  model::ValueId value = -1;
};

struct Choice {
  enum class Kind { Replicate, Split, Linear, CrossEntropy, RingAttention } kind = Kind::Replicate;
  FactorSplit split;                // Split
  std::size_t group = 0;            // Linear: of OpFactors::linear
  std::vector<Form> reads, writes;  // by OpChoices::reads, and by used output
  double seconds = 0;               // of nominal work, forward and backward: ranks choices, predicts nothing
};

struct OpChoices {
  std::optional<OpFactors> factors;
  std::vector<Read> reads;
  std::vector<int> writes;  // outputs that someone uses, by number
  std::vector<Choice> choices;
};

/// Choices of every influenced operator of blocks [run.first_block, run.end_block), by operator id. `graph` has
/// numbers for dims (samples: kSamples).
[[nodiscard]] std::map<model::OpId, OpChoices> list_choices(const model::ModelGraph& graph, const BlockRun& run,
                                                            const MeshStep& step);

/// Factors, reads and writes of one operator, without choices.
[[nodiscard]] OpChoices describe(const model::ModelGraph& graph, const model::Op& op);

/// Of the whole operator, described so.
[[nodiscard]] double nominal_seconds(const model::ModelGraph& graph, const model::Op& op, const OpChoices& described);
/// A parameter influences it.
[[nodiscard]] bool is_influenced(const model::ModelGraph& graph, const model::Op& op);
[[nodiscard]] std::vector<std::int64_t> sizes_of(const model::ModelGraph& graph, model::ValueId value);
/// The dim along which each value is split between blocks, over all of a mesh; -1: it crosses whole. The first behind
/// the samples that the mesh can split: in equal parts, or, over one axis alone, in nearly equal ones. `graph` as
/// above, not split yet.
[[nodiscard]] std::vector<int> find_edge_dims(const model::ModelGraph& graph, const Replica& replica);
/// The same for one value of these sizes.
[[nodiscard]] int edge_dim(const std::vector<std::int64_t>& sizes, const Replica& replica);
/// The form that `value` has where it enters or leaves a run.
[[nodiscard]] Form edge_form(const model::ModelGraph& graph, model::ValueId value, const MeshStep& step);

}  // namespace coxswain::plan
