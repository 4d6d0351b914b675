#include "launcher/control/coordinator_line.h"

#include "proto/time_limits.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>

namespace coxswain::launcher {
namespace {

// One try to reach it, which an agent that ends waits for; and between two that were refused at once.
constexpr double kTrySeconds = 0.5, kPauseSeconds = 0.05;

}  // namespace

CoordinatorLine::CoordinatorLine(Target target, std::shared_ptr<proto::Stream> first, std::string hello, Post post,
                                 const Clock& clock)
    : target_(std::move(target)),
      hello_(std::move(hello)),
      post_(std::move(post)),
      clock_(clock),
      heartbeat_(limits::kHeartbeat, clock.now()),
      silence_(target_.silence_seconds, clock.now()) {
  begin(std::move(first));
}

CoordinatorLine::~CoordinatorLine() { close(); }

void CoordinatorLine::begin(std::shared_ptr<proto::Stream> stream) {
  stream_ = std::move(stream);
  ++connection_;
  open_ = true;
  doubted_.reset();
  silence_.heard(clock_.now());
  stream_->send(mailbox_.notice(hello_));
  mailbox_.send_again();
  send_all();
  reader_ = std::jthread([post = post_, stream = stream_, connection = connection_] {
    while (auto envelope = stream->receive()) post({connection, std::move(*envelope), nullptr, false});
    post({connection, std::nullopt, nullptr, false});
  });
}

void CoordinatorLine::connect_again() {
  connector_ =
      std::jthread([this, by = Deadline::after(clock_, Seconds(limits::kCoordinatorBack))](std::stop_token stop) {
        std::mutex mutex;
        std::condition_variable_any stopped;
        while (!stop.stop_requested() && !by.passed(clock_)) {
          auto stream = proto::connect(target_.address, proto::Service::Coordinator, target_.secret,
                                       Deadline::after(clock_, Seconds(kTrySeconds)));
          if (stream) return post_({0, std::nullopt, std::shared_ptr<proto::Stream>(std::move(*stream)), false});
          std::unique_lock lock(mutex);
          stopped.wait_for(lock, stop, std::chrono::duration<double>(kPauseSeconds), [] { return false; });
        }
        post_({0, std::nullopt, nullptr, true});
      });
}

void CoordinatorLine::send(std::string report, Haste haste) {
  mailbox_.add(std::move(report));
  if (haste == Haste::AtOnce) send_all();
}

/// False when nothing was sent.
bool CoordinatorLine::send_all() {
  if (!open_) return false;
  bool sent = false;
  while (auto envelope = mailbox_.next()) sent = stream_->send(std::move(*envelope)) || sent;
  full_ = mailbox_.unsent() > 0;
  if (sent) heartbeat_.sent(clock_.now());
  return sent;
}

std::vector<std::string> CoordinatorLine::handle(const LineEvent& event) {
  if (event.gave_up) lost_ = true;
  if (event.fresh) begin(event.fresh);
  if (event.connection != connection_) return {};
  if (event.envelope) {
    silence_.heard(clock_.now());
    std::vector<std::string> commands;
    for (Mailbox::Letter& letter : mailbox_.open(*event.envelope)) {
      if (letter.number > 0) mailbox_.took(letter.number);
      commands.push_back(std::move(letter.body));
    }
    if (full_) send_all();  // what it took makes room for more
    return commands;
  }
  open_ = false;
  const auto status = stream_->status();
  if (!status && status.error().code == ErrorCode::Unauthenticated)
    lost_ = true;
  else
    connect_again();
  return {};
}

void CoordinatorLine::tick() {
  const TimePoint now = clock_.now();
  if (pause_.stood_still(now)) silence_.heard(now);
  pause_.look(now);
  if (!open_) return;
  if (heartbeat_.due(now) && !send_all()) stream_->send(mailbox_.notice(agent_heartbeat()));
  const bool doubts = now >= silence_.doubtful();
  if (doubts != doubted_.has_value()) {
    stream_->send(mailbox_.notice(doubts ? agent_doubts() : agent_heartbeat()));
    doubted_ = doubts ? std::optional(now) : std::nullopt;
  }
  // What it said has a while to leave.
  if (!silence_.too_long(now) || now < after(*doubted_, limits::kHeartbeat)) return;
  stream_->cancel();  // its reader then says that it ended
  silence_.heard(now);
}

TimePoint CoordinatorLine::next_tick() const {
  return open_ ? std::min(heartbeat_.next(), doubted_ ? std::max(silence_.until(), after(*doubted_, limits::kHeartbeat))
                                                      : silence_.doubtful())
               : after(clock_.now(), limits::kTick);
}

void CoordinatorLine::close() {
  stream_->close();
  stream_->cancel();
}

}  // namespace coxswain::launcher
