#pragma once
// Which steps of a run are traced: `--trace-steps A-B`. Threads: pure values. Source: INTERFACE sections 1 and 3.
#include <cstdint>
#include <string>

#include "common/result.h"

namespace coxswain::launcher {

/// Steps first to last, both included.
struct TraceSteps {
  std::int64_t first = 0, last = -1;
  [[nodiscard]] bool any() const { return first <= last; }
  [[nodiscard]] std::int64_t count() const { return last - first + 1; }
  friend bool operator==(const TraceSteps&, const TraceSteps&) = default;
};

/// "A-B" with 1 <= A <= B <= num_steps. Errors: InvalidArgument.
[[nodiscard]] Result<TraceSteps> parse_trace_steps(const std::string& text, std::int64_t num_steps);

/// "trace/steps_3-4.json", beneath the run directory.
[[nodiscard]] std::string trace_file(const TraceSteps& steps);

}  // namespace coxswain::launcher
