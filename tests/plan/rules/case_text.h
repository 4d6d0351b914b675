#pragma once
// A RuleCase as one operator of a graph, with tensors. Threads: pure apart from libtorch's generator.
#include <ATen/core/TensorBody.h>

#include <string>
#include <vector>

#include "model/model_graph.h"
#include "tests/plan/rules/prove.h"

namespace coxswain::tests {

struct CaseTensor {
  at::Tensor whole;
  bool differentiable = false;
};
struct CaseGraph {
  model::ModelGraph graph;         // one operator; outputs are filled in once it ran
  std::vector<CaseTensor> inputs;  // by value id
  bool floating = false;           // some input has the dtype asked for
};
[[nodiscard]] CaseGraph read_case(const RuleCase& one, DType dtype);
/// Outputs of one operator on tensors by value id, as the engine calls it. Throws what libtorch throws.
[[nodiscard]] std::vector<at::Tensor> run_op(const model::ModelGraph& graph, const model::Op& op,
                                             const std::vector<at::Tensor>& inputs);

}  // namespace coxswain::tests
