#pragma once
// Runs jobs on this machine and on nodes that wait in its pool, one after another, each as a `launch train` of its own:
// starts it, ends it on request, and begins again, from its newest checkpoint, what ran when the service ended. Called
// by jobs. Threads: any may call; a thread of its own starts processes, which end with it.
#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <variant>
#include <vector>

#include "common/clock.h"
#include "launcher/control/event_queue.h"
#include "launcher/control/spawner.h"
#include "launcher/rest/job_record.h"
#include "launcher/rest/node_pool.h"

namespace coxswain::launcher {

class JobRunner {
 public:
  using MakeSpawner = std::function<std::unique_ptr<Spawner>(std::function<void(const ProcessExit&)> on_exit)>;
  struct Options {
    std::filesystem::path folder;    // of all jobs
    std::filesystem::path program;   // `launch`
    std::string host = "127.0.0.1";  // of this machine, where a run's coordinator listens; empty: at none
    bool tells_host = false;         // to nodes; else they take the name by which they know the service
    int port = 29400;
    std::size_t most_waiting = 100;
    Seconds grace{60};  // from SIGTERM to SIGKILL; a job that saves a checkpoint then ends within 50 s by itself
  };

  /// Goes on with what `records` say was under way. Requires: `folder` exists.
  JobRunner(Options options, const Clock& clock, std::vector<JobRecord> records, MakeSpawner make_spawner);
  /// Drains where nobody did, and waits.
  ~JobRunner();
  JobRunner(const JobRunner&) = delete;
  JobRunner& operator=(const JobRunner&) = delete;

  /// The job's folder holds job.yaml. Errors: ResourceExhausted (too many wait), FailedPrecondition (disk); nothing is
  /// kept then.
  [[nodiscard]] Result<void> add(const JobRecord& record);
  /// A waiting job never starts, a running one saves a checkpoint and ends; false: it has ended before.
  [[nodiscard]] bool cancel(const std::string& id);
  /// Forgets a job that has ended, and removes its folder, checkpoints with it. Errors: NotFound; FailedPrecondition
  /// (it has not ended).
  [[nodiscard]] Result<void> remove(const std::string& id);
  /// What runs saves a checkpoint and ends, and goes on when the service starts again; asked once more, it is killed.
  void drain();
  /// Until nothing runs any more. Requires: drained.
  void wait();

  [[nodiscard]] std::optional<JobRecord> find(const std::string& id) const;
  /// Newest first.
  [[nodiscard]] std::vector<JobRecord> all() const;
  [[nodiscard]] const std::filesystem::path& folder() const { return options_.folder; }
  [[nodiscard]] bool takes_nodes() const { return !options_.host.empty(); }
  /// Of agents that joined.
  [[nodiscard]] NodePool& nodes() { return nodes_; }

 private:
  struct Look {};   // at what waits
  struct Drain {};  // nothing is started any more
  using Event = std::variant<Look, Drain, ProcessExit>;

  void loop();
  void handle(const Event& event);
  void start_next();
  [[nodiscard]] bool has_nodes(const JobRecord& record) const;
  void start(JobRecord& record);
  [[nodiscard]] Result<int> spawn(const JobRecord& record, const std::filesystem::path& resume_from);
  void end(JobRecord& record, const ProcessExit& exit);
  void ask_to_end();
  void forget_token(const JobRecord& record) const;
  void save(const JobRecord& record);
  [[nodiscard]] SpawnRequest spawn_request(const JobRecord& record, const std::filesystem::path& resume_from) const;

  const Options options_;
  const Clock& clock_;
  NodePool nodes_;
  mutable std::mutex mutex_;  // of records_
  std::map<std::string, JobRecord> records_;
  EventQueue<Event> events_;
  // The thread's own.
  std::unique_ptr<Spawner> spawner_;
  std::string running_;  // id; empty: none
  int pid_ = 0;
  std::optional<Deadline> kill_by_;
  bool draining_ = false;
  std::jthread thread_;
  std::atomic<bool> drained_ = false;  // somebody asked
};

}  // namespace coxswain::launcher
