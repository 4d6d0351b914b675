#include "launcher/control/trace_steps.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

namespace coxswain::launcher {
namespace {

/// A positive number in decimal digits, nothing else.
std::optional<std::int64_t> parse_step(std::string_view text) {
  std::int64_t step = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), step);
  if (problem != std::errc{} || end != text.data() + text.size() || step < 1) return std::nullopt;
  return step;
}

std::string to_text(std::int64_t first, std::int64_t last) {
  return std::to_string(first) + "-" + std::to_string(last);
}

}  // namespace

Result<TraceSteps> parse_trace_steps(const std::string& text, std::int64_t num_steps) {
  const auto hyphen = text.find('-');
  const auto first = parse_step(std::string_view(text).substr(0, hyphen));
  const auto last = hyphen == std::string::npos ? first : parse_step(std::string_view(text).substr(hyphen + 1));
  if (hyphen != std::string::npos && first && last && *first <= *last && *last <= num_steps)
    return TraceSteps{*first, *last};

  std::string fix =
      "two steps of the job, the earlier one first: --trace-steps " + to_text(1, std::min<std::int64_t>(num_steps, 3));
  if (first && last && *first <= num_steps) {
    const std::int64_t low = std::min(*first, *last), high = std::min(std::max(*first, *last), num_steps);
    fix = "--trace-steps " + to_text(low, high);
    if (*last > num_steps) fix += ", or more train.steps in the job";
  }
  return Error{ErrorCode::InvalidArgument,
               "wrong --trace-steps",
               "--trace-steps",
               "A-B with 1 <= A <= B <= " + std::to_string(num_steps) + " (the job's train.steps)",
               text.empty() ? "nothing" : text,
               fix};
}

std::vector<TraceSteps> looked_steps(std::int64_t first, std::int64_t num_steps) {
  constexpr std::int64_t kBefore = 3, kSteps = 4, kLeastAfter = 10;
  std::vector<TraceSteps> looks;
  for (std::int64_t before = kBefore; first + before + kSteps - 1 + kLeastAfter <= num_steps; before *= 10)
    looks.push_back({first + before, first + before + kSteps - 1});
  return looks;
}

std::string trace_file(const TraceSteps& steps) { return "trace/steps_" + to_text(steps.first, steps.last) + ".json"; }

}  // namespace coxswain::launcher
