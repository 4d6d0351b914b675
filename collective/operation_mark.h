#pragma once
// What an operation is, in 24 bytes: ranks compare marks before they touch each other's data, and name both where they
// differ. Private to collective/. Threads: pure values.
#include <cstdint>
#include <string>
#include <vector>

#include "collective/communicator.h"

namespace coxswain::collective {

struct OperationMark {
  enum Kind : std::uint8_t { kNone, kAllReduce, kAllGather, kReduceScatter, kAllToAll, kBroadcast, kBarrier, kMessage };

  std::uint64_t count = 0;     // elements of the whole buffer, or of the message
  std::uint32_t sequence = 0;  // of the collectives of this communicator, or of the messages of this pair; from 1
  std::uint32_t detail = 0;    // root, a hash of counts by rank, or 1 + the peer of a message where only told
  std::uint8_t kind = kNone;
  std::uint8_t dtype = 0;
  std::uint8_t op = 0;        // ReduceOp; of a message that is only told: 1 if it is received
  std::uint8_t magic = 0xc5;  // tells a mark from what remains of another operation
  std::uint32_t unused = 0;

  friend bool operator==(const OperationMark&, const OperationMark&) = default;

  /// Of a collective; ranks agree on all of it. `dtype` and `count` of `buffer`.
  [[nodiscard]] static OperationMark of(Kind kind, const BufferView& buffer, std::uint32_t detail = 0,
                                        ReduceOp op = ReduceOp::Sum);
  /// Of one message between two ranks, inside an exchange or an all_to_all.
  [[nodiscard]] static OperationMark message(DType dtype, std::uint64_t count, std::uint32_t sequence);
  /// Whether each message of it has a size of its own.
  [[nodiscard]] bool is_of_messages() const { return kind == kAllToAll || kind == kMessage; }
};
static_assert(sizeof(OperationMark) == 24);

[[nodiscard]] std::uint32_t hash_of(const std::vector<std::int64_t>& counts);

/// "all_reduce of 100 float32, sum (collective 3)", "a message of 64 float32 (number 2)", "no operation".
[[nodiscard]] std::string to_text(const OperationMark& mark);

/// FailedPrecondition that names both sides; ranks are those of the world.
[[nodiscard]] Error mismatch(int own_rank, const OperationMark& own, int other_rank, const OperationMark& other);

}  // namespace coxswain::collective
