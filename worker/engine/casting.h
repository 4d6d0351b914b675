#pragma once
// Mixed precision, applied: the policy table turned into one Casting an operator of a run of blocks. By the graph
// alone, so that it is known before anything is allocated which parameters need a 16-bit copy. Called by lowering,
// engine and local_model. Threads: pure. Private to worker/engine. Source: docs/plan.md#mixed-precision.
#include <optional>
#include <variant>
#include <vector>

#include "common/dtype.h"
#include "model/mixed_policy.h"
#include "model/model_graph.h"
#include "plan/plan.h"

namespace coxswain::worker {

using model::compute_rule_of;
using model::ComputeRule;

/// How the inputs of one operator are cast.
struct Casting {
  ComputeRule rule = ComputeRule::AsStored;
  DType dtype = DType::Float32;  // that the rules mean by 16 bits
  bool wide = false;             // what it computes is float32
  bool reads_copies = false;     // of parameters: their 16-bit copies, not the float32 masters
};

/// Calls `visit(value id)` for every tensor that `op` reads.
template <class Visit>
void for_each_tensor(const model::Op& op, Visit&& visit) {
  for (const model::Argument& argument : op.arguments) {
    if (const auto* one = std::get_if<model::ValueRef>(&argument.value)) visit(one->id);
    if (const auto* many = std::get_if<std::vector<std::optional<model::ValueRef>>>(&argument.value))
      for (const auto& element : *many)
        if (element) visit(element->id);
  }
}

/// Index of the trainable parameter that `value` is; -1: none.
[[nodiscard]] int trainable_parameter(const model::ModelGraph& graph, model::ValueId value);

/// Of each of `slice.ops`, where `slice` is of blocks [first_block, end_block). Operators that no parameter influences
/// are left as stored.
[[nodiscard]] std::vector<Casting> castings_of(const model::ModelGraph& graph, const model::StageSlice& slice,
                                               int first_block, int end_block, plan::Precision precision);

/// By parameter: whether an operator of `runs` reads its float32 values (in mixed precision the master), and whether
/// one reads a 16-bit copy; under float32 none does.
struct ParameterReads {
  std::vector<char> master, copy;
};
[[nodiscard]] ParameterReads find_reads(const model::ModelGraph& graph, const std::vector<plan::BlockRun>& runs,
                                        plan::Precision precision);

}  // namespace coxswain::worker
