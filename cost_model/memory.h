#pragma once
// Memory of one device of a stage, with its parts. Called by estimate_memory (whole plans) and the planner (spans).
// Threads: pure. Source: docs/cost_model.md, C14-C17, C26,
// C29-C35.
#include <algorithm>
#include <vector>

#include "cost_model/cost_model.h"
#include "plan/schedule.h"

namespace coxswain::cost_model {

/// C17: what an allocator loses to rounding and the model to what it does not see, as a share of everything else.
inline constexpr double kMemoryMarginFraction = 0.05;

/// C35: buffers of one channel of a communicator, and what a channel carries. 4 A100 with NVLink take 688 MiB for each
/// communicator of more than two ranks (NVIDIA/nccl issue 964), 24 channels for 240 GB/s; memory goes with the channels
/// (issue 864). A few channels there are on any link, and NCCL makes at most 32.
inline constexpr Bytes kChannelBytes{std::int64_t{28} << 20};
/// Of one that only sends or only receives: a pool of messages.
inline constexpr Bytes kEdgeChannelBytes{std::int64_t{8} << 20};
inline constexpr BytesPerSecond kChannelBandwidth{10e9};
inline constexpr int kFewestChannels = 2, kMostChannels = 32;

/// What one device of a tensor axis holds of a run of blocks, in elements.
struct PersistentElements {
  std::int64_t held = 0;          // trainable, copies of tied ones too
  std::int64_t held_experts = 0;  // of them, in tables of experts (C33)
  std::int64_t largest = 0;       // trainable, of the block that has most; without `tied` and `shared`
  std::int64_t second = 0;        // of the block that has most beside it
  Bytes frozen{0};                // parameters that are not trained, buffers
  std::int64_t tied = 0;          // trainable, that blocks elsewhere use too: ZeRO leaves them whole
  std::int64_t shared = 0;  // trainable, that several of these blocks use: ZeRO splits their optimizer state alone
  void add_block(std::int64_t elements) {
    second = std::max(second, std::min(largest, elements));
    largest = std::max(largest, elements);
  }
  Bytes wide{0}, shared_wide{0};  // what tables have beyond bfloat16 copies: of one block, and of `shared`
};
/// Of one device of a tensor axis and an expert axis.
[[nodiscard]] PersistentElements count_persistent(const ModelFacts& facts, int first_block, int end_block,
                                                  int tensor = 1, int expert = 1);
/// The same of a stage with several chunks; a parameter that two of them use counts once.
[[nodiscard]] PersistentElements count_persistent(const ModelFacts& facts, const std::vector<plan::BlockRun>& runs,
                                                  int tensor = 1, int expert = 1, int expert_index = 0);

/// C26, C33: what one of `replicas` holds of `all` elements where they are split; `experts` of them over `holders`
/// only.
[[nodiscard]] std::int64_t shard_of(std::int64_t all, std::int64_t experts, std::int64_t replicas,
                                    std::int64_t holders);

/// C26: what a device keeps of a state that ZeRO splits: a share of most, and of `whole` elements all.
[[nodiscard]] std::int64_t split_elements(const PersistentElements& elements, std::int64_t whole, std::int64_t replicas,
                                          std::int64_t holders);

/// Bytes of what stays for the whole run (C14, C26).
struct PersistentMemory {
  Bytes parameters{0}, gradients{0}, optimizer{0};
  Bytes late_gradients{0};  // of gradients: not there before a step's first backward
  Bytes gathered{0};        // whole parameters or gradients of the blocks at work, where ZeRO splits them
  std::int64_t updated_elements = 0;
  Bytes host{0};  // in host memory (C30)
};
/// `zero_stage` over `replicas` devices that hold equal shards (replicas x context), `expert` of them other experts.
[[nodiscard]] PersistentMemory estimate_persistent_memory(const PersistentElements& elements, plan::Precision precision,
                                                          int zero_stage = 0, std::int64_t replicas = 1, int expert = 1,
                                                          plan::Offload offload = plan::Offload::None);
[[nodiscard]] PersistentMemory estimate_persistent_memory(const ModelFacts& facts, int first_block, int end_block,
                                                          plan::Precision precision);

/// One device's share of a stage.
struct StageWork {
  int first_block = 0, end_block = 0;
  int device_class = 0;
  std::int64_t samples = 0;
  plan::Precision precision = plan::Precision::Float32;
  std::vector<plan::BlockRun> chunks;      // after the first run
  std::vector<plan::Recompute> recompute;  // per block, over all chunks
  std::vector<plan::Action> list;          // whose peak counts (C15)
  int receive_credits = 2;
  bool first_stage = true, last_stage = true;
  struct EdgeWork {
    std::vector<int> cuts;    // that it carries
    int credits = 2;          // receive buffers
    std::vector<int> chunks;  // that use it
  };
  std::vector<EdgeWork> edges_in, edges_out;  // with chunks: from and to other stages, by the way of activations
  /// C16: of the samples, those that travel in pieces of their own beside the whole. The search counts none.
  std::int64_t apart_in = 0, apart_out = 0;
  int tensor = 1, zero_stage = 0;
  /// C26: elements of the largest bucket, where ZeRO 1 reduces each as soon as it is made (one micro-batch): no more
  /// gradients are whole at once. 0: they are added up over micro-batches.
  std::int64_t reduced_at_once = 0;
  std::int64_t replicas = 1;  // of the stage
  int context = 1, expert = 1;
  std::int64_t expert_samples = 0;  // of all replicas that share the experts, and which one this is (BlockWork)
  int expert_index = 0;
  plan::Offload offload = plan::Offload::None;
};
[[nodiscard]] plan::MemoryParts estimate_stage_memory(const CostModel& cost, const StageWork& work);
/// C35: buffers of the communicators that a device of the stage is a member of. Part of the workspace.
[[nodiscard]] Bytes estimate_communicators(const CostModel& cost, const StageWork& work);
/// C35: of one communicator of accelerators.
[[nodiscard]] Bytes communicator_buffers(const cluster::LinkClass& link);
/// Host memory that the device fills: what C30 and C34 move there. The planner holds it to host_memory_of.
[[nodiscard]] Bytes estimate_stage_host_memory(const CostModel& cost, const StageWork& work);

/// What one micro-batch keeps of a block from forward to backward, for work.recompute; `time` of the same block.
[[nodiscard]] Bytes kept_bytes(const ModelFacts& facts, const BlockWork& work, const BlockTime& time);

/// C15: a block or a run of blocks with one micro-batch: what is kept between F and B (or I), and between I and W; the
/// most that is there while each action goes through it, with what is kept.
struct HeldBytes {
  std::int64_t kept = 0, owed = 0;
  std::int64_t forward = 0, backward = 0, input = 0, weight = 0;
  [[nodiscard]] std::int64_t peak(plan::ActionKind kind) const;
};
/// For `recompute`; `input` = what the block receives, `gradient` = the gradients of what it sends.
[[nodiscard]] HeldBytes held_bytes(const BlockTime& time, plan::Recompute recompute, Bytes input, Bytes gradient);
/// `run` with what comes after it: a block, a run of blocks, or `times` of the same. Forward frees nothing that is
/// kept; a backward has left the blocks behind. Appending is associative.
inline void append(HeldBytes& run, const HeldBytes& block, std::int64_t times = 1) {
  if (times == 0) return;
  const std::int64_t before = (times - 1) * block.kept, owed_before = (times - 1) * block.owed;
  run.forward = std::max(run.forward, run.kept + before + block.forward);
  run.backward = std::max(run.backward, run.kept + before + block.backward);
  // In block i of them, i are kept before it and times - 1 - i owed behind it: most at one of both ends.
  run.input = std::max(run.input + owed_before + block.owed, run.kept + std::max(before, owed_before) + block.input);
  run.weight = std::max(run.weight, run.owed + owed_before + block.weight);
  run.kept += before + block.kept;
  run.owed += owed_before + block.owed;
}

/// C34: the most that is here while each action goes through a run whose activations go to the host, its own included:
/// those of the block at work, and those of the one before it, on their way.
struct MovedBytes {
  std::int64_t last = 0;  // kept of the last block
  std::int64_t forward = 0, backward = 0, input = 0;
};

/// What a run of blocks holds, appended block by block.
struct HeldRun {
  HeldBytes all;
  MovedBytes moved;
  void add(const HeldBytes& block, std::int64_t times = 1);
  /// C15, C34: while an action of `kind` computes; `before`, `owed`: of other micro-batches, between F and B and
  /// between I and W. `moves`: activations go to the host; what I leaves to W stays. The last block of a forward
  /// has left when the next action computes.
  [[nodiscard]] std::int64_t held(plan::ActionKind kind, std::int64_t before, std::int64_t owed, bool moves) const;
};

/// What is there beside the run at work while an action computes, as far as it does not depend on blocks.
struct Moment {
  plan::ActionKind kind = plan::ActionKind::Forward;
  std::int64_t before = 0, owed = 0;                            // other micro-batches between F and B, between I and W
  std::int64_t receive_activations = 0, receive_gradients = 0;  // buffers of receives that are posted or not used yet
  std::int64_t send_activations = 0, send_gradients = 0;        // what is on its way
};
/// C15, C16: of a stage with one chunk, from its compute actions; those that never hold most are left out. `first`: no
/// stage is before it.
[[nodiscard]] std::vector<Moment> moments_of(const std::vector<plan::Action>& list, int credits, bool first);
/// Bytes of what crosses a stage's ends.
struct EdgeBytes {
  std::int64_t activation_in = 0, gradient_in = 0, activation_out = 0, gradient_out = 0;
};
/// The most that is there at any of `moments`.
[[nodiscard]] std::int64_t most_held(const std::vector<Moment>& moments, const HeldRun& run, const EdgeBytes& edges,
                                     bool moves);
/// Values that other blocks made and this one's backward keeps, on one device of a mesh.
[[nodiscard]] Bytes shared_bytes(const ModelFacts& facts, const BlockWork& work);

using plan::peak_in_flight;

/// Sum of the parts with C17's margin added to them.
[[nodiscard]] Bytes margin_of(Bytes sum);

}  // namespace coxswain::cost_model
