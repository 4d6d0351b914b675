#pragma once
// Collectives of ranks that all share one node's memory. A payload goes through staging slots chunk by chunk: each rank
// lays out what others need, synchronises, adds its own slice from everybody's slots in rank order, lays out the sum.
// Registered buffers need no staging: each rank adds its slice straight from the peers' buffers and writes it into
// them.
//
// Two slots make one synchronisation per round enough before a slot is used again: when a rank starts round c, it has
// seen every peer arrive in round c - 1, and so leave round c - 2, which used the same slot.
// Threads: the progress thread. Source: docs/cost_model.md, C6.
#include <optional>
#include <vector>

#include "collective/host/algorithms.h"
#include "collective/host/group.h"
#include "collective/host/registered_memory.h"

namespace coxswain::collective {

/// What went through shared memory since the start.
struct StageTraffic {
  int num_steps = 0;
  std::int64_t sent_bytes = 0;
};

class SharedStage {
 public:
  SharedStage(Group& group, std::shared_ptr<RegisteredMemory> registered)
      : group_(group), registered_(std::move(registered)) {}

  /// What the next call is; every rank of the group must say the same.
  void begin(const OperationMark& mark) { mark_ = mark; }
  /// Errors of this and the following ones, beside Transport's: FailedPrecondition naming two ranks whose marks differ.
  Result<void> all_reduce(Data data, Reducer& reducer, Deadline deadline);
  /// `output` holds this rank's piece already.
  Result<void> all_gather(Data output, const Layout& layout, Deadline deadline);
  Result<void> reduce_scatter(ConstData input, Data output, const Layout& layout, Reducer& reducer, Deadline deadline);
  Result<void> broadcast(Data data, int root, Deadline deadline);
  Result<void> barrier(Deadline deadline) { return synchronise(deadline); }

  [[nodiscard]] const StageTraffic& traffic() const { return traffic_; }

 private:
  Result<void> synchronise(Deadline deadline);
  [[nodiscard]] std::byte* slot_of(int rank) const;
  void next_round() { slot_ = (slot_ + 1) % kNumStageSlots; }
  void lay_out(std::size_t offset, ConstData piece);

  Result<void> reduce_small(Data data, Reducer& reducer, Deadline deadline);
  Result<void> reduce_chunk(Data chunk, Reducer& reducer, Deadline deadline);
  Result<void> announce(Data data);
  /// Every rank's buffer, when all of them are registered.
  Result<std::optional<std::vector<std::byte*>>> registered_buffers(Data data, Deadline deadline);
  Result<void> reduce_in_place(Data data, const std::vector<std::byte*>& buffers, Reducer& reducer, Deadline deadline);

  Group& group_;
  std::shared_ptr<RegisteredMemory> registered_;
  std::vector<std::uint64_t> announced_;  // ids that the peers have
  std::uint64_t arrivals_ = 0;
  OperationMark mark_;
  int slot_ = 0;
  StageTraffic traffic_;
};

}  // namespace coxswain::collective
