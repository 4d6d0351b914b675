#pragma once
// From a graph and a run of blocks to ready calls: what is constant is computed once, what no parameter influences
// becomes a prelude, each block one segment with its inputs, outputs and the moment each value dies. Called by
// stage_runner. Threads: pure apart from libtorch. Private to worker/engine. Source: DESIGN 3.7.
#include <ATen/core/TensorBody.h>

#include <compare>
#include <utility>
#include <vector>

#include "common/result.h"
#include "model/model_graph.h"
#include "plan/plan.h"
#include "worker/engine/op_call.h"
#include "worker/engine/weights.h"

namespace coxswain::worker {

class ExpertTokens;

/// Calls in order; after call i the values of `releases[i]` are used no more.
struct Code {
  std::vector<OpCall> calls;
  std::vector<std::vector<model::ValueId>> releases;
};

/// A parameter as a block reads it.
struct ParameterUse {
  int parameter = 0;
  bool copy = false;  // its 16-bit copy, not the float32 master
  friend auto operator<=>(const ParameterUse&, const ParameterUse&) = default;
};

/// One block: the unit of autograd.
struct Segment {
  Code code;
  std::vector<model::ValueId> inputs;    // from elsewhere and not constant
  std::vector<model::ValueId> outputs;   // used outside the block
  std::vector<ParameterUse> parameters;  // trainable ones it uses
  /// Outputs that get another dtype when the block is left: activations 16 bits, loss numerators float32.
  std::vector<std::pair<model::ValueId, c10::ScalarType>> casts;
  bool recompute = false;
  /// Selective recompute: by call, what runs again; the values that it reads from elsewhere (ascending); by call, what
  /// is used no more then. Empty where nothing does.
  std::vector<char> again;
  std::vector<model::ValueId> held;
  std::vector<std::vector<model::ValueId>> again_releases;
};

struct LoweredStage {
  model::StageSlice slice;
  int first_block = 0;
  std::vector<Segment> segments;  // one a block
  Segment prelude;                // once a micro-batch, without gradient
  Segment count;                  // loss denominators from inputs; last stage
  std::vector<std::pair<model::ValueId, at::Tensor>> constants;
  std::vector<int> terms;  // indices into graph.loss whose numerator is produced here
  /// By value id: the last segment that uses it forward (-1: prelude or none), the first one that uses it in recompute
  /// (or a number past all), and whether it is sent or a loss numerator.
  std::vector<int> last_forward_use, first_recompute_use;
  std::vector<char> is_sent;
};

struct LoweringOptions {
  int first_block = 0, end_block = 0;
  std::int64_t samples = 0;                // of a micro-batch on this rank
  std::vector<plan::Recompute> recompute;  // per block; empty: none
  plan::Precision precision = plan::Precision::Float32;
  const LocalView* view = nullptr;  // of the graph, on a mesh; borrowed, outlives the calls
  bool offload_activations = false;
  const ExpertTokens* tokens = nullptr;  // counts choices of experts; none: nobody does; borrowed like `view`
};

/// Errors: InvalidArgument naming every operator without a kernel or with arguments that do not fit.
[[nodiscard]] Result<LoweredStage> lower_stage(const model::ModelGraph& graph, const LoweringOptions& options,
                                               const WeightSource& weights);

}  // namespace coxswain::worker
