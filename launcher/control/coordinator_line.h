#pragma once
// The agent's conversation with the coordinator: over a connection that is made again when it breaks, for a coordinator
// that is killed is restarted, and the ranks go on meanwhile. Called by agent_process.cpp. Threads: one; events are
// posted from threads of its own.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/clock.h"
#include "common/result.h"
#include "launcher/control/haste.h"
#include "launcher/control/liveness.h"
#include "launcher/control/mailbox.h"
#include "proto/channel.h"

namespace coxswain::launcher {

/// Posted; each is handed back to `handle`.
struct LineEvent {
  int connection = 0;                    // which one, from 1 on
  std::optional<std::string> envelope;   // came over it; nullopt: it ended, unless `fresh`
  std::shared_ptr<proto::Stream> fresh;  // a new connection
  bool gave_up = false;                  // nobody answers any more
};

class CoordinatorLine {
 public:
  struct Target {
    std::string address;
    proto::Secret secret;
    double silence_seconds = limits::kSilence;  // after which a connection is cut
  };
  using Post = std::function<void(LineEvent)>;

  /// `first`: a connection to `target`. `hello`: the report that every connection begins with.
  CoordinatorLine(Target target, std::shared_ptr<proto::Stream> first, std::string hello, Post post,
                  const Clock& clock);
  ~CoordinatorLine();
  CoordinatorLine(const CoordinatorLine&) = delete;
  CoordinatorLine& operator=(const CoordinatorLine&) = delete;

  /// Kept until the coordinator has it on its disk. Reports arrive in order: what waits for a heartbeat leaves before
  /// one that does not.
  void send(std::string report, Haste haste = Haste::AtOnce);
  /// Commands that are new, in order, when the event brought some.
  std::vector<std::string> handle(const LineEvent& event);
  /// Heartbeats, where nothing else was sent; a silent connection is cut. Call at `next_tick`.
  void tick();
  [[nodiscard]] TimePoint next_tick() const;
  /// The coordinator is gone for good.
  [[nodiscard]] bool lost() const { return lost_; }
  [[nodiscard]] bool connected() const { return open_; }
  /// Why, where the connection itself says it. Errors: Unauthenticated, Unavailable.
  [[nodiscard]] Result<void> status() const { return stream_->status(); }
  /// Sends what is queued and hangs up.
  void close();

 private:
  void begin(std::shared_ptr<proto::Stream> stream);
  void connect_again();
  bool send_all();

  Target target_;
  std::string hello_;
  Post post_;
  const Clock& clock_;
  Mailbox mailbox_;
  std::shared_ptr<proto::Stream> stream_;
  int connection_ = 0;
  bool open_ = false, lost_ = false;
  std::optional<TimePoint> doubted_;  // told that it is about to hang up, and not heard since
  bool full_ = false;                 // there was more to send than may be on its way
  Heartbeat heartbeat_;
  Silence silence_;
  OwnPause pause_;  // between ticks
  std::jthread reader_, connector_;
};

}  // namespace coxswain::launcher
