#include "model/selective.h"

#include <algorithm>

#include "model/op_cost.h"
#include "model/op_values.h"
#include "model/storage.h"

namespace coxswain::model {

std::vector<int> selective_replay(const ModelGraph& graph, int block) {
  // Which operators does not depend on the number of samples; any above one keeps batch dims apart from dims of one.
  const std::int64_t samples = graph.batch_symbol.empty() ? graph.static_batch : 2;
  const Block& range = graph.blocks[block];
  std::vector<int> replay = estimate_block(graph, block, samples).replayed;
  if (replay.empty()) return replay;
  // A view costs nothing and is taken anew of what was kept or made again.
  const StorageMap storage(graph, range.first_op, range.end_op, samples);
  std::vector<char> needed(graph.values.size(), 0);
  std::vector<int> with_views;
  for (OpId id = range.end_op - 1; id >= range.first_op; --id) {
    const Op& op = graph.ops[id];
    const int number = id - range.first_op;
    const bool read = std::any_of(op.outputs.begin(), op.outputs.end(),
                                  [&](ValueId value) { return value >= 0 && needed[value] != 0; });
    if (!std::binary_search(replay.begin(), replay.end(), number) && !(read && storage.is_view(op))) continue;
    with_views.push_back(number);
    for_each_input(op, [&](ValueId value) { needed[value] = 1; });
  }
  std::reverse(with_views.begin(), with_views.end());
  return with_views;
}

}  // namespace coxswain::model
