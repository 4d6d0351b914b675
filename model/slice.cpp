// What a stage needs and gives: liveness at cuts, and the parameter-free producers that it must run itself.
#include <algorithm>

#include "model/finish_parts.h"
#include "model/op_values.h"

namespace coxswain::model {
std::vector<ValueId> live_values(const ModelGraph& graph, OpId cut) {
  std::vector<ValueId> live;
  if (cut <= 0) return live;
  std::vector<char> seen(graph.values.size(), 0);
  for (std::size_t i = static_cast<std::size_t>(cut); i < graph.ops.size(); ++i)
    for_each_input(graph.ops[i], [&](ValueId id) {
      const Value& value = graph.values[id];
      if (seen[id] != 0 || value.producer < 0 || value.producer >= cut || !value.depends_on_parameter) return;
      seen[id] = 1;
      live.push_back(id);
    });
  std::sort(live.begin(), live.end());
  return live;
}

int block_of(const ModelGraph& graph, OpId op) {
  // Empty blocks share their end with a neighbour: the first block that ends after `op` holds it.
  const auto found = std::upper_bound(graph.blocks.begin(), graph.blocks.end(), op,
                                      [](OpId id, const Block& block) { return id < block.end_op; });
  return static_cast<int>(found - graph.blocks.begin());
}

std::vector<std::vector<ValueId>> live_at_cuts(const ModelGraph& graph) {
  std::vector<int> last_block(graph.values.size(), -1);
  for (int b = 0; b < graph.num_blocks(); ++b)
    for (OpId op = graph.blocks[b].first_op; op < graph.blocks[b].end_op; ++op)
      for_each_input(graph.ops[op], [&](ValueId value) { last_block[value] = b; });
  std::vector<std::vector<ValueId>> live(graph.blocks.size() + 1);
  for (int b = 0; b < graph.num_blocks(); ++b)
    for (OpId op = graph.blocks[b].first_op; op < graph.blocks[b].end_op; ++op)
      for (const ValueId output : graph.ops[op].outputs) {
        if (output < 0 || !graph.values[output].depends_on_parameter) continue;
        for (int cut = b + 1; cut <= last_block[output]; ++cut) live[cut].push_back(output);
      }
  for (auto& values : live) std::sort(values.begin(), values.end());
  return live;
}

StageSlice slice_stage(const ModelGraph& graph, int first_block, int end_block) {
  StageSlice slice;
  if (first_block >= end_block || graph.blocks.empty()) return slice;
  const OpId begin = graph.blocks[first_block].first_op, end = graph.blocks[end_block - 1].end_op;
  slice.received = live_values(graph, begin);
  slice.sent = live_values(graph, end);

  std::vector<char> needed(graph.values.size(), 0);
  for (const LossTerm& term : graph.loss) {
    const OpId producer = graph.values[term.numerator].producer;
    if (producer < begin || producer >= end) continue;
    slice.has_loss = true;
    needed[term.numerator] = 1;
    if (term.denominator) needed[*term.denominator] = 1;
  }
  // Backwards over everything before the stage's end: what it must compute, then what no parameter influences and it
  // uses. A denominator is parameter-free and may stand anywhere, so the walk starts at the last operator.
  for (OpId id = static_cast<OpId>(graph.ops.size()) - 1; id >= 0; --id) {
    const Op& op = graph.ops[id];
    bool dependent = false, wanted = false;
    for (const ValueId output : op.outputs) {
      if (output < 0) continue;
      dependent = dependent || graph.values[output].depends_on_parameter;
      wanted = wanted || needed[output] != 0;
    }
    const bool inside = id >= begin && id < end;
    if (!(dependent ? inside : wanted)) continue;
    slice.ops.push_back(id);
    for_each_input(op, [&](ValueId value) { needed[value] = 1; });
  }
  std::reverse(slice.ops.begin(), slice.ops.end());

  for (std::size_t i = 0; i < graph.parameters.size(); ++i)
    if (needed[graph.parameters[i].value] != 0) slice.parameters.push_back(static_cast<int>(i));
  for (std::size_t i = 0; i < graph.buffers.size(); ++i)
    if (needed[graph.buffers[i].value] != 0) slice.buffers.push_back(static_cast<int>(i));
  for (std::size_t i = 0; i < graph.inputs.size(); ++i)
    if (needed[graph.inputs[i].value] != 0) slice.inputs.push_back(static_cast<int>(i));
  return slice;
}

std::vector<int> blocks_using(const ModelGraph& graph, int parameter) {
  std::vector<int> users;
  const ValueId wanted = graph.parameters[parameter].value;
  for (int b = 0; b < graph.num_blocks(); ++b) {
    bool uses = false;
    for (OpId op = graph.blocks[b].first_op; op < graph.blocks[b].end_op && !uses; ++op)
      for_each_input(graph.ops[op], [&](ValueId value) { uses = uses || value == wanted; });
    if (uses) users.push_back(b);
  }
  return users;
}

std::int64_t num_elements(const ModelGraph& graph, ValueId value, std::int64_t samples) {
  const Bindings bindings{{graph.batch_symbol, samples}};
  std::int64_t count = 1;
  for (const Dim& dim : graph.values[value].dims) count *= dim.is_constant() ? dim.constant() : dim.evaluate(bindings);
  return count;
}

Bytes value_bytes(const ModelGraph& graph, ValueId value, std::int64_t samples) {
  return size_of(graph.values[value].dtype) * num_elements(graph, value, samples);
}

}  // namespace coxswain::model
