#include "collective/host/group.h"

#include <algorithm>
#include <cstring>

#include "collective/host/socket.h"
#include "common/ensure.h"

namespace coxswain::collective {
namespace {

// A rank that computes answers within a microsecond or within milliseconds: longer spinning only takes the core away
// from the rank that is waited for.
constexpr int kSpins = 100;
// A peer's watcher answers within a millisecond, on a busy machine within a second, unless its process is stopped.
constexpr double kAnswerSeconds = 5;
constexpr int kMaxOthers = 8;

Notice make_notice(ErrorCode code, int world_rank, const std::string& text) {
  Notice notice;
  notice.code = static_cast<std::int32_t>(code);
  notice.world_rank = world_rank;
  const std::size_t length = std::min(text.size(), sizeof(notice.text) - 1);
  std::memcpy(notice.text, text.data(), length);
  return notice;
}

std::string text_of(const Notice& notice) { return {notice.text, ::strnlen(notice.text, sizeof(notice.text))}; }

std::string name_of(int world_rank) { return "rank " + std::to_string(world_rank); }

Error lost(int world_rank, const std::string& how) {
  return {ErrorCode::Unavailable, "lost " + name_of(world_rank) + ": " + how, name_of(world_rank), "", "", ""};
}

}  // namespace

Group::Group(GroupParts parts) : parts_(std::move(parts)) {
  if (size() == 1) return;
  bell_ = Doorbell(&parts_.region.header(), parts_.event.value());
  for (auto& peer : parts_.peers) {
    if (!peer) continue;
    if (peer->region) peer->bell = Doorbell(&peer->region.header(), peer->event.value());
    peer->watch = parts_.watcher->watch(peer->control.value(), [this, p = peer.get()] { return read_control(*p); });
  }
}

Group::~Group() {
  for (auto& peer : parts_.peers) {
    if (peer) parts_.watcher->forget(peer->watch);
  }
}

Error Group::error() const {
  const std::lock_guard lock(mutex_);
  COX_ENSURE(error_.has_value());
  return *error_;
}

void Group::fail(Error error) {
  const int self = parts_.world_ranks[static_cast<std::size_t>(rank())];
  Notice notice =
      make_notice(error.code == ErrorCode::Unavailable ? ErrorCode::Aborted : error.code, self, error.message);
  fail_as(std::move(error), notice);
}

void Group::fail_as(Error error, Notice notice) {
  {
    const std::lock_guard lock(mutex_);
    if (error_) return;
    error_ = std::move(error);
    if (size() > 1) parts_.region.header().notice = notice;
    failed_.store(true, std::memory_order_release);
  }
  if (size() == 1) return;
  bell_.ring();
  ControlMessage message;
  message.kind = ControlMessage::kEnded;
  message.notice = notice;
  for (auto& peer : parts_.peers) {
    if (!peer) continue;
    if (peer->region) {
      std::uint32_t nobody = 0;
      peer->region.header().ended_by.compare_exchange_strong(nobody, static_cast<std::uint32_t>(rank()) + 1);
      peer->bell.ring();
    }
    send_control(*peer, message);
  }
}

void Group::adopt(int from, const Notice& notice) {
  const int self = parts_.world_ranks[static_cast<std::size_t>(rank())];
  const int world_rank = parts_.world_ranks[static_cast<std::size_t>(from)];
  const auto code = static_cast<ErrorCode>(notice.code);
  if (code == ErrorCode::Unavailable && notice.world_rank != self) {
    return fail_as(lost(notice.world_rank, text_of(notice)), notice);
  }
  // Whoever passes it on, it is the first one's reason.
  const int first = code == ErrorCode::Unavailable ? world_rank : notice.world_rank;
  fail_as(
      {ErrorCode::Aborted, name_of(first) + " ended the communicator: " + text_of(notice), name_of(first), "", "", ""},
      notice);
}

Result<void> Group::check() {
  if (failed()) return error();
  const std::uint32_t ended_by = parts_.region.header().ended_by.load(std::memory_order_acquire);
  if (ended_by == 0) return {};
  const int from = static_cast<int>(ended_by) - 1;
  if (from < 0 || from >= size() || from == rank() || !peer(from).region) return {};
  adopt(from, peer(from).region.header().notice);
  return error();
}

Error Group::absent(const Peer& peer) {
  const std::string how = "it left the communicator while others waited for it";
  fail_as(lost(peer.world_rank, how), make_notice(ErrorCode::Unavailable, peer.world_rank, how));
  return error();
}

void Group::farewell() {
  ControlMessage message;
  message.kind = ControlMessage::kFarewell;
  for (auto& peer : parts_.peers) {
    if (peer) send_control(*peer, message);
  }
}

bool Group::send_control(Peer& peer, const ControlMessage& message, int descriptor) {
  const std::lock_guard lock(peer.sending);
  const std::span<const int> descriptors(&descriptor, descriptor >= 0 ? 1 : 0);
  // Few and small: they fit the socket's buffer unless the peer is stopped, and then nobody waits for it here.
  const auto sent = send_some(peer.control.value(), std::as_bytes(std::span(&message, 1)), descriptors);
  return sent.bytes == sizeof(message);
}

bool Group::read_control(Peer& peer) {
  while (true) {
    const auto wanted = std::as_writable_bytes(std::span(&peer.incoming, 1)).subspan(peer.incoming_bytes);
    const Moved moved = receive_some(peer.control.value(), wanted, &peer.incoming_descriptors);
    if (moved.closed) {
      if (!peer.left.load()) {
        const std::string how = "its connection closed (the process ended or its host is gone)";
        fail_as(lost(peer.world_rank, how), make_notice(ErrorCode::Unavailable, peer.world_rank, how));
      }
      return false;
    }
    if (moved.bytes == 0) return true;
    peer.incoming_bytes += moved.bytes;
    if (peer.incoming_bytes < sizeof(peer.incoming)) continue;
    peer.incoming_bytes = 0;
    if (!take_control(peer)) return false;
  }
}

bool Group::take_control(Peer& peer) {
  switch (peer.incoming.kind) {
    case ControlMessage::kFarewell: peer.left.store(true, std::memory_order_release); break;
    case ControlMessage::kEnded: adopt(peer.rank, peer.incoming.notice); return false;
    case ControlMessage::kMemory: {
      if (peer.incoming_descriptors.empty()) break;
      const UniqueFd fd = std::move(peer.incoming_descriptors.back());
      peer.incoming_descriptors.clear();
      auto mapping = Mapping::map(fd, peer.incoming.memory_bytes);
      if (!mapping) {
        fail(std::move(mapping).error());
        return false;
      }
      const std::lock_guard lock(mutex_);
      shared_memory_[{peer.rank, peer.incoming.memory_id}] = std::move(*mapping);
      break;
    }
    case ControlMessage::kAsk: {
      ControlMessage answer;
      answer.kind = ControlMessage::kTell;
      answer.notice =
          make_notice(ErrorCode::Unknown, parts_.world_ranks[static_cast<std::size_t>(rank())], to_text(current()));
      send_control(peer, answer);
      return true;
    }
    case ControlMessage::kTell: {
      const std::lock_guard lock(mutex_);
      answers_[peer.rank] = text_of(peer.incoming.notice);
      break;
    }
    default:
      fail({ErrorCode::Internal, "unknown control message from " + name_of(peer.world_rank), "", "", "", ""});
      return false;
  }
  bell_.ring();
  return true;
}

void Group::set_current(const OperationMark& mark) {
  const std::lock_guard lock(mutex_);
  current_ = mark;
}

OperationMark Group::current() const {
  const std::lock_guard lock(mutex_);
  return current_;
}

std::string Group::describe(std::span<const int> waited_for) {
  {
    const std::lock_guard lock(mutex_);
    answers_.clear();
  }
  ControlMessage question;
  question.kind = ControlMessage::kAsk;
  int num_asked = 0;
  for (auto& peer : parts_.peers)
    if (peer && send_control(*peer, question)) ++num_asked;
  const Deadline patience = Deadline::after(steady_clock(), Seconds(kAnswerSeconds));
  const auto all_answered = [&] {
    const std::lock_guard lock(mutex_);
    return static_cast<int>(answers_.size()) >= num_asked;
  };
  while (true) {
    const std::uint32_t seen = bell_.seen();
    if (all_answered() || failed() || patience.passed(steady_clock())) break;
    bell_.sleep(seen, patience);
  }
  const std::string own = to_text(current());
  std::string text = name_of(parts_.world_ranks[static_cast<std::size_t>(rank())]) + ": " + own;
  const std::lock_guard lock(mutex_);
  for (const int rank : waited_for) {
    const auto answer = answers_.find(rank);
    text += "; " + name_of(peer(rank).world_rank) + ": " + (answer == answers_.end() ? "silent" : answer->second);
  }
  // Who is waited for may itself wait for one that does something else.
  int num_others = 0;
  for (const auto& [rank, answer] : answers_) {
    const bool listed = std::find(waited_for.begin(), waited_for.end(), rank) != waited_for.end();
    if (listed || answer == own || ++num_others > kMaxOthers) continue;
    text += "; " + name_of(peer(rank).world_rank) + ": " + answer;
  }
  return text;
}

Result<void> Group::share_memory(std::uint64_t id, const UniqueFd& fd, std::size_t bytes) {
  ControlMessage message;
  message.kind = ControlMessage::kMemory;
  message.memory_id = id;
  message.memory_bytes = bytes;
  for (auto& peer : parts_.peers) {
    if (peer && peer->region && !send_control(*peer, message, fd.value())) {
      return Error{ErrorCode::Unavailable,
                   "cannot pass memory to " + name_of(peer->world_rank),
                   name_of(peer->world_rank),
                   "",
                   "",
                   ""};
    }
  }
  return {};
}

std::byte* Group::shared_memory(int rank, std::uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = shared_memory_.find({rank, id});
  return found == shared_memory_.end() ? nullptr : found->second.data();
}

Result<void> Waiter::pause(std::span<const pollfd> sockets, std::span<const int> waited_for) {
  COX_TRY_VOID(group_.check());
  if (++spins_ < kSpins && sockets.empty()) {
    spin_once();
    return {};
  }
  if (deadline_.passed(steady_clock())) {
    std::string names;
    for (const int rank : waited_for) {
      names += (names.empty() ? "" : ", ") + std::to_string(group_.world_ranks()[static_cast<std::size_t>(rank)]);
    }
    std::vector<int> ranks(waited_for.begin(), waited_for.end());
    std::sort(ranks.begin(), ranks.end());
    ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
    return Error{ErrorCode::DeadlineExceeded,
                 "the deadline passed while waiting for rank " + names + " (" + group_.describe(ranks) + ")",
                 "",
                 "",
                 "",
                 ""};
  }
  if (sockets.empty()) {
    group_.bell().sleep(seen_, deadline_);
  } else {
    group_.bell().sleep(seen_, sockets, deadline_);
  }
  return {};
}

}  // namespace coxswain::collective
