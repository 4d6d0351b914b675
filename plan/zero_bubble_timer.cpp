#include "plan/zero_bubble_timer.h"

#include <algorithm>

namespace coxswain::plan {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

/// Copies [first, last) from one vector to the same places of the other.
void copy_range(const std::vector<Ticks>& from, std::vector<Ticks>& to, std::size_t first, std::size_t last) {
  std::copy(from.begin() + static_cast<std::ptrdiff_t>(first), from.begin() + static_cast<std::ptrdiff_t>(last),
            to.begin() + static_cast<std::ptrdiff_t>(first));
}

}  // namespace

ZeroBubbleTimer::ZeroBubbleTimer(const ZeroBubblePipeline& pipeline)
    : pipeline_(pipeline), length_(pipeline.steps_per_device()) {
  Ticks first = 0;
  for (int device = 0; device < pipeline_.num_devices; ++device) {
    // Every list starts with the first forward, since all else needs it: no order changes when that is.
    first_start_.push_back(first);
    first += pipeline_.forward[at(device)] + pipeline_.communication;
    work_.push_back(pipeline_.work(device));
  }
  devices_.resize(at(pipeline_.num_devices));
  done_forwards_.resize(at(pipeline_.num_parts()));
  done_inputs_.resize(at(pipeline_.num_parts()));
  rewound_forwards_ = done_forwards_;
  rewound_inputs_ = done_inputs_;
  starts_.resize(slot(pipeline_.num_devices, 0));
  forward_end_.resize(cell(pipeline_.num_parts(), 0));
  input_end_ = forward_end_;
  saved_starts_ = starts_;
  saved_forward_end_ = forward_end_;
  saved_input_end_ = input_end_;
  forward_position_.resize(forward_end_.size());
  input_position_ = forward_position_;
}

Ticks ZeroBubbleTimer::end(const StepLists& lists, int device, int position) const {
  return start(device, position) + pipeline_.duration(device, lists[at(device)][at(position)]);
}

int ZeroBubbleTimer::forwards_before(int part, int position) const {
  const auto begin = forward_position_.begin() + static_cast<std::ptrdiff_t>(cell(part, 0));
  return static_cast<int>(std::lower_bound(begin, begin + pipeline_.num_micro_batches, position) - begin);
}

int ZeroBubbleTimer::inputs_before(int part, int position) const {
  const auto begin = input_position_.begin() + static_cast<std::ptrdiff_t>(cell(part, 0));
  return static_cast<int>(std::lower_bound(begin, begin + pipeline_.num_micro_batches, position) - begin);
}

void ZeroBubbleTimer::find_positions(const StepLists& lists, int device) {
  std::array<int, 2> forwards{}, inputs{};
  for (int position = 0; position < length_; ++position) {
    const Step step = lists[at(device)][at(position)];
    if (step == Step::Weight) continue;
    const int chunk = chunk_of(step), part = pipeline_.part_of(device, chunk);
    if (is_forward(step)) {
      forward_position_[cell(part, forwards[at(chunk)]++)] = position;
    } else {
      input_position_[cell(part, inputs[at(chunk)]++)] = position;
    }
  }
}

void ZeroBubbleTimer::rewind(const StepLists& lists, int device, int position) {
  Ticks worked = 0;
  int rest = position;
  for (int chunk = 0; chunk < pipeline_.num_chunks; ++chunk) {
    const int part = pipeline_.part_of(device, chunk);
    const int forwards = forwards_before(part, position), inputs = inputs_before(part, position);
    done_forwards_[at(part)] = rewound_forwards_[at(part)] = forwards;
    done_inputs_[at(part)] = rewound_inputs_[at(part)] = inputs;
    copy_range(forward_end_, saved_forward_end_, cell(part, forwards), cell(part + 1, 0));
    copy_range(input_end_, saved_input_end_, cell(part, inputs), cell(part + 1, 0));
    worked += forwards * pipeline_.forward[at(device)] + inputs * pipeline_.input[at(device)];
    rest -= forwards + inputs;
  }
  worked += rest * pipeline_.weight[at(device)];
  Device& state = devices_[at(device)];
  state.position = state.rewound = position;
  copy_range(starts_, saved_starts_, slot(device, position), slot(device + 1, 0));
  state.free = position > 0 ? end(lists, device, position - 1) : 0;
  state.idle = position > 0 ? state.free - first_start_[at(device)] - worked : 0;
}

bool ZeroBubbleTimer::run_device(const std::vector<Step>& list, int device, Ticks limit) {
  const int last_part = pipeline_.num_parts() - 1;
  const Ticks forward = pipeline_.forward[at(device)], input = pipeline_.input[at(device)];
  const Ticks weight = pipeline_.weight[at(device)], most_idle = limit - work_[at(device)];
  Ticks* const starts = &starts_[slot(device, 0)];
  Device state = devices_[at(device)];
  bool within = true;
  for (; state.position < length_ && within; ++state.position) {
    const Step step = list[at(state.position)];
    if (step == Step::Weight) {
      starts[state.position] = state.free;
      state.free += weight;
      continue;
    }
    const int part = pipeline_.part_of(device, chunk_of(step));
    Ticks ready = 0;
    if (is_forward(step)) {
      const int micro_batch = done_forwards_[at(part)];
      if (part > 0) {
        if (done_forwards_[at(part - 1)] <= micro_batch) break;
        ready = forward_end_[cell(part - 1, micro_batch)] + pipeline_.transfer(part - 1, part);
      }
      ready = std::max(ready, state.free);
      forward_end_[cell(part, micro_batch)] = ready + forward;
      ++done_forwards_[at(part)];
    } else {
      const int micro_batch = done_inputs_[at(part)];
      if (done_forwards_[at(part)] <= micro_batch) break;
      if (part < last_part) {
        if (done_inputs_[at(part + 1)] <= micro_batch) break;
        ready = input_end_[cell(part + 1, micro_batch)] + pipeline_.transfer(part + 1, part);
      }
      ready = std::max(ready, state.free);
      input_end_[cell(part, micro_batch)] = ready + input;
      ++done_inputs_[at(part)];
    }
    starts[state.position] = ready;
    if (state.position > 0) state.idle += ready - state.free;
    within = state.idle <= most_idle;
    state.free = ready + (is_forward(step) ? forward : input);
  }
  devices_[at(device)] = state;
  return within;
}

bool ZeroBubbleTimer::run(const StepLists& lists, Ticks limit) {
  const int last = pipeline_.num_devices - 1;
  bool moved = true;
  // Down with the forwards, then up with the gradients.
  for (bool down = true; moved; down = !down) {
    moved = false;
    bool done = true;
    for (int i = 0; i <= last; ++i) {
      const int device = down ? i : last - i;
      const int before = devices_[at(device)].position;
      if (before == length_) continue;
      if (!run_device(lists[at(device)], device, limit)) return false;
      moved = moved || devices_[at(device)].position != before;
      done = done && devices_[at(device)].position == length_;
    }
    if (done) return true;
  }
  return false;
}

Ticks ZeroBubbleTimer::longest_span() {
  Ticks longest = -1;
  for (int device = 0; device < pipeline_.num_devices; ++device) {
    const Ticks span = devices_[at(device)].free - first_start_[at(device)];
    if (span <= longest) continue;
    longest = span;
    slowest_device_ = device;
  }
  return longest;
}

Ticks ZeroBubbleTimer::time_all(const StepLists& lists) {
  std::fill(devices_.begin(), devices_.end(), Device{});
  std::fill(done_forwards_.begin(), done_forwards_.end(), 0);
  std::fill(done_inputs_.begin(), done_inputs_.end(), 0);
  if (!run(lists, kNever)) return kNever;
  for (int device = 0; device < pipeline_.num_devices; ++device) find_positions(lists, device);
  return longest_span();
}

Ticks ZeroBubbleTimer::time_change(const StepLists& lists, int device, int first, Ticks limit) {
  changed_device_ = device;
  const Ticks changed = start(device, first);
  for (int other = 0; other < pipeline_.num_devices; ++other) {
    if (other == device) {
      rewind(lists, other, first);
      continue;
    }
    const auto begin = starts_.begin() + static_cast<std::ptrdiff_t>(slot(other, 0));
    rewind(lists, other, static_cast<int>(std::lower_bound(begin, begin + length_, changed) - begin));
  }
  if (!run(lists, limit)) return kNever;
  Ticks longest = 0;
  for (int other = 0; other < pipeline_.num_devices; ++other)
    longest = std::max(longest, devices_[at(other)].free - first_start_[at(other)]);
  return longest > limit ? kNever : longest;
}

void ZeroBubbleTimer::keep(const StepLists& lists) {
  find_positions(lists, changed_device_);
  static_cast<void>(longest_span());
}

void ZeroBubbleTimer::undo() {
  for (int device = 0; device < pipeline_.num_devices; ++device) {
    const Device& state = devices_[at(device)];
    copy_range(saved_starts_, starts_, slot(device, state.rewound), slot(device, state.position));
  }
  for (int part = 0; part < pipeline_.num_parts(); ++part) {
    copy_range(saved_forward_end_, forward_end_, cell(part, rewound_forwards_[at(part)]),
               cell(part, done_forwards_[at(part)]));
    copy_range(saved_input_end_, input_end_, cell(part, rewound_inputs_[at(part)]), cell(part, done_inputs_[at(part)]));
  }
}

}  // namespace coxswain::plan
