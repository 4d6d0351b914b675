#pragma once
// One run of a stage's blocks on this rank: what runs them, and what comes in and goes out of them. A stage without
// chunks has one. Called by engine. Threads: the engine's one. Private to worker/engine. Source: docs/adr/0006.
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "common/result.h"
#include "model/model_graph.h"
#include "plan/program.h"
#include "worker/engine/edge_buffers.h"
#include "worker/engine/stage_runner.h"

namespace coxswain::worker {

struct Chunk {
  plan::BlockRun run;
  std::unique_ptr<StageRunner> runner;
  EdgeSpec activation_in, activation_out, gradient_in, gradient_out;
  /// The stage's chunk that holds the part before or after this one, where nothing is sent between them; else -1.
  int before = -1, after = -1;
};

/// All chunks of `rank`'s stage; `view` and `tokens` outlive them. Errors: as StageRunner::make.
[[nodiscard]] Result<std::vector<Chunk>> make_chunks(const LocalView& view, const plan::Plan& plan,
                                                     const std::vector<plan::Group>& groups, int rank,
                                                     const WeightSource& weights, const ExpertTokens& tokens,
                                                     ParameterStore& store);

/// (chunk, micro-batch) of this rank whose backward is run whole, in W's place (ADR 0013).
[[nodiscard]] std::set<std::pair<int, int>> find_whole_backwards(const plan::Plan& plan, int rank,
                                                                 const std::vector<Chunk>& chunks);

}  // namespace coxswain::worker
