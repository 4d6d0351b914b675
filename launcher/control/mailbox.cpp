#include "launcher/control/mailbox.h"

#include <algorithm>

#include "proto/control.pb.h"

namespace coxswain::launcher {
namespace {

// Less than a stream's queue holds (proto/channel.h).
constexpr std::uint64_t kMostUnanswered = 4096;

std::string envelope(std::uint64_t number, std::uint64_t taken, std::string_view body) {
  control::Envelope made;
  made.set_number(number);
  made.set_taken(taken);
  made.set_body(std::string(body));
  return made.SerializeAsString();
}

}  // namespace

std::optional<std::string> Mailbox::next() {
  const std::uint64_t offset = sent_ - taken_by_other_;
  if (offset >= kept_.size() || offset >= kMostUnanswered) return std::nullopt;
  ++sent_;
  return envelope(sent_, taken_here_, *kept_[offset]);
}

std::string Mailbox::notice(std::string_view body) const { return envelope(0, taken_here_, body); }

std::optional<Mailbox::Letter> Mailbox::open(std::string_view bytes) {
  control::Envelope came;
  if (!came.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return std::nullopt;
  // A word about letters that never left is none.
  while (taken_by_other_ < came.taken() && !kept_.empty()) {
    kept_.pop_front();
    ++taken_by_other_;
  }
  sent_ = std::max(sent_, taken_by_other_);
  if (came.number() != 0 && came.number() <= taken_here_) return std::nullopt;
  return Letter{came.number(), std::move(*came.mutable_body())};
}

}  // namespace coxswain::launcher
