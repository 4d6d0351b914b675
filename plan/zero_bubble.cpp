#include "plan/zero_bubble.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "common/ensure.h"
#include "plan/zero_bubble_search.h"

namespace coxswain::plan {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

Error problem_at(std::string path, std::string expected, std::string got) {
  return {ErrorCode::InvalidArgument,
          "not a pipeline that has an order",
          std::move(path),
          std::move(expected),
          std::move(got),
          ""};
}

void check_time(Seconds time, const std::string& path, std::vector<Error>& problems) {
  if (!(std::isfinite(time.value) && time.value >= 0))
    problems.push_back(problem_at(path, "seconds, at least 0", std::to_string(time.value)));
}

std::vector<Error> problems_of(const ZeroBubbleProblem& problem) {
  std::vector<Error> problems;
  if (problem.devices.empty()) problems.push_back(problem_at("devices", "at least one", "none"));
  for (std::size_t i = 0; i < problem.devices.size(); ++i) {
    const std::string path = "devices[" + std::to_string(i) + "]";
    check_time(problem.devices[i].forward, path + ".forward", problems);
    check_time(problem.devices[i].input, path + ".input", problems);
    check_time(problem.devices[i].weight, path + ".weight", problems);
  }
  check_time(problem.communication, "communication", problems);
  if (problem.num_micro_batches < 1)
    problems.push_back(problem_at("num_micro_batches", "at least 1", std::to_string(problem.num_micro_batches)));
  if (problem.num_chunks != 1 && problem.num_chunks != 2)
    problems.push_back(problem_at("num_chunks", "1, or 2 for a V", std::to_string(problem.num_chunks)));
  const double forward = problem.forward_memory, input = problem.input_memory, weight = problem.weight_memory;
  const bool finite = std::isfinite(forward) && std::isfinite(input) && std::isfinite(weight);
  if (!finite || forward < 0 || input > 0 || weight > 0 || forward + input + weight < -1e-9) {
    problems.push_back(
        problem_at("forward_memory, input_memory, weight_memory",
                   "what F takes (at least 0) and what B and W give back (at most 0), not more",
                   std::to_string(forward) + ", " + std::to_string(input) + ", " + std::to_string(weight)));
  }
  if (!std::isfinite(problem.memory_limit))
    problems.push_back(problem_at("memory_limit", "a number", std::to_string(problem.memory_limit)));
  const double actions =
      3.0 * static_cast<double>(problem.devices.size()) * problem.num_micro_batches * problem.num_chunks;
  if (actions > 5e7)
    problems.push_back(problem_at("num_micro_batches", "at most 50,000,000 actions", std::to_string(actions)));
  return problems;
}

}  // namespace

std::optional<ZeroBubbleTimes> estimate_zero_bubble(const ZeroBubbleProblem& problem, const ZeroBubbleOrder& order) {
  const int num_devices = static_cast<int>(problem.devices.size()), last = num_devices * problem.num_chunks - 1;
  COX_ENSURE(order.size() == problem.devices.size(), order.size(), problem.devices.size());
  const auto part_of = [&](int device, int chunk) { return chunk == 0 ? device : 2 * num_devices - 1 - device; };
  const auto device_of = [&](int part) { return part < num_devices ? part : 2 * num_devices - 1 - part; };
  // ends[kind][part][micro-batch]; negative: has not run
  const std::vector<std::vector<double>> none(at(last + 1), std::vector<double>(at(problem.num_micro_batches), -1));
  std::array<std::vector<std::vector<double>>, 2> ends{none, none};
  std::vector<std::size_t> next(order.size(), 0);
  std::vector<double> free(order.size(), 0), first(order.size(), -1);
  const auto ready = [&](int device, const ZeroBubbleAction& action) {
    const int part = part_of(device, action.chunk);
    const auto end_of = [&](int kind, int source) {
      const double end = ends[at(kind)][at(source)][at(action.micro_batch)];
      return end < 0 || device_of(source) == device ? end : end + problem.communication.value;
    };
    if (action.kind == ActionKind::Forward) return part == 0 ? 0 : end_of(0, part - 1);
    if (action.kind == ActionKind::BackwardWeight) return end_of(1, part);
    const double own = end_of(0, part);
    if (own < 0 || part == last) return own;
    const double after = end_of(1, part + 1);
    return after < 0 ? after : std::max(own, after);
  };
  for (bool moved = true; moved;) {
    moved = false;
    for (int device = 0; device < num_devices; ++device) {
      const std::size_t d = at(device);
      for (; next[d] < order[d].size(); ++next[d], moved = true) {
        const ZeroBubbleAction& action = order[d][next[d]];
        const double arrival = ready(device, action);
        if (arrival < 0) break;
        const double start = std::max(free[d], arrival);
        if (first[d] < 0) first[d] = start;
        const ZeroBubbleProblem::Device& times = problem.devices[d];
        const bool forward = action.kind == ActionKind::Forward;
        const bool weight = action.kind == ActionKind::BackwardWeight;
        free[d] = start + (forward ? times.forward : weight ? times.weight : times.input).value;
        if (!weight) ends[forward ? 0 : 1][at(part_of(device, action.chunk))][at(action.micro_batch)] = free[d];
      }
    }
  }
  ZeroBubbleTimes result;
  for (std::size_t d = 0; d < order.size(); ++d) {
    if (next[d] < order[d].size()) return std::nullopt;
    result.span.push_back(Seconds(first[d] < 0 ? 0 : free[d] - first[d]));
    result.longest_span = std::max(result.longest_span, result.span.back());
    double live = 0, peak = 0;
    for (const ZeroBubbleAction& action : order[d]) {
      live += action.kind == ActionKind::Forward         ? problem.forward_memory
              : action.kind == ActionKind::BackwardInput ? problem.input_memory
                                                         : problem.weight_memory;
      peak = std::max(peak, live);
    }
    result.peak_memory.push_back(peak);
  }
  return result;
}

Result<ZeroBubbleSchedule> make_zero_bubble_schedule(const ZeroBubbleProblem& problem) {
  std::vector<Error> problems = problems_of(problem);
  if (!problems.empty())
    return combine_errors(ErrorCode::InvalidArgument, "no zero-bubble schedule can be made", std::move(problems));
  const ZeroBubblePipeline pipeline = make_pipeline(problem);
  const double least = peak_memory(pipeline, sequential_steps(pipeline).front());
  if (least > pipeline.memory_limit) {
    return Error{ErrorCode::ResourceExhausted,
                 "no order fits the memory limit",
                 "memory_limit",
                 "at least " + std::to_string(least),
                 std::to_string(problem.memory_limit),
                 "raise the limit, or use smaller micro-batches"};
  }
  const Ticks bound = longest_span_bound(pipeline);
  StepSearch found = search_steps(pipeline, bound);
  ZeroBubbleSchedule schedule;
  schedule.order = to_order(pipeline, found.lists);
  const auto times = estimate_zero_bubble(problem, schedule.order);
  COX_ENSURE(times.has_value(), found.span);
  schedule.times = *times;
  schedule.lower_bound = Seconds(static_cast<double>(bound) / pipeline.ticks_per_second);
  schedule.num_candidates = found.num_candidates;
  return schedule;
}

}  // namespace coxswain::plan
