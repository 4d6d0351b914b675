#include "collective/host/handshake.h"

#include <cstring>
#include <string_view>
#include <type_traits>

#include "collective/host/socket.h"
#include "common/hash.h"

namespace coxswain::collective {
namespace {

constexpr char kMagic[8] = {'C', 'O', 'X', 'C', 'O', 'L', '0', '1'};

enum ReplyStatus : std::uint32_t {
  kWelcome = 0,
  kOtherRun = 1,
  kOtherGeneration = 2,
  kOtherCommunicator = 3,
  kOtherRank = 4,
  kWrongKey = 5
};

template <class Record>
std::string_view text_of(const Record& record) {
  static_assert(std::is_trivially_copyable_v<Record> && std::has_unique_object_representations_v<Record>);
  return {reinterpret_cast<const char*>(&record), sizeof(record)};
}

template <class Record>
std::span<std::byte> bytes_of(Record& record) {
  return std::as_writable_bytes(std::span(&record, 1));
}

template <std::size_t n>
void assign(char (&field)[n], std::string_view text) {
  std::memcpy(field, text.data(), std::min(n, text.size()));
}

template <std::size_t n>
std::string_view view(const char (&field)[n]) {
  return {field, n};
}

std::string mac_of(const Identity& identity, std::string_view side, const Hello& hello, const Reply& reply) {
  std::string text = "coxswain collective ";
  text.append(side).append(text_of(hello)).append(view(reply.nonce));
  return hmac_sha256_hex(identity.job_key, text);
}

Error wrong_key(int rank) {
  return {ErrorCode::Unauthenticated,
          "rank " + std::to_string(rank) + " does not hold this job's key",
          "",
          "the key of the job",
          "another one",
          "start every rank of a job from one `launch train`, or with the same --token-file"};
}

Error stale(int rank, int theirs, int ours) {
  return {ErrorCode::FailedPrecondition,
          "rank " + std::to_string(rank) + " belongs to another generation",
          "",
          "generation " + std::to_string(ours),
          "generation " + std::to_string(theirs),
          "a rank of an ended generation must stop"};
}

Error refused_by(int rank, const Reply& reply, const Identity& identity) {
  switch (reply.status) {
    case kOtherGeneration: return stale(rank, reply.generation, identity.generation);
    case kOtherRun:
      return {ErrorCode::FailedPrecondition,
              "rank " + std::to_string(rank) + " belongs to another run",
              "",
              identity.run_id,
              "",
              ""};
    case kOtherCommunicator:
      return {ErrorCode::FailedPrecondition,
              "rank " + std::to_string(rank) + " listens for another communicator",
              "",
              identity.communicator,
              "",
              ""};
    default:
      return {ErrorCode::FailedPrecondition,
              "another rank answers at the address of rank " + std::to_string(rank),
              "",
              "",
              "",
              ""};
  }
}

}  // namespace

std::string scope_of(const Identity& identity) { return sha256_hex(identity.run_id + "\n" + identity.communicator); }

Result<void> introduce(const UniqueFd& socket, const Identity& identity, int to, ConnectionKind kind,
                       std::span<const int> offered, std::vector<UniqueFd>* taken, Deadline deadline) {
  Hello hello = {};
  assign(hello.magic, view(kMagic));
  hello.kind = static_cast<std::uint32_t>(kind);
  hello.generation = identity.generation;
  hello.from = identity.rank;
  hello.to = to;
  assign(hello.run, sha256_hex(identity.run_id));
  assign(hello.communicator, scope_of(identity));
  assign(hello.nonce, random_hex(16));
  COX_TRY_VOID(send_all(socket, bytes_of(hello), {}, deadline));

  Reply reply = {};
  COX_TRY_VOID(receive_all(socket, bytes_of(reply), nullptr, deadline));
  if (reply.status != kWelcome) return refused_by(to, reply, identity);
  Proof proof = {};
  if (!equal_constant_time(view(reply.mac), mac_of(identity, "acceptor", hello, reply))) {
    // An empty proof lets an honest acceptor report the mistake, too.
    [[maybe_unused]] const auto told = send_all(socket, bytes_of(proof), {}, deadline);
    return wrong_key(to);
  }
  assign(proof.mac, mac_of(identity, "connector", hello, reply));
  COX_TRY_VOID(send_all(socket, bytes_of(proof), offered, deadline));
  Ack ack = {};
  COX_TRY_VOID(receive_all(socket, bytes_of(ack), taken, deadline));
  if (ack.status != kWelcome) return wrong_key(to);
  return {};
}

Admission::Admission(UniqueFd socket, const Identity& identity, std::span<const int> offered)
    : socket_(std::move(socket)), identity_(identity), offered_(offered) {}

Admission::Status Admission::refuse(std::optional<Error> reason) {
  reason_ = std::move(reason);
  socket_.close();
  return Status::Refused;
}

Admission::Status Admission::advance() {
  while (true) {
    const std::span<std::byte> wanted = greeted_ ? bytes_of(proof_) : bytes_of(hello_);
    const Moved moved = receive_some(socket_.value(), wanted.subspan(received_), &descriptors_);
    if (moved.closed) return refuse(std::nullopt);
    received_ += moved.bytes;
    if (received_ < wanted.size()) {
      if (moved.bytes == 0) return Status::Waiting;
      continue;
    }
    received_ = 0;
    if (greeted_) return take_proof();
    if (take_hello() == Status::Refused) return Status::Refused;
    greeted_ = true;
  }
}

Admission::Status Admission::take_hello() {
  if (view(hello_.magic) != view(kMagic)) return refuse(std::nullopt);
  reply_.generation = identity_.generation;
  if (view(hello_.run) != sha256_hex(identity_.run_id)) {
    reply_.status = kOtherRun;
  } else if (hello_.generation != identity_.generation) {
    reply_.status = kOtherGeneration;
  } else if (view(hello_.communicator) != scope_of(identity_)) {
    reply_.status = kOtherCommunicator;
  } else if (hello_.to != identity_.rank) {
    reply_.status = kOtherRank;
  } else {
    assign(reply_.nonce, random_hex(16));
    assign(reply_.mac, mac_of(identity_, "acceptor", hello_, reply_));
  }
  // A fresh connection takes these few bytes at once.
  const Moved moved = send_some(socket_.value(), bytes_of(reply_));
  if (reply_.status == kOtherGeneration) return refuse(stale(hello_.from, hello_.generation, identity_.generation));
  if (reply_.status != kWelcome || moved.bytes != sizeof(reply_)) return refuse(std::nullopt);
  return Status::Waiting;
}

Admission::Status Admission::take_proof() {
  Ack ack = {kWelcome};
  if (!equal_constant_time(view(proof_.mac), mac_of(identity_, "connector", hello_, reply_))) {
    ack.status = kWrongKey;
    [[maybe_unused]] const Moved told = send_some(socket_.value(), bytes_of(ack));
    return refuse(wrong_key(hello_.from));
  }
  const Moved moved = send_some(socket_.value(), bytes_of(ack), offered_);
  if (moved.bytes != sizeof(ack)) return refuse(std::nullopt);
  return Status::Admitted;
}

}  // namespace coxswain::collective
