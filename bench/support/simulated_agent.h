#pragma once
// A node of a simulated run: an agent with its ranks, which does what launcher/control/agent and coordinator_line do,
// without processes. It keeps what the coordinator has not taken, comes back over new connections, starts and ends
// ranks as it is told, and reports what becomes of them. Called by coordinator_world. Threads: one.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/support/simulated_network.h"
#include "launcher/control/mailbox.h"
#include "proto/control.pb.h"

namespace coxswain::bench {

class World;

class SimulatedAgent final : public ConnectionEnd {
 public:
  struct Rank {
    int number = 0, local_device = 0;
    bool alive = true, connected = false, addressed = false, hung = false, parked = false;
    TimePoint lives_until{};  // whatever kills it
  };

  /// `index`: in the world. `node_rank`: that it asks for, -1: any.
  SimulatedAgent(World& world, int index, int node_rank);

  void connect();
  /// Heartbeat, and a look at the coordinator's silence. Call every kBeatSeconds.
  void beat();
  void arrived(Connection& connection, std::string body) override;
  void ended(Connection& connection) override;

  /// What its ranks do together with those of other nodes; `serial` of the generation that is meant.
  void measured(int serial);
  /// Soon: each node tells of a step a little later than it was taken.
  void step_taken(std::int64_t step, bool saves, bool last);
  void finish(int serial);
  void peers_lost(int serial);
  /// What its ranks were to begin from is not there.
  void state_lost(int serial);

  // Faults.
  void lose(bool silently);
  void cut(double seconds);
  void break_connection();
  void kill_rank(std::size_t index, const std::string& cause);
  void fail_rank(std::size_t index);
  void lose_peer(std::size_t index);
  void hang_rank(std::size_t index, double seconds);
  void outlive_kill(std::size_t index, double seconds);
  /// False: it keeps none, or they are used again already.
  [[nodiscard]] bool end_kept_rank(std::uint64_t choice);
  void report_late(std::uint64_t choice);
  void fail_save() { save_fails_ = true; }
  void fail_spawn() { spawn_fails_ = true; }
  /// A violation on purpose: it says that its ranks are gone, and they are not.
  void end_too_early() { ends_too_early_ = true; }

  [[nodiscard]] int index() const { return index_; }
  [[nodiscard]] const std::string& id() const { return id_; }
  [[nodiscard]] bool alive() const { return alive_; }  // has not left
  [[nodiscard]] bool connected() const { return connection_ != nullptr; }
  [[nodiscard]] const TimePoint& cut_until() const { return cut_until_; }
  /// -1: none.
  [[nodiscard]] int generation() const { return running_ ? running_->number : -1; }
  [[nodiscard]] int serial() const { return running_ ? running_->serial : 0; }
  [[nodiscard]] const std::vector<Rank>& ranks() const { return running_->ranks; }
  [[nodiscard]] bool stopping() const { return running_ && running_->stopping; }

 private:
  struct Running {
    int number = 0, serial = 0;
    bool stopping = false;
    std::vector<Rank> ranks;
    int world_size = 0;
    std::int64_t told_step = 0;                     // the last one that its ranks told, or began after
    int taken_in = 0;                               // the generation that took that step
    std::vector<coxswain::control::RankHeld> held;  // of ranks that let go of it
  };
  /// State of a step in the memory of a rank that was kept.
  struct Held {
    int rank = 0, local_device = 0, generation = 0;
    std::int64_t step = 0;
    std::vector<int> parameters;
  };
  void send(const coxswain::control::AgentReport& report);
  void send_worker(int rank, coxswain::control::WorkerReport report);
  void send_all();
  void on_command(const coxswain::control::AgentCommand& command);
  void start(const coxswain::control::StartGeneration& start);
  void become_ready(int serial);
  void take_addresses(const coxswain::control::RankAddresses& addresses);
  void stop(bool keeps = false);
  void keep_states();
  void kill_all(int serial);
  void write_shards(int serial, std::int64_t step, bool last);
  void step_done(int serial, std::int64_t step, bool saves, bool last);
  void end_finished(int serial);
  void report_failure(const Rank& rank, bool peer_lost);
  void end_rank(Rank& rank, const std::string& cause, bool clean, bool peer_lost);
  void end_if_done();
  void leave();
  [[nodiscard]] bool runs(int serial) const { return alive_ && running_ && running_->serial == serial; }

  World& world_;
  int index_ = 0;
  std::string id_, hello_;
  launcher::Mailbox mailbox_;
  std::shared_ptr<Connection> connection_;
  TimePoint heard_{}, give_up_at_{}, cut_until_{}, reports_at_{}, written_at_{};
  std::optional<Running> running_;
  std::vector<Held> held_;
  int serials_ = 0;
  bool alive_ = true, over_ = false, save_fails_ = false, spawn_fails_ = false, ends_too_early_ = false;
};

}  // namespace coxswain::bench
