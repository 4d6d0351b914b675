#pragma once
// One entry of a role's program. Nothing is computed or communicated in a step that is not in the list.
// Read by plan/ (validation), executor/ (order), worker/ (work), cost_model/ (price). Threads: pure values.
// Source: DESIGN 3.3.
#include <optional>
#include <string>
#include <string_view>

namespace coxswain::plan {

enum class ActionKind {
  // compute
  Forward,         // F: blocks [first_block, end_block) of one micro-batch
  Backward,        // B: gradient of inputs and weights (recomputes first where the plan says so)
  BackwardInput,   // I: gradient of inputs only
  BackwardWeight,  // W: gradient of weights only
  CountLoss,       // loss denominators of this rank's samples of the whole step (last stage)
  Optimizer,       // clip by the global norm, update the parameters of this stage
  // edges: to or from the stage that holds the next or previous blocks, all of this rank's peers grouped
  SendActivation,
  ReceiveActivation,
  SendGradient,
  ReceiveGradient,
  // collectives
  ReduceLossCount,  // sum of denominators over the last stage's replicas
  ReduceGradient,   // one bucket (blocks [first_block, end_block)) over the stage's replicas; under ZeRO each gets its
                    // piece of the sum, from ZeRO 2 on once a micro-batch
  ReduceTied,       // one tied parameter over every rank of the stages that use it
  ReduceShared,     // what a mesh does not cut by all of its axes, over every rank of the stage
  ReduceNorm,       // squared norm and loss over all ranks: the step's commit point
  ReduceReused,     // ZeRO 2 and 3: gradients of the parameters that several blocks of the stage use; each its piece
  GatherParameter,  // parameters of one bucket from the pieces: ZeRO 1 and 2 after the update, ZeRO 3 ahead of use
  GatherReused,     // those of ReduceReused, after the update
  ReduceExperts,    // tables of experts of one bucket, over the devices that hold the same experts
};

struct Action {
  ActionKind kind = ActionKind::Forward;
  int micro_batch = -1;                  // -1: not of one micro-batch
  int first_block = -1, end_block = -1;  // compute, ReduceGradient, ReduceExperts and GatherParameter
  int tied = -1;                         // index into tied_parameters(), ReduceTied
  int chunk = 0;                         // of the stage, compute and edges of a micro-batch
  friend bool operator==(const Action&, const Action&) = default;
};

/// Order inside a stream is the order of the list; streams run side by side. Each edge of a stage has streams of its
/// own: the `Back` ones serve those that lead from a later stage to an earlier one (chunks only).
enum class Stream {
  Compute,
  ActivationIn,
  ActivationOut,
  GradientIn,
  GradientOut,
  Reduce,
  BackActivationIn,
  BackActivationOut,
  BackGradientIn,
  BackGradientOut,
  Gather  // of parameters: ZeRO only
};
inline constexpr int kNumStreams = 11;
/// Of an action on an edge between neighbours, or on none (program.h has the general one).
[[nodiscard]] Stream stream_of(ActionKind kind);
[[nodiscard]] bool is_compute(ActionKind kind);
[[nodiscard]] bool is_edge(ActionKind kind);
/// On the streams of collectives: reduce and gather.
[[nodiscard]] bool is_collective(Stream stream);

/// "forward", "send_activation", ...
[[nodiscard]] std::string_view to_text(ActionKind kind);
/// "F3[2,5)", "SEND_F3", "REDUCE_GRAD[2,5)", of one micro-batch "REDUCE_GRAD3[2,5)"; with a chunk "F3.1[8,11)",
/// "SEND_F3.1"
[[nodiscard]] std::string to_text(const Action& action);
/// Exact inverse of to_text(Action); nothing for any other text.
[[nodiscard]] std::optional<Action> parse_action(std::string_view text);
/// "compute", "activation_in", ...
[[nodiscard]] std::string_view to_text(Stream stream);

}  // namespace coxswain::plan
