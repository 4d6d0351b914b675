#pragma once
// What a run's time went to, as values, as the event `goodput` and as lines for people. Made by Goodput, told by
// run_output. Threads: pure. Source: docs/failures.md, "Goodput".
#include <cstdint>
#include <string>
#include <vector>

#include "common/json.h"

namespace coxswain::launcher {

/// One `worker_failed` or `node_lost`.
struct FailureBlock {
  std::string cause;                         // "signal 9"
  int rank = -1, node = -1, generation = 0;  // rank: that failed first; of a lost node its first, -1: it had none
  bool node_lost = false;
  std::int64_t after_step = 0;                         // the last one that was taken
  std::string evidence, log;                           // last line of the rank's stderr, and that file
  std::string action = "the run ended";                // what was done
  std::int64_t steps_lost = 0;                         // whose result is lost
  double detection_seconds = 0, recovery_seconds = 0;  // as the classes of Goodput
};

/// Classes, in seconds: with `other` they add up to `total`.
struct GoodputReport {
  double total = 0, useful = 0;
  double start = 0, checkpoint = 0, detection = 0, recovery = 0, recomputed = 0, slower_plan = 0, other = 0;
  std::int64_t num_failures = 0;
  std::vector<FailureBlock> failures;  // the newest kMostBlocks
};

/// A run with more failures keeps the newest; all of them stand in events.jsonl.
inline constexpr std::size_t kMostBlocks = 50;

[[nodiscard]] Json to_json(const FailureBlock& block);
[[nodiscard]] FailureBlock failure_block_from_json(const Json& json);
/// The event `goodput`.
[[nodiscard]] Json goodput_event(const GoodputReport& report);
/// For the end of the console's output: one line where nothing failed, else a table of the classes and the failures.
[[nodiscard]] std::vector<std::string> goodput_lines(const GoodputReport& report);

}  // namespace coxswain::launcher
