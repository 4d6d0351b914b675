#pragma once
// Tables of experts divided over replicas: the graph of one of them. Called by localise_stage. Private to plan/layout.
// Threads: pure. Source: docs/layout.md, "Experts"; docs/adr/0015.
#include <vector>

#include "plan/experts.h"
#include "plan/layout/expert_runs.h"
#include "plan/layout/local_graph.h"

namespace coxswain::plan {

/// `local` with its rows of the tables alone, and rows that travel before and after `runs` (of its operators; those of
/// one block do not overlap). Requires: at least as many experts as replicas.
void divide_experts(LocalGraph& local, const std::vector<ExpertRun>& runs, const ExpertPlace& place);

}  // namespace coxswain::plan
