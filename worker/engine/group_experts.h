#pragma once
// Experts as archives and builders hold them gather a matrix per row: bmm(table[indices], x). Here each such product
// becomes coxswain::expert_bmm, which groups rows by expert and gathers none. Operators and values keep their numbers;
// the gathers are left without users. Called when a stage is lowered. Threads: pure. Private to worker/engine.
#include "model/model_graph.h"

namespace coxswain::worker {

[[nodiscard]] model::ModelGraph group_experts(model::ModelGraph graph);

}  // namespace coxswain::worker
