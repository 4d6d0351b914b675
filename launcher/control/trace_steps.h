#pragma once
// Which steps of a run are traced: `--trace-steps A-B`, and those that are compared with their prediction. Threads:
// pure values. Source: INTERFACE sections 1 and 3.
#include <cstdint>
#include <string>
#include <vector>

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

/// Which steps of a generation that takes step `first` first are compared with what its plan predicts: 4 after the
/// third, and 4 after the 30th, the 300th, ..., while at least ten steps of `num_steps` follow.
[[nodiscard]] std::vector<TraceSteps> looked_steps(std::int64_t first, std::int64_t num_steps);

/// "trace/steps_3-4.json", beneath the run directory.
[[nodiscard]] std::string trace_file(const TraceSteps& steps);

}  // namespace coxswain::launcher
