#include "plan/zero_bubble_pipeline.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace coxswain::plan {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

/// Idle time of `device` before its first input gradient can start: memory ends its forwards.
Ticks idle_before(const ZeroBubblePipeline& pipeline, int device) {
  const int last_part = pipeline.part_of(device, pipeline.num_chunks - 1);
  const Ticks first_input = round_trip(pipeline, device, last_part);
  return std::max<Ticks>(0, first_input - pipeline.max_in_flight() * pipeline.forward[at(device)]);
}

/// How many weight steps memory can hold back beside `forwards` micro-batches in flight.
Ticks max_held_back(const ZeroBubblePipeline& pipeline, int forwards) {
  const Ticks all = Ticks{pipeline.num_micro_batches} * pipeline.num_chunks;
  const double each = pipeline.forward_memory + pipeline.input_memory;
  const double room = pipeline.memory_limit - forwards * pipeline.forward_memory;
  if (each <= 0 || room / each >= static_cast<double>(all)) return all;
  return std::max<Ticks>(0, static_cast<Ticks>(room / each));
}

/// Idle time of `device` after its last forward: the work that memory can have left is shorter than the way to the
/// last part and back.
Ticks idle_after(const ZeroBubblePipeline& pipeline, int device) {
  const Ticks input = pipeline.input[at(device)], weight = pipeline.weight[at(device)];
  const int last_part = pipeline.part_of(device, pipeline.num_chunks - 1);
  const Ticks rest = round_trip(pipeline, last_part, device) - pipeline.forward[at(device)] + input + weight;
  Ticks most_work = 0;
  for (int flying = 1; flying <= pipeline.max_in_flight(); ++flying) {
    const Ticks all = Ticks{pipeline.num_micro_batches} * pipeline.num_chunks;
    const Ticks held = std::min(max_held_back(pipeline, flying), all - flying);
    most_work = std::max(most_work, flying * (input + weight) + held * weight);
  }
  return std::max<Ticks>(0, rest - most_work);
}

/// The first micro-batch travels from `device` to `other`, which does all its work but the weight steps that it can
/// hold back to the end, and the last input gradient travels back.
Ticks crossing_bound(const ZeroBubblePipeline& pipeline, int device, int other) {
  const Ticks all = Ticks{pipeline.num_micro_batches} * pipeline.num_chunks;
  const Ticks held = std::min(all, max_held_back(pipeline, 1) + 1);
  const Ticks there = pipeline.work(other) + idle_before(pipeline, other) - held * pipeline.weight[at(other)];
  return forward_chain(pipeline, device, other) + there - pipeline.input[at(other)] +
         input_chain(pipeline, other, device) + pipeline.input[at(device)] + pipeline.weight[at(device)];
}

}  // namespace

Ticks ZeroBubblePipeline::work_per_micro_batch(int device) const {
  return num_chunks * (forward[at(device)] + input[at(device)] + weight[at(device)]);
}

int ZeroBubblePipeline::max_in_flight() const {
  const int all = num_micro_batches * num_chunks;
  if (forward_memory <= 0 || memory_limit / forward_memory >= all) return all;
  return static_cast<int>(memory_limit / forward_memory);
}

ZeroBubblePipeline make_pipeline(const ZeroBubbleProblem& problem) {
  ZeroBubblePipeline pipeline;
  pipeline.num_devices = static_cast<int>(problem.devices.size());
  pipeline.num_micro_batches = problem.num_micro_batches;
  pipeline.num_chunks = problem.num_chunks;
  double total = 0;
  for (const ZeroBubbleProblem::Device& device : problem.devices)
    total += device.forward.value + device.input.value + device.weight.value + 2 * problem.communication.value;
  total *= problem.num_micro_batches * problem.num_chunks;
  const double exact = 1e15;  // below 2^50
  const double exponent = total > 0 ? std::clamp(std::floor(std::log10(exact / total)), -200.0, 200.0) : 0;
  pipeline.ticks_per_second = std::pow(10.0, exponent);
  const auto ticks = [&](Seconds seconds) {
    return static_cast<Ticks>(std::llround(seconds.value * pipeline.ticks_per_second));
  };
  for (const ZeroBubbleProblem::Device& device : problem.devices) {
    pipeline.forward.push_back(ticks(device.forward));
    pipeline.input.push_back(ticks(device.input));
    pipeline.weight.push_back(ticks(device.weight));
  }
  pipeline.communication = ticks(problem.communication);
  pipeline.forward_memory = problem.forward_memory;
  pipeline.input_memory = problem.input_memory;
  pipeline.weight_memory = problem.weight_memory;
  const double largest = std::max({1.0, std::abs(problem.forward_memory), std::abs(problem.memory_limit)});
  pipeline.memory_limit = problem.memory_limit + std::min(1e-9, 1e-12 * largest);
  return pipeline;
}

Ticks forward_chain(const ZeroBubblePipeline& pipeline, int from, int to) {
  Ticks sum = 0;
  for (int part = from; part < to; ++part)
    sum += pipeline.forward[at(pipeline.device_of(part))] + pipeline.transfer(part, part + 1);
  return sum;
}

Ticks input_chain(const ZeroBubblePipeline& pipeline, int from, int to) {
  Ticks sum = 0;
  for (int part = from; part > to; --part)
    sum += pipeline.input[at(pipeline.device_of(part))] + pipeline.transfer(part, part - 1);
  return sum;
}

Ticks round_trip(const ZeroBubblePipeline& pipeline, int from, int to) {
  const int last = pipeline.num_parts() - 1;
  return forward_chain(pipeline, from, last) + pipeline.forward[at(pipeline.device_of(last))] +
         input_chain(pipeline, last, to);
}

Ticks longest_span_bound(const ZeroBubblePipeline& pipeline) {
  Ticks bound = 0;
  const bool apart = pipeline.max_in_flight() < pipeline.num_micro_batches * pipeline.num_chunks;
  for (int device = 0; device < pipeline.num_devices; ++device) {
    // With all forwards in flight the two idle times may be the same one.
    const Ticks before = idle_before(pipeline, device), after = idle_after(pipeline, device);
    bound = std::max(bound, pipeline.work(device) + (apart ? before + after : std::max(before, after)));
    for (int other = device + 1; other < pipeline.num_devices; ++other)
      bound = std::max(bound, crossing_bound(pipeline, device, other));
  }
  return bound;
}

StepLists sequential_steps(const ZeroBubblePipeline& pipeline) {
  std::vector<Step> steps;
  for (int micro_batch = 0; micro_batch < pipeline.num_micro_batches; ++micro_batch) {
    for (int chunk = 0; chunk < pipeline.num_chunks; ++chunk) steps.push_back(forward_step(chunk));
    for (int chunk = pipeline.num_chunks - 1; chunk >= 0; --chunk) {
      steps.push_back(input_step(chunk));
      steps.push_back(Step::Weight);
    }
  }
  return StepLists(at(pipeline.num_devices), steps);
}

double peak_memory(const ZeroBubblePipeline& pipeline, const std::vector<Step>& steps) {
  double live = 0, peak = 0;
  for (const Step step : steps) {
    live += pipeline.memory_of(step);
    peak = std::max(peak, live);
  }
  return peak;
}

ZeroBubbleOrder to_order(const ZeroBubblePipeline& pipeline, const StepLists& lists) {
  ZeroBubbleOrder order(lists.size());
  for (std::size_t device = 0; device < lists.size(); ++device) {
    order[device].reserve(at(pipeline.steps_per_device()));
    std::array<int, 2> forwards{}, inputs{};
    std::vector<ZeroBubbleAction> waiting;  // weight work whose input gradient has run, oldest first
    std::size_t next_waiting = 0;
    for (const Step step : lists[device]) {
      if (step == Step::Weight) {
        order[device].push_back(waiting[next_waiting++]);
        continue;
      }
      const int chunk = chunk_of(step);
      if (is_forward(step)) {
        order[device].push_back({ActionKind::Forward, forwards[at(chunk)]++, chunk});
      } else {
        order[device].push_back({ActionKind::BackwardInput, inputs[at(chunk)], chunk});
        waiting.push_back({ActionKind::BackwardWeight, inputs[at(chunk)]++, chunk});
      }
    }
  }
  return order;
}

}  // namespace coxswain::plan
