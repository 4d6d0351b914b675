#include "launcher/control/mailbox.h"

#include <algorithm>

#include "proto/control.pb.h"

namespace coxswain::launcher {
namespace {

// Less than a stream's queue holds (proto/channel.h).
constexpr std::uint64_t kMostUnanswered = 4096;
// An envelope that holds more takes no further letter: far less than a message may have.
constexpr std::size_t kFullBytes = std::size_t{1} << 20;

}  // namespace

std::optional<std::string> Mailbox::next() {
  control::Envelope made;
  made.set_number(sent_ + 1);
  made.set_taken(taken_here_);
  const std::uint64_t end = std::min<std::uint64_t>(kept_.size(), kMostUnanswered);
  std::size_t size = 0;
  for (std::uint64_t at = sent_ - taken_by_other_; at < end && size < kFullBytes; ++at, ++sent_) {
    made.add_body(*kept_[at]);
    size += kept_[at]->size();
  }
  if (made.body().empty()) return std::nullopt;
  return made.SerializeAsString();
}

std::string Mailbox::notice(std::string_view body) const {
  control::Envelope made;
  made.set_taken(taken_here_);
  made.add_body(std::string(body));
  return made.SerializeAsString();
}

std::vector<Mailbox::Letter> Mailbox::open(std::string_view bytes) {
  control::Envelope came;
  if (!came.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return {};
  // A word about letters that never left is none.
  while (taken_by_other_ < came.taken() && !kept_.empty()) {
    kept_.pop_front();
    ++taken_by_other_;
  }
  sent_ = std::max(sent_, taken_by_other_);
  std::vector<Letter> letters;
  std::uint64_t number = came.number();
  for (std::string& body : *came.mutable_body()) {
    if (number == 0 || number > taken_here_) letters.push_back({number, std::move(body)});
    if (number > 0) ++number;
  }
  return letters;
}

}  // namespace coxswain::launcher
