#pragma once
// The passes of finish_graph, one per file. Private to this folder; each requires those before it. Threads: as
// finish.h.
#include <string>
#include <vector>

#include "model/model_graph.h"

namespace coxswain::model {

/// Sets `producer` of every value from `ops`.
void set_producers(ModelGraph& graph);

/// Detects blocks and reorders `ops` so that each is contiguous; fills `blocks` without signatures. (blocks.cpp)
void assign_blocks(ModelGraph& graph);

/// live[b]: parameter-dependent values produced before block b and used in it or later, in value order;
/// live[num_blocks] is empty. (slice.cpp)
[[nodiscard]] std::vector<std::vector<ValueId>> live_at_cuts(const ModelGraph& graph);

/// The same for one cut before operator `cut`. (slice.cpp)
[[nodiscard]] std::vector<ValueId> live_values(const ModelGraph& graph, OpId cut);

/// Fills every block's signature. (hash.cpp)
void sign_blocks(ModelGraph& graph);

/// Fills `coupled`. (coupled.cpp)
void find_coupled_ops(ModelGraph& graph);

/// Whether `value` is the same for every part of a split batch once the sums of `coupled` are put together, and follows
/// from some of them. (coupled.cpp)
[[nodiscard]] bool follows_from_sums(const ModelGraph& graph, ValueId value);

/// Block that holds `op`. (slice.cpp)
[[nodiscard]] int block_of(const ModelGraph& graph, OpId op);

}  // namespace coxswain::model
