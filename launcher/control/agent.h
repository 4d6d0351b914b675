#pragma once
// The agent's decisions for one node: starts the workers of a generation, passes their reports up and commands down,
// and names why one ended. Knows no socket and no thread: streams are functions, processes a Spawner, time is passed
// in. Called by the agent's event loop and tests. Threads: one. Source: DESIGN 3.8.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/clock.h"
#include "launcher/control/agent_figures.h"
#include "launcher/control/devices.h"
#include "launcher/control/haste.h"
#include "launcher/control/spawner.h"

namespace coxswain::launcher {

struct AgentSetup {
  std::string key;                    // given to workers by descriptor
  std::filesystem::path log_dir;      // of generations from 1 on
  std::filesystem::path scratch_dir;  // 0700: sockets, key file for mpirun, logs of measuring
  std::filesystem::path worker_program;
  std::string worker_target;                       // "unix:/..." that workers connect to
  std::string local_addr, node;                    // `node`: equal text = same agent
  std::string files_address;                       // of this agent's service for files of checkpoints
  std::map<std::string, std::string> local_files;  // where a file that the run reads lies here, by what ranks are told
  bool local = false;                              // whoever started it asks the coordinator itself; a signal means now
  std::vector<LocalDevice> devices;
};

class Agent {
 public:
  using ToCoordinator = std::function<void(std::string, Haste)>;
  /// To the worker of `rank` that is process `pid`; dropped where that process has not said hello.
  using ToWorker = std::function<void(int rank, int pid, std::string)>;

  Agent(AgentSetup setup, Spawner& spawner, ToCoordinator to_coordinator, ToWorker to_worker);
  ~Agent();

  /// Serialised AgentReport with the hello.
  [[nodiscard]] std::string hello(int node_rank, const std::string& host, double cores, Bytes memory,
                                  const std::string& cuda_note) const;

  void on_command(std::string_view body, TimePoint now);  // AgentCommand
  /// A WorkerReport over the stream of the worker that said hello with `pid`; it travels on with `haste`.
  void on_worker_report(int rank, int pid, std::string_view body, Haste haste, TimePoint now);
  /// The stream of the worker that said hello with `pid` ended.
  void on_worker_gone(int rank, int pid, TimePoint now);
  void on_process_exit(const ProcessExit& exit, TimePoint now);
  void on_coordinator_lost(TimePoint now);
  /// The first one asks the coordinator to save and end the run, as this node's scheduler will take it away.
  void on_signal(int number, TimePoint now);
  /// Kill deadlines, and ranks that are stopped; call at `next_tick`, which what it is told brings nearer.
  void on_tick(TimePoint now);
  [[nodiscard]] TimePoint next_tick() const;

  /// The run is over and every worker is gone.
  [[nodiscard]] bool over() const { return over_ && !generation_; }
  [[nodiscard]] int exit_code() const { return exit_code_; }
  [[nodiscard]] const std::string& final_text() const { return final_text_; }
  /// As the ranks are now.
  [[nodiscard]] AgentFigures figures() const;
  /// Log files that --tee copies, with the rank: (rank, file).
  [[nodiscard]] const std::vector<std::pair<int, std::filesystem::path>>& log_files() const { return log_files_; }

 private:
  struct Rank;
  struct Generation;
  /// A process that let go of its generation and waits for the next one.
  struct Kept {
    int rank = 0, local_device = 0, pid = 0;
  };
  void tell(const Rank& rank, std::string body);
  void start(std::string_view start_bytes, TimePoint now);
  Result<void> spawn_ranks(Generation& generation);
  Result<void> spawn_mpirun(Generation& generation);
  [[nodiscard]] std::string assignment_of(const Rank& rank) const;
  [[nodiscard]] int take_kept(const Rank& rank);
  void end_kept();
  void stop(double grace_seconds, TimePoint now, bool keeps = false);
  void kill_all(int signal);
  void kill_rank(Rank& rank, int signal);
  void end_stopped_ranks();
  [[nodiscard]] std::string cause_of(const Rank& rank, const ProcessExit& exit) const;
  void settle(Rank& rank, TimePoint now);
  void settle_mpi(TimePoint now);
  void report_exit(Rank& rank, const std::string& cause, bool clean);
  void end_if_done();
  [[nodiscard]] Rank* find_rank(int rank);
  [[nodiscard]] bool killed_for_memory() const;

  AgentSetup setup_;
  Spawner& spawner_;
  ToCoordinator to_coordinator_;
  ToWorker to_worker_;
  std::unique_ptr<Generation> generation_;
  std::vector<Kept> kept_;
  std::vector<std::pair<int, std::filesystem::path>> log_files_;
  bool over_ = false, asked_to_stop_ = false;
  std::int64_t failures_ = 0;
  int exit_code_ = 1;
  std::string final_text_;
};

}  // namespace coxswain::launcher
