#pragma once
// A simulated connection between an agent and the coordinator: messages arrive in order and late; it breaks, falls
// silent, or is cut with the agent's network. Called by the simulated agents and the simulated coordinator. Threads:
// one.
#include <memory>
#include <string>

#include "bench/support/simulated_time.h"
#include "proto/channel.h"

namespace coxswain::bench {

class Connection;

/// Who is at an end of it.
class ConnectionEnd {
 public:
  virtual ~ConnectionEnd() = default;
  virtual void arrived(Connection& connection, std::string body) = 0;
  virtual void ended(Connection& connection) = 0;
};

/// As the coordinator's side sees it, a stream; the agent's side is the functions beside that.
class Connection final : public proto::Stream, public std::enable_shared_from_this<Connection> {
 public:
  /// `agent` and what `cut_until` points to live as long as the simulation; the coordinator's process may end.
  Connection(SimulatedTime& time, SeededRandom& random, ConnectionEnd& agent, const TimePoint& cut_until,
             std::weak_ptr<ConnectionEnd> coordinator)
      : time_(time), random_(random), agent_(agent), cut_until_(cut_until), coordinator_(std::move(coordinator)) {}

  bool send(std::string body) override;
  std::optional<std::string> receive() override { return std::nullopt; }
  void close() override {}
  /// The coordinator's side gives it up, or its process is gone: the agent learns of it when its network lets it.
  void cancel() override { end(false); }
  [[nodiscard]] Result<void> status() const override { return {}; }
  [[nodiscard]] const std::string& run_id() const override { return run_id_; }

  void send_up(std::string body);
  /// The agent's side gives it up, or its process is gone.
  void hang_up() { end(true); }
  /// So, after what is on its way has arrived.
  void hang_up_after_last();
  /// Its machine is gone: nothing arrives any more, and nobody says so.
  void vanish() { vanished_ = true; }

  int line = -1;  // the coordinator's number of it

 private:
  void end(bool by_agent);
  [[nodiscard]] TimePoint arrival(TimePoint& last);

  SimulatedTime& time_;
  SeededRandom& random_;
  ConnectionEnd& agent_;
  const TimePoint& cut_until_;
  std::weak_ptr<ConnectionEnd> coordinator_;
  std::string run_id_ = "run";
  bool open_ = true, vanished_ = false;
  TimePoint last_up_{}, last_down_{};
};

}  // namespace coxswain::bench
