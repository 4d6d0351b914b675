#pragma once
// Who may connect: both sides of every connection prove that they hold the job's key, by an HMAC over both nonces and
// over (run, generation, communicator, ranks), before anything else is said. The key itself is never sent.
//
//   connector                          acceptor
//   Hello(who, to whom, nonce)  --->
//                               <---   Reply(status, nonce, HMAC)     refusal: other run, generation or communicator
//   Proof(HMAC) [+ descriptors] --->
//                               <---   Ack(status) [+ descriptors]
//
// Records are fixed and in the machine's byte order: ranks of one job run the same build. Source: DESIGN 3.6, 3.8.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "collective/host/fd.h"
#include "common/clock.h"

namespace coxswain::collective {

enum class ConnectionKind : std::uint32_t { Control = 1, Data = 2 };

/// What a rank knows of itself and of the communicator.
struct Identity {
  std::string job_key;
  std::string run_id;
  int generation = 1;
  std::string communicator;  // same text on its ranks, another for every split
  int rank = 0;
};

/// 64 hex digits that name (run, communicator).
[[nodiscard]] std::string scope_of(const Identity& identity);

struct Hello {
  char magic[8];
  std::uint32_t kind;
  std::int32_t generation;
  std::int32_t from;
  std::int32_t to;
  char run[64];
  char communicator[64];
  char nonce[32];
};

struct Reply {
  std::uint32_t status;
  std::int32_t generation;
  char nonce[32];
  char mac[64];
};

struct Proof {
  char mac[64];
};

struct Ack {
  std::uint32_t status;
};

/// Runs the connector's side. `offered` goes with the proof, what comes with the Ack into `taken` (control connections
/// on Unix sockets). Errors: Unauthenticated (another key), FailedPrecondition (stale generation, other run or
/// communicator), Unavailable, DeadlineExceeded.
[[nodiscard]] Result<void> introduce(const UniqueFd& socket, const Identity& identity, int to, ConnectionKind kind,
                                     std::span<const int> offered, std::vector<UniqueFd>* taken, Deadline deadline);

/// One connection on the acceptor's side; moves whenever its socket is readable.
class Admission {
 public:
  /// `offered` is borrowed and given only to who has proved itself.
  Admission(UniqueFd socket, const Identity& identity, std::span<const int> offered);

  enum class Status { Waiting, Admitted, Refused };
  [[nodiscard]] Status advance();
  [[nodiscard]] int socket() const { return socket_.value(); }

  /// Of an admitted one.
  [[nodiscard]] int from() const { return hello_.from; }
  [[nodiscard]] ConnectionKind kind() const { return static_cast<ConnectionKind>(hello_.kind); }
  [[nodiscard]] UniqueFd take_socket() { return std::move(socket_); }
  [[nodiscard]] std::vector<UniqueFd> take_descriptors() { return std::move(descriptors_); }
  /// Of a refused one; empty when it said too little to tell.
  [[nodiscard]] const std::optional<Error>& reason() const { return reason_; }

 private:
  Status refuse(std::optional<Error> reason);
  Status take_hello();
  Status take_proof();

  UniqueFd socket_;
  const Identity& identity_;
  std::span<const int> offered_;
  std::vector<UniqueFd> descriptors_;
  Hello hello_ = {};
  Reply reply_ = {};
  Proof proof_ = {};
  bool greeted_ = false;
  std::size_t received_ = 0;
  std::optional<Error> reason_;
};

}  // namespace coxswain::collective
