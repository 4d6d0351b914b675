#include "model/selective.h"

#include <algorithm>

#include "model/op_cost.h"
#include "model/op_values.h"
#include "model/storage.h"

namespace coxswain::model {

std::vector<int> selective_replay(const ModelGraph& graph, int block, std::int64_t samples) {
  const Block& range = graph.blocks[block];
  const std::vector<int> replayed = estimate_block(graph, block, samples, ExpertForm::Grouped).replayed;
  if (replayed.empty()) return {};
  // A view costs nothing and is taken anew of what was kept or made again.
  const StorageMap storage(graph, range.first_op, range.end_op, samples, ExpertForm::Grouped);
  std::vector<char> read(graph.values.size(), 0);
  std::vector<int> again;
  for (OpId id = range.end_op - 1; id >= range.first_op; --id) {
    const Op& op = graph.ops[id];
    const int number = id - range.first_op;
    const bool is_needed = std::any_of(op.outputs.begin(), op.outputs.end(),
                                       [&](ValueId value) { return value >= 0 && read[value] != 0; });
    const bool is_replayed = std::binary_search(replayed.begin(), replayed.end(), number);
    if (!is_replayed && !(is_needed && storage.is_view(op))) continue;
    again.push_back(number);
    for_each_input(op, [&](ValueId value) { read[value] = 1; });
  }
  std::reverse(again.begin(), again.end());
  return again;
}

}  // namespace coxswain::model
