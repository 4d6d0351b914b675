#pragma once
// About how long the best plan of a combination takes, from one stage of each kind: the order in which large searches
// look closer. No bound. Called by the search. Threads: pure. Source: docs/cost_model.md, C37.
#include "planner/search.h"

namespace coxswain::planner {

struct QuickLook {
  Cost cost = kNoCost;  // kNoCost: nothing of it fits, as far as one stage tells
  int num_stages = 0;
  int num_chunks = 1;           // of a stage
  std::vector<int> num_blocks;  // of a stage on each composition; 0: unused
};
[[nodiscard]] QuickLook quick_look(const SearchSpace& space, const Combination& one);
/// Most chunks of a stage that a pipeline of so many stages is tried with.
[[nodiscard]] int most_chunks(const SearchSpace& space, const Combination& one, std::int64_t stages);
/// The same combination with several chunks a stage, as many as look best; kNoCost: none. `plain`: its quick_look.
[[nodiscard]] QuickLook chunked_look(const SearchSpace& space, const Combination& one, const QuickLook& plain);

/// The same from the work of whole blocks alone, as if everything fitted and nothing were sent: which combinations a
/// look is spent on.
[[nodiscard]] Cost guess_step(const SearchSpace& space, const Combination& one);

}  // namespace coxswain::planner
