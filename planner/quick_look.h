#pragma once
// About how long the best plan of a combination takes, from one stage of each kind: the order in which large searches
// look closer. No bound. Called by the search. Threads: pure. Source: docs/cost_model.md, C37.
#include "planner/search.h"

namespace coxswain::planner {

/// kNoCost: nothing of it fits, as far as one stage tells.
[[nodiscard]] Cost quick_look(const SearchSpace& space, const Combination& one);

}  // namespace coxswain::planner
