#pragma once
// A backward in two halves, as zero-bubble schedules have it: I gives the gradients of a segment's inputs, W later
// those of its parameters. The autograd graph is cut below every node that leads to inputs and, by another edge, to
// parameters alone: W starts from the gradient that I saw arrive there, so both halves together call the kernels that
// the whole backward calls, on the same numbers. What W does not read is freed in I, node by node.
// Called by stage_runner. Threads: the engine's one. Private to worker/engine. Source: docs/adr/0008.
#include <torch/csrc/autograd/function.h>

namespace coxswain::worker {

/// What W needs of one segment: nodes above parameters, which hold what they saved, and the gradients that reach them.
struct WeightWork {
  torch::autograd::edge_list roots;
  torch::autograd::variable_list gradients;  // of roots
};

/// Gradients of `inputs` (undefined where none flows) from `gradients` of `roots`; leaves the rest to `work`.
/// `parameters`: the edges that run_weight_half will ask for. Throws what libtorch throws.
[[nodiscard]] torch::autograd::variable_list run_input_half(torch::autograd::edge_list roots,
                                                            torch::autograd::variable_list gradients,
                                                            const torch::autograd::edge_list& inputs,
                                                            const torch::autograd::edge_list& parameters,
                                                            WeightWork& work);
/// Gradients of `parameters` (undefined where none flows); frees what `work` holds.
[[nodiscard]] torch::autograd::variable_list run_weight_half(WeightWork work,
                                                             const torch::autograd::edge_list& parameters);

}  // namespace coxswain::worker
