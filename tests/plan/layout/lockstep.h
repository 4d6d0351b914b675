#pragma once
// Proof of a layout: the local graphs of all positions of a mesh run side by side in one process, operator by operator,
// with transitions as plain tensor operations between the positions, under one autograd graph. Loss and gradients must
// be those of the whole graph: autograd of the joint graph knows nothing of duals.
#include <string>
#include <vector>

#include "plan/layout/local_graph.h"

namespace coxswain::tests {

struct MeshCase {
  int tensor = 1, context = 1;
  std::int64_t samples = 2;
  int first_block = 0, end_block = -1;  // of the stage; -1: all
};

struct LayoutReport {
  double loss_error = 0;      // relative
  double gradient_error = 0;  // worst parameter, relative to the global norm of gradients
  std::string worst_parameter;
  std::vector<std::string> targets;     // of transitions, those of position 0
  double largest_share = 0, share = 0;  // of weights (two dims and more) that one position holds: any, all together
};

/// `tokens`: integer inputs lie in [0, tokens). Throws what libtorch throws.
[[nodiscard]] LayoutReport prove_layout(const model::ModelGraph& graph, const MeshCase& mesh, std::int64_t tokens);

}  // namespace coxswain::tests
