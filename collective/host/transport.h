#pragma once
// The seam under the algorithms: moves messages between the ranks of one communicator. Fakes: in memory and counting,
// in tests/collective. Messages of an ordered pair of ranks arrive in order; sizes are agreed beforehand. Threads: one
// (the communicator's progress thread). Source: DESIGN 3.6.
#include <cstddef>
#include <span>

#include "common/clock.h"
#include "common/dtype.h"
#include "common/result.h"

namespace coxswain::collective {

/// Borrowed memory, sent to or received from `peer`.
struct Transfer {
  enum class Kind { Send, Receive } kind = Kind::Send;
  int peer = 0;
  std::byte* data = nullptr;
  std::size_t bytes = 0;
  DType dtype = DType::UInt8;  // for messages: what its bytes are

  [[nodiscard]] static Transfer send(int peer, std::span<const std::byte> piece, DType dtype = DType::UInt8) {
    return {Kind::Send, peer, const_cast<std::byte*>(piece.data()), piece.size(), dtype};
  }
  [[nodiscard]] static Transfer receive(int peer, std::span<std::byte> piece, DType dtype = DType::UInt8) {
    return {Kind::Receive, peer, piece.data(), piece.size(), dtype};
  }
};

class Transport {
 public:
  virtual ~Transport() = default;
  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int size() const = 0;
  /// Performs all of `transfers`, progressing together; those to oneself are matched in order.
  /// Errors: DeadlineExceeded, Unavailable, Aborted.
  virtual Result<void> exchange(std::span<const Transfer> transfers, Deadline deadline) = 0;
};

}  // namespace coxswain::collective
