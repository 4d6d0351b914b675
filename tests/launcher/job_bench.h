#pragma once
// A runner of jobs whose processes are the test's: what was started is handed over, exits and signals are seen.
#include <csignal>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "launcher/control/event_queue.h"
#include "launcher/control/liveness.h"
#include "launcher/rest/job_runner.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

namespace coxswain::launcher {

class JobBench {
 public:
  struct Started {
    int pid = 0;
    SpawnRequest request;
  };

  /// One whose service is started again has the same folder.
  void open(std::size_t most_waiting = 100, Seconds grace = Seconds(60)) {
    JobRunner::Options options;
    options.folder = folder.path();
    options.program = "launch";
    options.host = "head";
    options.most_waiting = most_waiting;
    options.grace = grace;
    auto records = load_job_records(folder.path());
    REQUIRE(records);
    runner = std::make_unique<JobRunner>(options, steady_clock(), std::move(*records),
                                         [this](std::function<void(const ProcessExit&)> on_exit) {
                                           on_exit_ = std::move(on_exit);
                                           return std::make_unique<Spawned>(*this);
                                         });
  }

  void send(const std::string& id, const std::string& nodes = "") {
    JobRecord record;
    record.id = record.name = id;
    record.nodes = nodes;
    record.steps = 100;
    std::filesystem::create_directory(folder / id);
    REQUIRE(runner->add(record));
  }
  Started started() { return pop(started_); }
  /// A node that waits; what it is called for comes to `called`.
  void join(const std::string& name) {
    NodeReport report;
    report.name = name;
    REQUIRE(runner->nodes().ask(report, 20, [this](NodeAnswer answer) { calls_.push(std::move(answer.run)); }));
  }
  std::optional<RunCall> called() { return pop(calls_); }
  std::pair<int, int> signalled() { return pop(signals_); }  // pid, signal
  void exits(int pid, int code) { on_exit_({pid, false, code}); }

 private:
  class Spawned final : public Spawner {
   public:
    explicit Spawned(JobBench& bench) : bench_(bench) {}
    Result<int> spawn(const SpawnRequest& request) override {
      bench_.started_.push({++bench_.last_pid_, request});
      return bench_.last_pid_;
    }
    void send_signal(int pid, int signal) override {
      bench_.signals_.push({pid, signal});
      if (signal == SIGKILL) bench_.on_exit_({pid, true, signal});
    }
    std::optional<std::int64_t> stopped_at(int) const override { return std::nullopt; }

   private:
    JobBench& bench_;
  };

  template <class Event>
  Event pop(EventQueue<Event>& queue) {
    auto event = queue.pop(after(steady_clock().now(), 30));
    REQUIRE(event);
    return std::move(*event);
  }

  int last_pid_ = 0;
  EventQueue<Started> started_;
  EventQueue<std::pair<int, int>> signals_;
  EventQueue<std::optional<RunCall>> calls_;
  std::function<void(const ProcessExit&)> on_exit_;

 public:
  TempDir folder;
  std::unique_ptr<JobRunner> runner;  // last: it uses the others until it has ended
};

}  // namespace coxswain::launcher
