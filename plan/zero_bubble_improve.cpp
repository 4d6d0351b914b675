#include "plan/zero_bubble_improve.h"

#include <algorithm>
#include <array>
#include <random>

#include "plan/zero_bubble_timer.h"

namespace coxswain::plan {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

struct Place {
  int device = 0, position = 0;
};

class Improver {
 public:
  Improver(const ZeroBubblePipeline& pipeline, StepLists& lists)
      : pipeline_(pipeline), lists_(lists), timer_(pipeline), length_(pipeline.steps_per_device()) {}

  Ticks run(const ImproveOptions& options, std::int64_t& num_moves);

 private:
  struct Move {
    int device = 0, from = 0, to = 0;  // the step at `from` goes to `to`
  };
  void trace();
  [[nodiscard]] bool ends_at(int device, int position, Ticks time) const {
    return timer_.end(lists_, device, position) == time;
  }
  [[nodiscard]] bool needed(int device, int position, Place& need) const;
  Move choose();
  [[nodiscard]] int later_gap(int device, int position, Ticks least) const;
  [[nodiscard]] int earlier_gap(int device, int position) const;
  [[nodiscard]] bool allowed(const Move& move) const;
  void apply(const Move& move);
  int below(int count) { return static_cast<int>(random_() % static_cast<unsigned>(count)); }

  const ZeroBubblePipeline& pipeline_;
  StepLists& lists_;
  ZeroBubbleTimer timer_;
  int length_;
  std::mt19937 random_{20240229};
  std::vector<Place> critical_;  // steps that start when the one before them on their device ends
};

/// The step whose end `position` waits for through the pipeline, when it starts exactly then.
bool Improver::needed(int device, int position, Place& need) const {
  const Step step = lists_[at(device)][at(position)];
  if (step == Step::Weight) return false;
  const int part = pipeline_.part_of(device, chunk_of(step));
  const int last_part = pipeline_.num_parts() - 1;
  int source = part;
  if (is_forward(step)) {
    if (part == 0) return false;
    source = part - 1;
    const int micro_batch = timer_.forwards_before(part, position);
    need = {pipeline_.device_of(source), timer_.forward_position(source, micro_batch)};
  } else {
    const int micro_batch = timer_.inputs_before(part, position);
    source = std::min(part + 1, last_part);
    need = {pipeline_.device_of(source), part == last_part ? timer_.forward_position(part, micro_batch)
                                                           : timer_.input_position(source, micro_batch)};
  }
  return ends_at(need.device, need.position, timer_.start(device, position) - pipeline_.transfer(source, part));
}

void Improver::trace() {
  critical_.clear();
  Place place{timer_.slowest_device(), length_ - 1};
  while (true) {
    const bool follows =
        place.position > 0 && ends_at(place.device, place.position - 1, timer_.start(place.device, place.position));
    Place need;
    const bool waits = needed(place.device, place.position, need);
    if (follows && !(waits && below(2) == 0)) {
      critical_.push_back(place);
      --place.position;
    } else if (waits) {
      place = need;
    } else {
      return;
    }
  }
}

/// The first position after `position` behind which the device is idle for `least`, or the last one.
int Improver::later_gap(int device, int position, Ticks least) const {
  while (position + 1 < length_ &&
         timer_.start(device, position + 1) - timer_.end(lists_, device, position) < std::max<Ticks>(1, least))
    ++position;
  return position;
}

/// The last position up to `position` that starts after idle time, or 0.
int Improver::earlier_gap(int device, int position) const {
  while (position > 0 && timer_.start(device, position) == timer_.end(lists_, device, position - 1)) --position;
  return position;
}

Improver::Move Improver::choose() {
  const Place place = critical_[at(below(static_cast<int>(critical_.size())))];
  const int device = place.device, before = place.position - 1;
  const Step first = lists_[at(device)][at(before)];
  const int kind = below(4);
  if (kind == 3) {
    if (lists_[at(device)][at(place.position)] == Step::Weight)
      return {device, place.position, earlier_gap(device, std::max(1, before - below(48)))};
    return {device, place.position, std::max(0, before - below(4))};
  }
  const Ticks weight = pipeline_.weight[at(device)];
  if (first == Step::Weight && kind == 1) return {device, before, later_gap(device, place.position, weight / 2)};
  if (first == Step::Weight && kind == 2) return {device, before, later_gap(device, place.position, weight / 8)};
  const int reach = first == Step::Weight ? 12 : kind == 2 ? 4 : 1;
  return {device, before, std::min(length_ - 1, place.position + below(reach))};
}

/// The list of the device alone: kinds in order, memory within the limit.
bool Improver::allowed(const Move& move) const {
  const std::vector<Step>& list = lists_[at(move.device)];
  const Step moved = list[at(move.from)];
  const int low = std::min(move.from, move.to), high = std::max(move.from, move.to);
  std::array<int, 2> forwards{}, inputs{};
  int weights = low;
  double live = 0;
  for (int chunk = 0; chunk < pipeline_.num_chunks; ++chunk) {
    const int part = pipeline_.part_of(move.device, chunk);
    forwards[at(chunk)] = timer_.forwards_before(part, low);
    inputs[at(chunk)] = timer_.inputs_before(part, low);
    weights -= forwards[at(chunk)] + inputs[at(chunk)];
    live += forwards[at(chunk)] * pipeline_.forward_memory + inputs[at(chunk)] * pipeline_.input_memory;
  }
  live += weights * pipeline_.weight_memory;
  int waiting = inputs[0] + inputs[1] - weights;
  const bool turns = pipeline_.num_chunks == 2 && move.device == pipeline_.num_devices - 1;
  for (int i = low; i <= high; ++i) {
    const Step step = i == move.to ? moved : list[at(move.from > move.to ? i - 1 : i + 1)];
    // Like steps keep their order; weight steps are all alike.
    if (step == moved && i != move.to && step != Step::Weight) return false;
    if (step == Step::Weight) {
      if (--waiting < 0) return false;
    } else if (is_forward(step)) {
      ++forwards[at(chunk_of(step))];
      if (turns && forwards[1] > forwards[0]) return false;
    } else {
      const int chunk = chunk_of(step);
      if (++inputs[at(chunk)] > forwards[at(chunk)]) return false;
      if (turns && inputs[0] > inputs[1]) return false;
      ++waiting;
    }
    live += pipeline_.memory_of(step);
    if (live > pipeline_.memory_limit) return false;
  }
  return true;
}

void Improver::apply(const Move& move) {
  const auto begin = lists_[at(move.device)].begin();
  if (move.from < move.to) {
    std::rotate(begin + move.from, begin + move.from + 1, begin + move.to + 1);
  } else {
    std::rotate(begin + move.to, begin + move.from, begin + move.from + 1);
  }
}

Ticks Improver::run(const ImproveOptions& options, std::int64_t& num_moves) {
  Ticks current = timer_.time_all(lists_), best = current;
  StepLists best_lists = lists_;
  trace();
  // Moves that are not allowed cost little, but there must be an end to them.
  std::int64_t tries = 8 * options.max_moves;
  for (std::int64_t moves = 0; moves < options.max_moves && --tries > 0 && !critical_.empty();) {
    if (best <= options.good_enough) break;
    const Move move = choose();
    if (move.from == move.to || !allowed(move)) continue;
    ++moves;
    ++num_moves;
    const auto left = static_cast<double>(options.max_moves - moves) / static_cast<double>(options.max_moves);
    const double share = left * left * static_cast<double>(random_() >> 8U) / static_cast<double>(1U << 24U);
    const Ticks limit = current + static_cast<Ticks>(share * static_cast<double>(options.first_threshold));
    apply(move);
    const Ticks span = timer_.time_change(lists_, move.device, std::min(move.from, move.to), limit);
    if (span >= kNever) {
      apply({move.device, move.to, move.from});
      timer_.undo();
      continue;
    }
    timer_.keep(lists_);
    current = span;
    if (span < best) {
      best = span;
      best_lists = lists_;
    }
    trace();
  }
  lists_ = best_lists;
  return best;
}

}  // namespace

Ticks improve_steps(const ZeroBubblePipeline& pipeline, const ImproveOptions& options, StepLists& lists,
                    std::int64_t& num_moves) {
  if (options.max_moves <= 0) return ZeroBubbleTimer(pipeline).time_all(lists);
  return Improver(pipeline, lists).run(options, num_moves);
}

}  // namespace coxswain::plan
