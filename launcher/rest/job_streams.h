#pragma once
// What a job's run writes, as streams that grow with it: logs as text, events as server-sent events. Called by jobs.
// Threads: what is returned has one caller at a time; it reads files.
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "launcher/rest/job_runner.h"

namespace coxswain::launcher {

/// What is new; empty: nothing now; nothing: no more will come.
using ReadMore = std::function<std::optional<std::string>()>;

struct LogSource {
  std::optional<int> rank;  // none: `launch train` itself
  bool errors = false;      // stderr
};
/// Every attempt, and every generation of each. `follow`: until the job has ended.
/// Requires: `runner` outlives it.
[[nodiscard]] ReadMore stream_logs(const JobRunner& runner, const std::string& id, const LogSource& source,
                                   bool follow);

/// A place among events: "ATTEMPT-LINE".
struct EventPlace {
  int attempt = 1;
  std::int64_t line = 0;  // that were given
};
/// Empty: from the beginning. Nothing: not one of ours.
[[nodiscard]] std::optional<EventPlace> parse_event_id(const std::string& text);
/// Lines of events.jsonl after `from`, each `event` its type and `data` itself; `state` with the job's. Ends with the
/// job. Requires: `runner` outlives it.
[[nodiscard]] ReadMore stream_events(const JobRunner& runner, const std::string& id, EventPlace from);

}  // namespace coxswain::launcher
