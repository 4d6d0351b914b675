#pragma once
// What ended a generation, and how a run's end is told to its user. Called by coordinator. Threads: pure.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/error.h"

namespace coxswain::launcher {

struct Failure {
  int rank = -1;  // -1: of a node, or of the run itself
  int node = -1;
  std::string cause;
  bool primary = true;  // false: it follows from another rank's end
  bool node_lost = false;
  std::optional<Error> error;  // what the worker or agent said itself
  std::string evidence, log;   // the last lines of its stderr, and that file
};

/// The user's files or machine are wrong: trying again cannot help.
[[nodiscard]] bool is_bad_input(const Failure& failure);

/// Where a run stood when it ended.
struct RunPosition {
  int generation = 0;                           // 0: while measuring
  std::int64_t last_step = 0, last_saved = -1;  // last_saved -1: nothing is saved
  std::string node;                             // of the failure, by name: "node 0 (host)"
  std::vector<int> node_ranks;                  // that ran there
  bool hopeless = false;                        // the same step failed kSameFailures times alike
  std::string resume_hint;                      // how to go on from what was saved
};

[[nodiscard]] Error failure_error(const Failure& failure, const RunPosition& position);
[[nodiscard]] Error stopped_error(int signal, const RunPosition& position);

}  // namespace coxswain::launcher
