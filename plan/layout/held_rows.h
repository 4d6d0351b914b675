#pragma once
// Which rows of a whole tensor a part holds, dim by dim: cuts applied one after another. Called by the engine (weights,
// dropout, edges). Threads: pure. Source: local_graph.h.
#include <cstdint>
#include <span>
#include <vector>

#include "plan/layout/local_graph.h"

namespace coxswain::plan {

/// By dim of a tensor of sizes `whole`: the whole's index of each index of the part, ascending.
/// Requires: every cut's outer x extent x inner is what the cuts before it leave of its dim.
[[nodiscard]] std::vector<std::vector<std::int64_t>> held_rows(std::span<const std::int64_t> whole,
                                                               std::span<const Cut> cuts);

/// Ascending numbers as runs: {4, 5, 9} = {4, 2}, {9, 1}.
[[nodiscard]] std::vector<Cut::Run> runs_of_rows(std::span<const std::int64_t> rows);

}  // namespace coxswain::plan
