#pragma once
// Private to planner/: what simulation made of the candidates, and the words about it. Threads: pure values.
#include <string>
#include <vector>

#include "planner/search.h"
#include "planner/words.h"

namespace coxswain::planner {

struct Simulated {
  Candidate candidate;
  plan::Plan plan;
  plan::Estimate estimate;
  Cost step = 0;
  /// Tries `a` first where both take equally long: fewer stages, devices, micro-batches.
  friend bool operator<(const Simulated& a, const Simulated& b);
};

/// No two of equal shape (stages, replicas, micro-batch), best first, at most `most`.
[[nodiscard]] std::vector<Simulated> pick_diverse(const std::vector<Simulated>& ascending, std::size_t most);

/// What keeps the step from being shorter, in words.
[[nodiscard]] std::string describe_binding(const cost_model::CostModel& cost, const plan::Plan& plan,
                                           const plan::Estimate& estimate);

/// Every link of `graph` that two nodes which the plan uses may talk over.
[[nodiscard]] std::vector<cluster::LinkClass*> links_in_use(cluster::ResourceGraph& graph, const plan::Plan& plan);

/// ResourceExhausted: how much memory is missing where at best, and what would fit.
[[nodiscard]] Error describe_infeasible(const SearchSpace& space, const PipelineProblem::Misfit& misfit);

}  // namespace coxswain::planner
