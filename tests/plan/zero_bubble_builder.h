#pragma once
// Pipelines for the tests of zero-bubble schedules, and a reading of their rules of its own.
#include <algorithm>
#include <optional>
#include <random>
#include <vector>

#include "plan/zero_bubble.h"
#include "plan/zero_bubble_pipeline.h"

namespace coxswain::plan {

inline ZeroBubbleProblem even_problem(int devices, int micro_batches, int chunks, double communication, double limit) {
  ZeroBubbleProblem problem;
  problem.devices.assign(static_cast<std::size_t>(devices), {Seconds(10), Seconds(10), Seconds(10)});
  problem.num_micro_batches = micro_batches;
  problem.num_chunks = chunks;
  problem.communication = Seconds(communication);
  problem.memory_limit = limit;
  return problem;
}

inline ZeroBubbleProblem random_problem(std::mt19937& random, int max_devices, int max_micro_batches) {
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  const int chunks = 1 + below(2);
  ZeroBubbleProblem problem =
      even_problem(1 + below(max_devices), 1 + below(max_micro_batches), chunks, below(3) * 1.5, 0);
  for (auto& device : problem.devices) device = {Seconds(5 + below(9)), Seconds(5 + below(9)), Seconds(below(9))};
  problem.memory_limit = 2 * chunks + below(4 * static_cast<int>(problem.devices.size()) * chunks + 1);
  return problem;
}

/// Longest span of step lists by the rules as they are written, in rounds until nothing changes; nothing: deadlock.
inline std::optional<double> longest_span_of(const ZeroBubbleProblem& problem, const StepLists& lists) {
  const int devices = static_cast<int>(lists.size()), parts = devices * problem.num_chunks;
  const auto device_of = [&](int part) { return part < devices ? part : 2 * devices - 1 - part; };
  std::vector<std::vector<double>> forward(static_cast<std::size_t>(parts)), input(static_cast<std::size_t>(parts));
  std::vector<std::size_t> next(lists.size(), 0);
  std::vector<double> free(lists.size(), 0), first(lists.size(), -1);
  for (bool moved = true; moved;) {
    moved = false;
    for (int d = 0; d < devices; ++d) {
      const auto at = static_cast<std::size_t>(d);
      if (next[at] == lists[at].size()) continue;
      const Step step = lists[at][next[at]];
      double ready = 0, time = problem.devices[at].weight.value;
      if (step != Step::Weight) {
        const int part = chunk_of(step) == 0 ? d : 2 * devices - 1 - d;
        auto& own = (is_forward(step) ? forward : input)[static_cast<std::size_t>(part)];
        const int source = is_forward(step) ? part - 1 : part + 1;
        if (is_input(step) && forward[static_cast<std::size_t>(part)].size() <= own.size()) continue;
        if (source >= 0 && source < parts) {
          const auto& ends = (is_forward(step) ? forward : input)[static_cast<std::size_t>(source)];
          if (ends.size() <= own.size()) continue;
          ready = ends[own.size()] + (device_of(source) == d ? 0 : problem.communication.value);
        } else if (source == parts) {
          ready = forward[static_cast<std::size_t>(part)][own.size()];
        }
        time = (is_forward(step) ? problem.devices[at].forward : problem.devices[at].input).value;
        own.push_back(std::max(ready, free[at]) + time);
      }
      if (first[at] < 0) first[at] = std::max(ready, free[at]);
      free[at] = std::max(ready, free[at]) + time;
      ++next[at];
      moved = true;
    }
  }
  double longest = 0;
  for (std::size_t d = 0; d < lists.size(); ++d) {
    if (next[d] < lists[d].size()) return std::nullopt;
    longest = std::max(longest, free[d] - first[d]);
  }
  return longest;
}

/// All lists of one device that keep kinds in order and memory within the limit.
inline void all_lists(const ZeroBubbleProblem& problem, std::vector<Step>& list, std::vector<std::vector<Step>>& all) {
  const auto count = [&](Step step) { return static_cast<int>(std::count(list.begin(), list.end(), step)); };
  if (list.size() == static_cast<std::size_t>(3 * problem.num_micro_batches * problem.num_chunks)) {
    all.push_back(list);
    return;
  }
  const int inputs = count(Step::Input0) + count(Step::Input1);
  const int forwards = count(Step::Forward0) + count(Step::Forward1);
  const double live =
      forwards * problem.forward_memory + inputs * problem.input_memory + count(Step::Weight) * problem.weight_memory;
  const auto go_on = [&](Step step) {
    list.push_back(step);
    all_lists(problem, list, all);
    list.pop_back();
  };
  for (int chunk = 0; chunk < problem.num_chunks; ++chunk) {
    if (count(forward_step(chunk)) < problem.num_micro_batches && live + problem.forward_memory <= problem.memory_limit)
      go_on(forward_step(chunk));
    if (count(input_step(chunk)) < count(forward_step(chunk))) go_on(input_step(chunk));
  }
  if (count(Step::Weight) < inputs) go_on(Step::Weight);
}

/// The shortest longest span on two devices.
inline double brute_force(const ZeroBubbleProblem& problem) {
  std::vector<Step> list;
  std::vector<std::vector<Step>> all;
  all_lists(problem, list, all);
  double best = 1e18;
  for (const auto& upper : all) {
    for (const auto& lower : all) {
      if (const auto span = longest_span_of(problem, {upper, lower})) best = std::min(best, *span);
    }
  }
  return best;
}

}  // namespace coxswain::plan
