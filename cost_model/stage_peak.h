#pragma once
// The moment of a step at which a device of a stage holds most: what waits between forward and backward, what is on its
// way to and from neighbours, what a block needs while it runs. Private to cost_model: memory.cpp adds what stays for
// the whole run. Threads: pure. Source: docs/cost_model.md, C15 (activations), C16 (edges), C31 (recompute), C34
// (offload).
#include <vector>

#include "cost_model/memory.h"

namespace coxswain::cost_model {

/// Activations with what is shared, buffers of edges, and what is there only while a block runs, at the moment at which
/// they are most; and what a host would take.
struct Peak {
  Bytes activations{0}, transfers{0}, transient{0}, gradients{0}, host{0};
  [[nodiscard]] Bytes total() const { return activations + transfers + transient + gradients; }
};
/// `late`: of `gradients`, those that are there from a step's first backward on.
[[nodiscard]] Peak find_peak(const CostModel& cost, const StageWork& work, Bytes gradients, Bytes late);

/// What the stage holds, chunk by chunk.
[[nodiscard]] std::vector<plan::BlockRun> runs_of(const StageWork& work);

/// Edges from and to the neighbours: those given of a stage with chunks.
[[nodiscard]] std::vector<StageWork::EdgeWork> edges_in_of(const StageWork& work);
[[nodiscard]] std::vector<StageWork::EdgeWork> edges_out_of(const StageWork& work);
/// Of both.
[[nodiscard]] std::int64_t num_edges(const StageWork& work);

/// C25, C29: the stream between blocks is split along the sequence.
[[nodiscard]] inline Bytes split_stream(Bytes bytes, int parts) { return Bytes((bytes.value + parts - 1) / parts); }

}  // namespace coxswain::cost_model
