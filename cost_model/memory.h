#pragma once
// Memory of one device of a stage, with its parts. Called by estimate_memory (whole plans) and the planner (spans).
// Threads: pure. Source: docs/cost_model.md, C14-C17.
#include <vector>

#include "cost_model/cost_model.h"
#include "plan/schedule.h"

namespace coxswain::cost_model {

/// C17: what an allocator loses to rounding and the model to what it does not see, as a share of everything else.
inline constexpr double kMemoryMarginFraction = 0.05;

/// What one device of a tensor axis holds of a run of blocks, in elements.
struct PersistentElements {
  std::int64_t held = 0;     // trainable, owned or copied: gradients live here
  std::int64_t owned = 0;    // trainable, updated here
  std::int64_t largest = 0;  // trainable, of the block that has most
  Bytes frozen{0};           // parameters that are not trained, buffers
};
[[nodiscard]] PersistentElements count_persistent(const ModelFacts& facts, int first_block, int end_block,
                                                  int tensor = 1);
/// The same of a stage with several chunks; a parameter that two of them use counts once.
[[nodiscard]] PersistentElements count_persistent(const ModelFacts& facts, const std::vector<plan::BlockRun>& runs,
                                                  int tensor = 1);

/// Bytes of what stays for the whole run (C14, C26).
struct PersistentMemory {
  Bytes parameters{0}, gradients{0}, optimizer{0};
  Bytes gathered{0};                // whole parameters or gradients of the blocks at work, where ZeRO splits them
  std::int64_t owned_elements = 0;  // updated by this device
  std::int64_t held_elements = 0;
};
/// `zero_stage` over `replicas` devices that hold equal shards.
[[nodiscard]] PersistentMemory estimate_persistent_memory(const PersistentElements& elements, plan::Precision precision,
                                                          int zero_stage = 0, std::int64_t replicas = 1);
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
  std::vector<plan::Action> list;          // whose peak counts (C15); empty: `in_flight` micro-batches
  int in_flight = 1;
  struct EdgeWork {
    std::vector<int> cuts;  // that it carries
    int credits = 2;        // receive buffers
  };
  std::vector<EdgeWork> edges_in, edges_out;  // from and to other stages, by the way of activations
  int tensor = 1, zero_stage = 0;
  std::int64_t replicas = 1;
};
[[nodiscard]] plan::MemoryParts estimate_stage_memory(const CostModel& cost, const StageWork& work);

using plan::peak_in_flight;

/// Sum of the parts with C17's margin added to them.
[[nodiscard]] Bytes margin_of(Bytes sum);

}  // namespace coxswain::cost_model
