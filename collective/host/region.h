#pragma once
// Memory that the ranks of one node share: a memfd passed over a Unix socket, so that the kernel frees it with its last
// holder, even after kill -9, and no name exists that a stale generation could open.
// A rank's region holds its doorbell, the word that ends the communicator, one inbox ring per rank of the node and the
// staging slots of the shared-memory collectives. Threads: mapping is owned by one object; contents are atomics or
// guarded by them. Source: DESIGN 3.6.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "collective/algorithm.h"
#include "collective/host/fd.h"
#include "collective/operation_mark.h"

namespace coxswain::collective {

/// A whole memfd, mapped; unmapped with the object.
class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

  /// A sealed memfd of `bytes`: nobody can shrink it under a reader. Errors: ResourceExhausted.
  [[nodiscard]] static Result<UniqueFd> make_memory(std::size_t bytes);
  /// Errors: FailedPrecondition when `fd` is not such a memfd of at least `bytes`.
  [[nodiscard]] static Result<Mapping> map(const UniqueFd& fd, std::size_t bytes);

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// Why a communicator ended, as it is passed from rank to rank (in shared memory and over control connections).
struct Notice {
  std::int32_t code = 0;        // ErrorCode; Unavailable = `world_rank` is lost
  std::int32_t world_rank = 0;  // the lost rank, or the one that ended the communicator
  char text[400] = {};          // NUL-terminated
};

/// Bytes move from one writer to one reader; positions only grow.
struct RingPositions {
  alignas(64) std::atomic<std::uint64_t> written;
  alignas(64) std::atomic<std::uint64_t> read;
};

inline constexpr std::size_t kRingBytes = 256 * 1024;
inline constexpr int kNumStageSlots = 2;

struct RegionHeader {
  // Who made it; checked by whoever maps it.
  char magic[8];
  std::int32_t generation;
  std::int32_t rank;
  std::int32_t num_local;
  char scope[64];  // hash of run and communicator
  char nonce[32];

  alignas(64) std::atomic<std::uint32_t> bell;
  std::atomic<std::uint32_t> sleeper;               // Doorbell::Sleep
  alignas(64) std::atomic<std::uint32_t> ended_by;  // 0, or 1 + the rank whose `notice` tells why
  alignas(64) std::atomic<std::uint64_t> arrivals;  // synchronisations that this rank has reached
  // What it is doing there, by parity of `arrivals`: nobody is two synchronisations ahead of who reads. In the line of
  // `arrivals`, so that reading costs nothing more.
  OperationMark marks[2];
  // The registered buffer of the operation in progress, valid between two synchronisations; id 0 = none.
  alignas(64) std::uint64_t registered_id;
  std::uint64_t registered_offset;
  alignas(64) Notice notice;  // written once, before any `ended_by` names this rank
};

class Region {
 public:
  Region() = default;
  Region(Mapping mapping, int num_local) : mapping_(std::move(mapping)), num_local_(num_local) {}

  [[nodiscard]] static std::size_t bytes_for(int num_local);
  [[nodiscard]] explicit operator bool() const { return mapping_.data() != nullptr; }
  [[nodiscard]] RegionHeader& header() const { return *reinterpret_cast<RegionHeader*>(mapping_.data()); }
  /// The inbox of what local rank `from` sends to this region's owner.
  [[nodiscard]] RingPositions& ring(int from) const;
  [[nodiscard]] std::byte* ring_data(int from) const;
  [[nodiscard]] std::byte* stage(int slot) const;

 private:
  Mapping mapping_;
  int num_local_ = 0;
};

}  // namespace coxswain::collective
