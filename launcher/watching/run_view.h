#pragma once
// How a run is, out of the files that it leaves: while it goes on, or afterwards. Called by `launch status` and `launch
// logs`. Threads: one. Source: INTERFACE section 3.
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "launcher/watching/file_tail.h"

namespace coxswain::launcher {

/// `named`: a run's folder, or the id of a job in a service's state folder (its newest attempt); empty: the newest of
/// runs/. Errors: NotFound, with those that there are.
[[nodiscard]] Result<std::filesystem::path> find_run(const std::string& named, const std::filesystem::path& state);

struct RunView {
  std::filesystem::path folder;
  std::string name;
  bool ended = false;
  int exit_code = 0;  // of one that has ended
  int generation = 0;
  std::int64_t step = 0, steps = 0;
  std::optional<double> loss, validation_loss;
  double step_seconds = 0, predicted_step_seconds = 0;  // measured: median of the newest steps
  double tokens_per_second = 0;
  std::int64_t peak_memory_bytes = 0, predicted_peak_memory_bytes = 0;  // of the fullest rank
  double remaining_seconds = 0;
  std::vector<Json> failures;  // worker_failed and node_lost, oldest first
  double lost_seconds = 0;     // to them, until the steps went on
};

/// Looks again and again at one run; reads what is new alone.
class RunWatcher {
 public:
  /// Errors: NotFound, InvalidArgument: no run's folder.
  [[nodiscard]] static Result<RunWatcher> open(const std::filesystem::path& folder);
  const RunView& look();

 private:
  explicit RunWatcher(const std::filesystem::path& folder);
  void take_row(const Json& row);
  void take_event(const Json& event);

  RunView view_;
  FileTail metrics_, events_;
  std::vector<double> newest_seconds_;  // of steps of one generation
  int row_generation_ = 0;              // of the newest row
};
[[nodiscard]] Json to_json(const RunView& view);
/// For people, a fact a line.
[[nodiscard]] std::string to_table(const RunView& view);

/// Which lines of a run's logs.
struct LogFilter {
  std::vector<int> ranks;  // empty: all
  bool stdout_too = true, stderr_too = true;
  std::string containing;  // empty: all
};
/// What the ranks of a run print, line by line as it comes, each with its rank.
class LogMerger {
 public:
  LogMerger(std::filesystem::path run, LogFilter filter) : run_(std::move(run)), filter_(std::move(filter)) {}
  /// Lines that are new: "[rank 0] text". `rest`: those that were cut short too.
  [[nodiscard]] std::string next(bool rest);

 private:
  void find_files();
  const std::filesystem::path run_;
  const LogFilter filter_;
  // By generation, rank and stream, so that what was there before is told in that order.
  std::map<std::tuple<int, int, bool>, FileTail> files_;
};

}  // namespace coxswain::launcher
