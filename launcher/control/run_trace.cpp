#include "launcher/control/run_trace.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace coxswain::launcher {
namespace {

// 55 MB of JSON. All of them in one step are 0.7 s of text (one core of 2, loaded): less than agents wait for a
// heartbeat.
constexpr std::size_t kMaxActions = 100'000;
constexpr double kNanosecond = 1e-9;

bool is_sound(const RankTrace& trace, std::size_t num_actions) {
  if (trace.start.size() != num_actions || trace.end.size() != num_actions) return false;
  for (std::size_t i = 0; i < num_actions; ++i) {
    if (!std::isfinite(trace.start[i]) || !std::isfinite(trace.end[i]) || trace.end[i] < trace.start[i]) return false;
  }
  return true;
}

}  // namespace

Result<void> check_trace_size(const plan::Plan& plan, const TraceSteps& steps) {
  std::size_t a_step = 0;
  for (const std::size_t count : cost_model::num_actions_by_rank(plan)) a_step += count;
  const auto fitting = static_cast<std::int64_t>(kMaxActions / std::max<std::size_t>(a_step, 1));
  if (steps.count() <= fitting) return {};
  return Error{ErrorCode::InvalidArgument,
               "the trace would be too large to look at",
               "--trace-steps",
               "at most " + std::to_string(kMaxActions) + " actions; a step of this plan has " + std::to_string(a_step),
               std::to_string(steps.count()) + " steps",
               fitting > 0 ? "trace at most " + std::to_string(fitting) + " steps" : "leave the flag out"};
}

RunTrace::RunTrace(TraceSteps steps, cost_model::TraceBasis basis)
    : steps_(steps),
      num_actions_(cost_model::num_actions_by_rank(basis.plan)),
      nodes_(basis.nodes),
      plan_hash_(plan::plan_hash(basis.plan)),
      predicted_seconds_(basis.predicted.estimate.step.value),
      trace_(std::move(basis)) {}

Result<cost_model::TracedStep> traced_step(const StepRow& row, const std::vector<std::size_t>& num_actions) {
  cost_model::TracedStep step;
  step.step = row.step;
  for (std::size_t rank = 0; rank < num_actions.size(); ++rank) {
    if (rank >= row.traces.size() || !is_sound(row.traces[rank], num_actions[rank]))
      return Error{ErrorCode::InvalidArgument,
                   "a rank's times are not those of its actions",
                   "rank " + std::to_string(rank) + ", step " + std::to_string(row.step),
                   std::to_string(num_actions[rank]) + " actions, each with start and end",
                   std::to_string(rank < row.traces.size() ? row.traces[rank].start.size() : 0),
                   ""};
    const RankTrace& trace = row.traces[rank];
    step.ranks.push_back({static_cast<double>(trace.begin_nanoseconds - trace.clock_offset_nanoseconds) * kNanosecond,
                          trace.step_seconds, trace.start, trace.end});
  }
  return step;
}

Result<void> RunTrace::add(StepRow& row) {
  if (row.step < steps_.first || row.step > steps_.last) return {};
  complete_ = row.step == steps_.last;
  auto step = traced_step(row, num_actions_);
  const std::vector<RankTrace> traces = std::exchange(row.traces, {});
  if (!step) return step.error();
  JsonArray clocks;
  for (std::size_t rank = 0; rank < num_actions_.size(); ++rank) {
    const RankTrace& trace = traces[rank];
    clocks.push_back(JsonObject{{"error_seconds", static_cast<double>(trace.clock_error_nanoseconds) * kNanosecond},
                                {"node", nodes_[rank]},
                                {"offset_seconds", static_cast<double>(trace.clock_offset_nanoseconds) * kNanosecond},
                                {"rank", static_cast<std::int64_t>(rank)}});
  }
  trace_.add(*step);
  in_.push_back(row.step);
  clocks_ = std::move(clocks);
  return {};
}

bool RunTrace::complete() const { return complete_; }

std::optional<std::string> RunTrace::text() const {
  if (in_.empty()) return std::nullopt;
  return trace_.text({{"clocks", clocks_},
                      {"plan_hash", plan_hash_},
                      {"predicted_step_seconds", predicted_seconds_},
                      {"steps", in_},
                      {"steps_asked_for", JsonArray{Json(steps_.first), Json(steps_.last)}}});
}

}  // namespace coxswain::launcher
