#include "plan/zero_bubble_dispatch.h"

#include <algorithm>

namespace coxswain::plan {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

Ticks part_of_time(double fraction, Ticks time) { return static_cast<Ticks>(fraction * static_cast<double>(time)); }

}  // namespace

ZeroBubbleDispatcher::ZeroBubbleDispatcher(const ZeroBubblePipeline& pipeline) : pipeline_(pipeline) {}

void ZeroBubbleDispatcher::reset(const ZeroBubblePolicy& policy) {
  const int parts = pipeline_.num_parts();
  communication_ = policy.count_communication ? pipeline_.communication : 0;
  devices_.assign(at(pipeline_.num_devices), {});
  for (int device = 0; device < pipeline_.num_devices; ++device) {
    devices_[at(device)].left = pipeline_.steps_per_device();
    devices_[at(device)].spare = policy.target - pipeline_.work(device);
  }
  wake_.assign(at(pipeline_.num_devices), kNever);
  wake_[0] = 0;
  forward_arrival_.assign(cell(parts, 0), kNever);
  input_arrival_.assign(cell(parts, 0), kNever);
  std::fill(forward_arrival_.begin(), forward_arrival_.begin() + pipeline_.num_micro_batches, 0);
  forward_way_.assign(at(parts), 0);
  input_way_.assign(at(parts), 0);
  const auto crossing = [&](int from, int to) {
    return pipeline_.device_of(from) == pipeline_.device_of(to) ? 0 : communication_;
  };
  latest_input_.assign(at(parts), kNever);
  least_input_ = *std::min_element(pipeline_.input.begin(), pipeline_.input.end());
  Ticks way = 0;
  for (int part = 0; part < parts; ++part) {
    const int device = pipeline_.device_of(part);
    const Ticks own = forward_chain(pipeline_, 0, device) + policy.target - pipeline_.weight[at(device)];
    const Ticks next = part > 0 ? latest_input_[at(part - 1)] - crossing(part, part - 1) : kNever;
    latest_input_[at(part)] = std::min(own, next) - pipeline_.input[at(device)];
    way += pipeline_.input[at(pipeline_.device_of(part))] + (part > 0 ? crossing(part, part - 1) : 0);
    input_way_[at(part)] = way;
  }
  for (int part = parts - 1; part >= 0; --part) {
    way += pipeline_.forward[at(pipeline_.device_of(part))] + (part + 1 < parts ? crossing(part, part + 1) : 0);
    forward_way_[at(part)] = way;
  }
}

bool ZeroBubbleDispatcher::may_fly(const ZeroBubblePolicy& policy, int device, int chunk) const {
  const Device& state = devices_[at(device)];
  const int flying = state.forwards[chunk] - state.inputs[chunk];
  if (flying >= policy.max_flying[chunk][at(device)]) return false;
  if (pipeline_.num_chunks == 1 || chunk == 1) return true;
  // Room for one forward of the second chunk, without which nothing would end, or a gradient that will make it.
  const int part = pipeline_.part_of(device, chunk);
  const bool returns = flying > 0 && input_arrival_[cell(part, state.inputs[chunk])] < kNever;
  return (flying + (returns ? 1 : 2)) * pipeline_.forward_memory <= pipeline_.memory_limit;
}

bool ZeroBubbleDispatcher::weave_now(const ZeroBubblePolicy& policy, const Device& state) const {
  return policy.weave_until >= 0 && is_input(state.last) &&
         pipeline_.num_micro_batches - state.forwards[pipeline_.num_chunks - 1] > policy.weave_until;
}

ZeroBubbleDispatcher::Options ZeroBubbleDispatcher::options_of(const ZeroBubblePolicy& policy, int device,
                                                               Ticks now) const {
  const Device& state = devices_[at(device)];
  Options options;
  options.memory_left = state.live + pipeline_.forward_memory <= pipeline_.memory_limit;
  const Ticks ready = now + part_of_time(policy.patience_fraction, pipeline_.forward[at(device)]);
  for (int chunk = 0; chunk < pipeline_.num_chunks; ++chunk) {
    const int part = pipeline_.part_of(device, chunk);
    if (state.weights[chunk] < state.inputs[chunk]) options.weight_waits = true;
    if (const int micro_batch = state.inputs[chunk]; micro_batch < state.forwards[chunk]) {
      const Ticks arrival = input_arrival_[cell(part, micro_batch)];
      const Ticks key = policy.spacing * micro_batch - input_way_[at(part)];
      options.next_input = std::min(options.next_input, arrival);
      const Ticks later = now + pipeline_.weight[at(device)];
      const Ticks latest = latest_input_[at(part)] - (pipeline_.num_micro_batches - 1 - micro_batch) * least_input_;
      if (arrival < later && later > latest) options.hold = true;
      if (arrival > ready) {
        options.next = std::min(options.next, arrival);
      } else if (!options.has_input ||
                 (policy.chunks_alternate ? chunk != state.last_input : key < options.input_key)) {
        options.has_input = true;
        options.input = input_step(chunk);
        options.input_key = key;
        options.input_at = arrival;
      }
    }
    if (const int micro_batch = state.forwards[chunk];
        micro_batch < pipeline_.num_micro_batches && may_fly(policy, device, chunk)) {
      const Ticks arrival = forward_arrival_[cell(part, micro_batch)];
      const Ticks key = policy.spacing * micro_batch - forward_way_[at(part)];
      if (arrival > ready) {
        if (options.memory_left) options.next = std::min(options.next, arrival);
      } else if (!options.has_forward ||
                 (policy.chunks_alternate ? chunk != state.last_forward : key < options.forward_key)) {
        options.has_forward = true;
        options.forward = forward_step(chunk);
        options.forward_key = key;
        options.forward_at = arrival;
      }
    }
  }
  return options;
}

void ZeroBubbleDispatcher::arrive(std::vector<Ticks>& arrivals, int from, int to, int micro_batch, Ticks end) {
  const int receiver = pipeline_.device_of(to);
  const bool same = pipeline_.device_of(from) == receiver;
  const Ticks arrival = end + (same ? 0 : communication_);
  arrivals[cell(to, micro_batch)] = arrival;
  if (!same) wake_[at(receiver)] = std::min(wake_[at(receiver)], std::max(arrival, devices_[at(receiver)].free));
}

void ZeroBubbleDispatcher::start(int device, Step step, Ticks now, StepLists& lists) {
  Device& state = devices_[at(device)];
  if (state.left < pipeline_.steps_per_device()) state.spare -= now - state.free;
  lists[at(device)].push_back(step);
  --state.left;
  state.live += pipeline_.memory_of(step);
  state.free = now + pipeline_.duration(device, step);
  state.last = step;
  wake_[at(device)] = state.free;
  if (step == Step::Weight) {
    ++state.weights[state.weights[0] < state.inputs[0] ? 0 : 1];
    return;
  }
  const int chunk = chunk_of(step), part = pipeline_.part_of(device, chunk);
  state.last_was_input = is_input(step);
  if (is_forward(step)) {
    const int micro_batch = state.forwards[chunk]++;
    state.last_forward = chunk;
    if (part + 1 < pipeline_.num_parts()) {
      arrive(forward_arrival_, part, part + 1, micro_batch, state.free);
    } else {
      input_arrival_[cell(part, micro_batch)] = state.free;
    }
  } else {
    const int micro_batch = state.inputs[chunk]++;
    state.last_input = chunk;
    if (part > 0) arrive(input_arrival_, part, part - 1, micro_batch, state.free);
  }
}

void ZeroBubbleDispatcher::decide(const ZeroBubblePolicy& policy, int device, Ticks now, StepLists& lists) {
  const Device& state = devices_[at(device)];
  // Right after an input gradient there is always one to follow it.
  if (weave_now(policy, state)) return start(device, Step::Weight, now, lists);
  Options options = options_of(policy, device, now);
  const auto fill_or_wait = [&](Ticks until) {
    const bool fill = until - now >= part_of_time(policy.fill_fraction, pipeline_.weight[at(device)]) ||
                      until - state.free > state.spare;
    if (options.weight_waits && fill && !options.hold) {
      start(device, Step::Weight, now, lists);
    } else if (until < kNever) {
      wake_[at(device)] = until;
    }
  };
  if (options.has_forward && options.has_input && options.memory_left) {
    using Alternate = ZeroBubblePolicy::Alternate;
    if (policy.alternate != Alternate::Never && state.last_was_input) options.forward_key = options.input_key - 1;
    if (policy.alternate == Alternate::Always && !state.last_was_input) options.forward_key = options.input_key + 1;
  }
  bool forward = options.has_forward && (!options.has_input || options.forward_key < options.input_key);
  if (forward && !options.memory_left) {
    if (options.weight_waits && !options.has_input) return start(device, Step::Weight, now, lists);
    forward = false;
  }
  if (forward) {
    const Ticks wait = part_of_time(policy.forward_wait_fraction, pipeline_.forward[at(device)]);
    if (!options.has_input && options.next_input < now + wait) return fill_or_wait(options.next_input);
    if (options.forward_at > now) return fill_or_wait(options.forward_at);
    return start(device, options.forward, now, lists);
  }
  if (!options.has_input) return fill_or_wait(options.next);
  if (options.input_at > now) return fill_or_wait(options.input_at);
  start(device, options.input, now, lists);
}

bool ZeroBubbleDispatcher::run(const ZeroBubblePolicy& policy, StepLists& lists) {
  reset(policy);
  lists.resize(at(pipeline_.num_devices));
  for (std::vector<Step>& list : lists) {
    list.clear();
    list.reserve(at(pipeline_.steps_per_device()));
  }
  std::int64_t left = std::int64_t{pipeline_.num_devices} * pipeline_.steps_per_device();
  while (left > 0) {
    const auto first = std::min_element(wake_.begin(), wake_.end());
    if (*first >= kNever) return false;
    const Ticks now = *first;
    *first = kNever;
    const int device = static_cast<int>(first - wake_.begin());
    if (devices_[at(device)].left == 0) continue;
    const int before = devices_[at(device)].left;
    decide(policy, device, now, lists);
    left -= before - devices_[at(device)].left;
  }
  return true;
}

}  // namespace coxswain::plan
