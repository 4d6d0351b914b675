#pragma once
// A backward in two halves, as zero-bubble schedules have it: I gives the gradients of a segment's inputs, W later
// those of its parameters. The autograd graph is cut below every node that leads to inputs and, by another edge, to
// parameters alone: W starts from the gradient that I saw arrive there, so both halves together call the kernels that
// the whole backward calls, on the same numbers. What W does not read is freed in I, node by node. A norm's gain or
// shift has its gradient in I: its sum is nothing beside the node's gradient of the input, which one kernel makes with
// it, and for W the node's input and output gradient would have to stay.
// Called by stage_runner. Threads: the engine's one. Private to worker/engine. Source: docs/adr/0008.
#include <torch/csrc/autograd/function.h>

namespace coxswain::worker {

/// What W needs of one segment: nodes above parameters, which hold what they saved, and the gradients that reach them.
struct WeightWork {
  torch::autograd::edge_list roots;
  torch::autograd::variable_list gradients;  // of roots
};

/// Gradients of `inputs`, then of `parameters`, from `gradients` of `roots`; undefined where none flows, and for the
/// parameters that it leaves to `work`: `parameters` are the edges that run_weight_half will ask for. Each of them has
/// its gradient from one of the two. Throws what libtorch throws.
[[nodiscard]] torch::autograd::variable_list run_input_half(torch::autograd::edge_list roots,
                                                            torch::autograd::variable_list gradients,
                                                            const torch::autograd::edge_list& inputs,
                                                            const torch::autograd::edge_list& parameters,
                                                            WeightWork& work);
/// Gradients of `parameters` (undefined where none flows or the input half gave it); frees what `work` holds.
[[nodiscard]] torch::autograd::variable_list run_weight_half(WeightWork work,
                                                             const torch::autograd::edge_list& parameters);

}  // namespace coxswain::worker
