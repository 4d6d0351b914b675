#pragma once
// Writes the graph of one member of a step's group from the forms that the search chose: parts of operators, and
// transitions where a reader wants another form than is at hand. Private to plan/layout. Threads: pure.
#include <map>
#include <vector>

#include "plan/layout/search.h"

namespace coxswain::plan {

/// One run of blocks of the stage with its layout.
struct ChosenRun {
  BlockRun run;
  std::map<model::OpId, Choice> chosen;
};

/// `local`: before the step, the same on all members but for the sizes of its last parts. `index`: of this member.
[[nodiscard]] LocalGraph rewrite(const LocalGraph& local, const MeshStep& step, int index,
                                 const std::vector<ChosenRun>& runs, const std::map<model::ValueId, Form>& stored);

/// Transitions of one kind that follow each other over different axes become one over all of them.
void merge_transitions(LocalGraph& local);

}  // namespace coxswain::plan
