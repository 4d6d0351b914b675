#pragma once
// Trains a plan with every rank a thread of this process over the `host` backend: real engines, executors and shared
// memory. Called by parity. Threads: one a rank, joined before it returns.
#include <map>
#include <string>
#include <vector>

#include "common/error.h"
#include "model/model_graph.h"
#include "plan/plan.h"
#include "worker/settings.h"

namespace coxswain::bench {

struct ThreadRun {
  std::vector<double> losses, grad_norms;                // by step; norms before clipping
  std::map<std::string, std::vector<float>> parameters;  // put together from what each rank holds
  int num_unequal_copies = 0;                            // parts of a parameter on two ranks: other bits
  std::vector<Error> problems;  // of ranks, in the order in which they failed; the first is the cause
};

/// Each step ends within `step_limit`, or the ranks that wait say so. When a rank fails the others are stopped.
[[nodiscard]] ThreadRun train_in_threads(const model::ModelGraph& graph, const plan::Plan& plan,
                                         const worker::TrainSettings& settings, Seconds step_limit);

}  // namespace coxswain::bench
