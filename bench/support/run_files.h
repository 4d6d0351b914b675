#pragma once
// What a run of `launch train` wrote, read while it goes on or afterwards: events, losses by step, goodput. A run that
// was stopped and goes on in another folder is a list of folders, the oldest first. Called by benches that disturb
// runs. Threads: one. Source: docs/failures.md.
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "common/json.h"

namespace coxswain::bench {

using RunFolders = std::vector<std::filesystem::path>;

[[nodiscard]] std::string read_text(const std::filesystem::path& file);

/// Events so far, by type.
[[nodiscard]] int count_events(const std::filesystem::path& run, const std::string& type);
/// `worker_failed` and `node_lost`.
[[nodiscard]] int count_failures(const std::filesystem::path& run);
/// The last event of one of `types`; null without one.
[[nodiscard]] Json last_event(const std::filesystem::path& run, const std::vector<std::string>& types);
/// Lines of metrics.jsonl so far: a step that was taken again has one each time.
[[nodiscard]] int count_steps(const std::filesystem::path& run);

/// Seconds by class as the runs' own reports have them, by the names of the event `goodput`, added up.
void add_goodput(const RunFolders& runs, std::map<std::string, double>& seconds);
/// The same of one class of one run; 0 without a report.
[[nodiscard]] double goodput_seconds(const std::filesystem::path& run, const std::string& name);

struct Steps {
  std::map<std::int64_t, std::string> losses;  // as text, the last time that the step was taken
  std::size_t rows = 0;
  bool whole = true;  // every line can be read
};
[[nodiscard]] Steps read_steps(const RunFolders& runs);

/// The largest relative difference of a loss within the first 20 steps of the runs and after each change of plan.
[[nodiscard]] double farthest_after_changes(const RunFolders& runs, const Steps& got, const Steps& expected);
/// "dp2 pp2 ..., then dp2 ...", the newest `most` of them.
[[nodiscard]] std::string plans_of(const RunFolders& runs, std::size_t most = 4);

/// The number of the newest checkpoint in `directory`; -1: none.
[[nodiscard]] std::int64_t newest_checkpoint(const std::filesystem::path& directory);

}  // namespace coxswain::bench
