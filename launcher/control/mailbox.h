#pragma once
// One side of a conversation that outlives its connections: messages are numbered and kept until the other side says
// that it took them, so that a new connection goes on where the last one broke, with nothing lost and nothing twice.
// What is not sent yet travels together. Between agent and coordinator, either of which may be away. Threads: one.
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace coxswain::launcher {

class Mailbox {
 public:
  /// A message to be delivered; `body` may lie in other mailboxes too.
  void add(std::shared_ptr<const std::string> body) { kept_.push_back(std::move(body)); }
  void add(std::string body) { add(std::make_shared<const std::string>(std::move(body))); }
  /// The next envelope for the connection that is, with as many of what is not sent as one holds; nullopt: all are
  /// sent, or the other side has many to answer.
  std::optional<std::string> next();
  /// There is a new connection: what the other side did not take is sent again.
  void send_again() { sent_ = taken_by_other_; }
  /// An envelope around what is not kept: a hello, a heartbeat. Like every envelope it says what was taken here.
  [[nodiscard]] std::string notice(std::string_view body) const;

  struct Letter {
    std::uint64_t number = 0;  // 0: a notice
    std::string body;
  };
  /// What an envelope holds, in order, less what was taken before; nothing where it is broken. Takes note of what the
  /// other side took.
  std::vector<Letter> open(std::string_view envelope);
  /// Letters up to `number` are taken: safe here, whatever happens.
  void took(std::uint64_t number) { taken_here_ = number; }
  [[nodiscard]] std::uint64_t taken() const { return taken_here_; }
  [[nodiscard]] std::size_t unsent() const { return kept_.size() - static_cast<std::size_t>(sent_ - taken_by_other_); }
  /// Not yet taken by the other side.
  [[nodiscard]] std::size_t waiting() const { return kept_.size(); }

 private:
  std::deque<std::shared_ptr<const std::string>> kept_;  // from number taken_by_other_ + 1 on
  std::uint64_t taken_by_other_ = 0, sent_ = 0, taken_here_ = 0;
};

}  // namespace coxswain::launcher
