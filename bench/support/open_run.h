#pragma once
// A `launch train` without an end of its own, looked at while it steps and stopped by SIGTERM. Called by benches of
// what goes on beside training. Threads: one.
#include <filesystem>
#include <string>
#include <vector>

#include "bench/support/train_runs.h"
#include "common/json.h"

namespace coxswain::bench {

/// The lines of a file of JSON lines that can be read: all but one that is being written.
[[nodiscard]] std::vector<Json> read_lines(const std::filesystem::path& file);

class OpenRun {
 public:
  /// Starts it. `job.steps` are more than it will come to.
  OpenRun(const TrainJob& job, const std::vector<std::string>& flags);
  ~OpenRun();
  OpenRun(const OpenRun&) = delete;
  OpenRun& operator=(const OpenRun&) = delete;

  [[nodiscard]] int launch() const { return launch_; }
  [[nodiscard]] std::filesystem::path folder() const { return folder_ / "run"; }
  /// Steps so far; cheap.
  [[nodiscard]] int steps();
  /// Until it has taken so many. Exits 1 with its errors when it ends before, or takes longer than `limit_seconds`.
  void wait_steps(int count, double limit_seconds);
  /// Lets `seconds` pass. Exits 1 with the run's errors when it ends meanwhile.
  void wait(double seconds);
  /// SIGTERM, and its end. Exits 1 when it ends otherwise than by a saved step (75).
  void stop();

 private:
  [[nodiscard]] bool lives() const;
  [[noreturn]] void fail(const std::string& what) const;

  std::filesystem::path folder_;
  int launch_ = -1;
  std::streamoff read_ = 0;  // of metrics.jsonl
  int steps_ = 0;
};

}  // namespace coxswain::bench
