#pragma once
// Fewer devices than there are, for objectives that pay for devices and for "what if". Ids stay those of the whole
// cluster. Private to planner/. Threads: pure.
#include <vector>

#include "cluster/resource_graph.h"
#include "planner/pools.h"

namespace coxswain::planner {

/// Leaves the first `limits[class]` devices of each class, pool by pool. Empty limits: all.
void limit_pools(std::vector<Pool>& pools, const std::vector<std::int64_t>& limits);

/// Limits worth trying for a price: every mixture of all, none and halves (down to one node, then one device) of each
/// class, the whole cluster first, at most `most`: then the smallest shares are thinned out.
[[nodiscard]] std::vector<std::vector<std::int64_t>> limit_choices(const cluster::ResourceGraph& graph,
                                                                   std::size_t most);

}  // namespace coxswain::planner
