// Totals of one block, from its operators and a replay of their storages.
#include <algorithm>

#include "model/block_replay.h"
#include "model/finish_parts.h"
#include "model/op_cost.h"
#include "model/op_values.h"
#include "model/shard.h"

namespace coxswain::model {
namespace {

/// Parameters whose first user stands in the block.
void add_parameters(const ModelGraph& graph, const Block& range, BlockTotals& totals) {
  std::vector<OpId> first_use(graph.values.size(), -1);
  for (OpId id = range.end_op - 1; id >= 0; --id)
    for_each_input(graph.ops[id], [&](ValueId value) { first_use[value] = id; });
  for (const Parameter& parameter : graph.parameters) {
    if (first_use[parameter.value] < range.first_op) continue;
    std::int64_t elements = 1;
    for (const std::int64_t dim : parameter.dims) elements *= dim;
    totals.parameter_elements += elements;
    totals.parameter_bytes += size_of(parameter.dtype) * elements;
  }
}

}  // namespace

BlockTotals estimate_block(const ModelGraph& graph, int block, std::int64_t samples, ExpertForm experts, Width width) {
  const Block& range = graph.blocks[block];
  using Role = BlockReplay::Role;
  const BlockReplay replay(graph, block, samples, experts, width);
  BlockTotals totals;
  totals.num_ops = range.end_op - range.first_op;
  for (OpId id = range.first_op; id < range.end_op; ++id) {
    const OpCost cost = cost_of(graph, graph.ops[id], replay.storage());
    totals.forward_flop += cost.forward_flop;
    totals.backward_input_flop += cost.backward_input_flop;
    totals.backward_weight_flop += cost.backward_weight_flop;
  }
  totals.matmul_flop = totals.forward_flop;  // only contractions count (C1)
  add_parameters(graph, range, totals);
  totals.received_bytes = replay.cut_bytes(replay.received());
  totals.cut_bytes = replay.cut_bytes(replay.sent());
  totals.input_bytes = replay.kept(Role::Input);
  totals.saved_bytes = totals.received_bytes + totals.input_bytes + replay.own_saved();
  totals.shared_bytes = replay.kept(Role::Shared);
  totals.selective_bytes = totals.saved_bytes - replay.own_saved() + replay.selective_saved(totals.replayed);
  if (totals.selective_bytes >= totals.saved_bytes) {
    totals.selective_bytes = totals.saved_bytes;
    totals.replayed.clear();
  }
  if (const BlockExperts parts = find_experts(graph, block); parts.count > 0)
    totals.expert_bytes = replay.own_saved_of(parts.first_op, parts.end_op);
  const Bytes own = replay.own_saved();
  const auto above = [](Bytes peak, Bytes base) { return std::max(Bytes(0), peak - base); };
  const BlockReplay::Backward backward = replay.backward();
  totals.forward_transient_bytes = above(replay.forward_peak(true), own);
  totals.plain_transient_bytes = replay.forward_peak(false);
  totals.backward_transient_bytes = above(backward.whole, own);
  totals.transient_bytes = std::max(totals.forward_transient_bytes, totals.backward_transient_bytes);
  totals.owed_bytes = backward.owed + (backward.owes_received ? totals.received_bytes : Bytes(0)) +
                      (backward.owes_inputs ? totals.input_bytes : Bytes(0));
  totals.input_transient_bytes = above(backward.input, own);
  totals.weight_transient_bytes = above(backward.weight, backward.owed);
  return totals;
}

}  // namespace coxswain::model
