#include "plan/schedule.h"

#include <algorithm>

#include "common/ensure.h"

namespace coxswain::plan {
namespace {

/// What stage s of p does while it waits: forwards before the first backward, and how many backwards later each weight
/// gradient comes (never where the backward is whole).
struct Shape {
  std::int64_t warmup = 0, lag = 0;
};

// GPipe is 1F1B whose warmup takes every micro-batch. In 1F1B stage s runs ahead by the p - 1 - s micro-batches that
// are on their way through later stages, then alternates; so it never holds more than p - s of them:
//   stage 0: F0 F1 F2 B0 F3 B1 B2 B3
//   stage 1: F0 F1 B0 F2 B1 F3 B2 B3
//   stage 2: F0 B0 F1 B1 F2 B2 F3 B3
// H1 splits B and lets W come s backwards later, so that a gradient reaches stage 0 sooner and every stage holds p:
//   stage 0: F0 F1 F2 I0 W0 F3 I1 W1 I2 W2 I3 W3
//   stage 1: F0 F1 I0 F2 I1 W0 F3 I2 W1 I3 W2 W3
//   stage 2: F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3
// H2 runs ahead twice as far and lets W come twice as late: each stage is busy from its first forward to its last W,
// at 2p - 1 micro-batches. Source: Qi et al., "Zero Bubble Pipeline Parallelism", ICLR 2024, section 2.
Shape shape_of(ScheduleKind kind, int stage, int num_stages, std::int64_t count) {
  const std::int64_t behind = num_stages - 1 - stage;
  switch (kind) {
    case ScheduleKind::GPipe: return {count, 0};
    case ScheduleKind::OneForwardOneBackward: return {behind, 0};
    case ScheduleKind::ZeroBubbleH1: return {behind, stage};
    case ScheduleKind::ZeroBubbleH2: return {2 * behind, 2 * std::int64_t{stage}};
    default: break;
  }
  COX_ENSURE(false, to_text(kind));
  return {};
}

std::vector<Action> make_plain(ScheduleKind kind, int stage, int num_stages, int num_micro_batches) {
  const Shape shape = shape_of(kind, stage, num_stages, num_micro_batches);
  const bool split = splits_backward(kind);
  const int warmup = static_cast<int>(std::min<std::int64_t>(shape.warmup, num_micro_batches));
  const int lag = static_cast<int>(std::min<std::int64_t>(shape.lag, num_micro_batches));
  std::vector<Action> actions;
  actions.reserve(static_cast<std::size_t>((split ? 3 : 2) * num_micro_batches));
  for (int m = 0; m < warmup; ++m) actions.push_back({ActionKind::Forward, m});
  for (int m = 0; m < num_micro_batches; ++m) {
    if (m + warmup < num_micro_batches) actions.push_back({ActionKind::Forward, m + warmup});
    actions.push_back({split ? ActionKind::BackwardInput : ActionKind::Backward, m});
    if (split && m >= lag) actions.push_back({ActionKind::BackwardWeight, m - lag});
  }
  for (int m = num_micro_batches - lag; split && m < num_micro_batches; ++m)
    actions.push_back({ActionKind::BackwardWeight, m});
  return actions;
}

Action on_chunk(ActionKind kind, int micro_batch, int chunk) { return {kind, micro_batch, -1, -1, -1, chunk}; }

/// Micro-batches of the largest round. A round takes as many micro-batches as there are stages through every chunk
/// before the next begins; what does not divide makes the first rounds larger.
std::int64_t round_size(int num_stages, std::int64_t count) {
  const std::int64_t rounds = std::max<std::int64_t>(1, count / num_stages);
  return (count + rounds - 1) / rounds;
}

std::int64_t interleaved_warmup(int stage, int num_stages, std::int64_t count, int num_chunks) {
  return std::min((num_chunks - 1) * round_size(num_stages, count) + 2 * std::int64_t{num_stages - 1 - stage},
                  num_chunks * count);
}

// Two chunks, two stages, four micro-batches; ' marks the second chunk:
//   stage 0: F0 F1 F0' F1' F2 B0' F3 B1' F2' B0 F3' B1 B2' B3' B2 B3
//   stage 1: F0 F1 F0' B0' F1' B1' F2 B0 F3 B1 F2' B2' F3' B3' B2 B3
// Forwards and backwards are two fixed sequences, equal on all stages; a stage nearer to the start only begins its
// backwards later. Source: Narayanan et al., "Efficient large-scale language model training", SC 2021
// (2104.04473), 2.2.
std::vector<Action> make_interleaved(int stage, int num_stages, int count, int num_chunks) {
  const int rounds = std::max(1, count / num_stages);
  std::vector<Action> forwards, backwards;
  for (int round = 0, first = 0; round < rounds; ++round) {
    const int end = first + count / rounds + (round < count % rounds ? 1 : 0);
    for (int chunk = 0; chunk < num_chunks; ++chunk) {
      for (int m = first; m < end; ++m) {
        forwards.push_back(on_chunk(ActionKind::Forward, m, chunk));
        backwards.push_back(on_chunk(ActionKind::Backward, m, num_chunks - 1 - chunk));
      }
    }
    first = end;
  }
  const auto warmup = static_cast<std::size_t>(interleaved_warmup(stage, num_stages, count, num_chunks));
  std::vector<Action> actions(forwards.begin(), forwards.begin() + static_cast<std::ptrdiff_t>(warmup));
  actions.reserve(2 * forwards.size());
  for (std::size_t i = 0; i < backwards.size(); ++i) {
    if (i + warmup < forwards.size()) actions.push_back(forwards[i + warmup]);
    actions.push_back(backwards[i]);
  }
  return actions;
}

/// Writes a V's list of one stage; micro-batches beyond the count are left out.
class VBuilder {
 public:
  explicit VBuilder(int count) : count_(count) {}

  void forward(int chunk) { add(ActionKind::Forward, chunk, forwards_[chunk]++); }
  void input(int chunk) { add(ActionKind::BackwardInput, chunk, inputs_[chunk]++); }
  void weight(int chunk) { add(ActionKind::BackwardWeight, chunk, weights_[chunk]++); }
  void both(int chunk) {
    input(chunk);
    weight(chunk);
  }
  [[nodiscard]] int forwards(int chunk) const { return forwards_[chunk]; }
  /// Input gradients whose weight gradient is still to come.
  [[nodiscard]] int owed(int chunk) const { return inputs_[chunk] - weights_[chunk]; }
  [[nodiscard]] std::vector<Action> take() { return std::move(actions_); }

 private:
  void add(ActionKind kind, int chunk, int micro_batch) {
    if (micro_batch < count_) actions_.push_back(on_chunk(kind, micro_batch, chunk));
  }

  int count_;
  int forwards_[2] = {0, 0}, inputs_[2] = {0, 0}, weights_[2] = {0, 0};
  std::vector<Action> actions_;
};

// Stage s sees a micro-batch at time s on its way down and at 2p - 1 - s on its way up. It runs forwards of the first
// chunk until the first one is back, takes the chunks in turn until that one's gradient comes from below, and goes on
// in periods of six: F I W of one chunk, F I W of the other. When forwards have run out, input gradients come first and
// weight gradients fill the tail. Never more than 2p half micro-batches are held, as much as 1F1B's first stage.
// Source: Qi et al., "Zero Bubble Pipeline Parallelism", ICLR 2024, section 6 (ZB-V).
std::vector<Action> make_v(int stage, int num_stages, int count) {
  // A shorter step than fills the pipeline is a longer one with gaps.
  const int filled = std::max(count, 2 * num_stages - 1);
  VBuilder list(count);
  for (int i = 0; i < 2 * (num_stages - stage) - 1; ++i) list.forward(0);
  for (int i = 0; i < stage; ++i) {
    list.forward(1);
    list.forward(0);
  }
  for (int i = stage; i < num_stages; ++i) {
    list.forward(1);
    list.both(1);
  }
  while (list.forwards(1) < filled) {
    if (list.forwards(0) < filled) list.forward(0);
    list.both(0);
    list.forward(1);
    list.both(1);
  }
  for (int i = 0; i < stage; ++i) {
    list.input(0);
    list.input(1);
  }
  for (int i = stage; i < num_stages; ++i) list.both(0);
  while (list.owed(1) > 0) list.weight(1);
  while (list.owed(0) > 0) list.weight(0);
  return list.take();
}

}  // namespace

bool splits_backward(ScheduleKind kind) {
  return kind == ScheduleKind::ZeroBubbleH1 || kind == ScheduleKind::ZeroBubbleH2 || kind == ScheduleKind::ZeroBubbleV;
}

bool is_custom(ScheduleKind kind) { return kind == ScheduleKind::Custom || kind == ScheduleKind::CustomV; }

bool is_v_shaped(ScheduleKind kind) { return kind == ScheduleKind::ZeroBubbleV || kind == ScheduleKind::CustomV; }

bool has_chunks(ScheduleKind kind) {
  return kind == ScheduleKind::Interleaved || kind == ScheduleKind::ZeroBubbleV || is_custom(kind);
}

std::vector<int> chunk_choices(ScheduleKind kind, int num_stages, int num_blocks, int most) {
  if (!has_chunks(kind)) return num_stages <= num_blocks ? std::vector<int>{1} : std::vector<int>{};
  std::vector<int> choices;
  if (num_stages < 2) return choices;
  const int end = kind == ScheduleKind::ZeroBubbleV ? 2 : most;
  for (int chunks = 2; chunks <= std::min(end, num_blocks / num_stages); ++chunks) choices.push_back(chunks);
  return choices;
}

std::vector<Action> make_schedule(ScheduleKind kind, int stage, int num_stages, int num_micro_batches, int num_chunks) {
  COX_ENSURE(0 <= stage && stage < num_stages && num_micro_batches >= 1, stage, num_stages, num_micro_batches);
  COX_ENSURE(!is_custom(kind), to_text(kind));
  if (kind == ScheduleKind::ZeroBubbleV) {
    COX_ENSURE(num_chunks == 2, num_chunks);
    return make_v(stage, num_stages, num_micro_batches);
  }
  if (kind == ScheduleKind::Interleaved) {
    COX_ENSURE(num_chunks >= 2, num_chunks);
    return make_interleaved(stage, num_stages, num_micro_batches, num_chunks);
  }
  COX_ENSURE(num_chunks == 1, to_text(kind), num_chunks);
  return make_plain(kind, stage, num_stages, num_micro_batches);
}

int peak_in_flight(ScheduleKind kind, int stage, int num_stages, std::int64_t num_micro_batches, int num_chunks) {
  if (kind == ScheduleKind::ZeroBubbleV) {
    // Forwards of the first chunk before the first gradient, and those of the second with the one it belongs to.
    return static_cast<int>(std::min<std::int64_t>(num_micro_batches, 2 * num_stages - 1 - stage) +
                            std::min<std::int64_t>(num_micro_batches, stage + 1));
  }
  if (kind == ScheduleKind::Interleaved) {
    const std::int64_t warmup = interleaved_warmup(stage, num_stages, num_micro_batches, num_chunks);
    return static_cast<int>(std::min(warmup + 1, num_chunks * num_micro_batches));
  }
  const Shape shape = shape_of(kind, stage, num_stages, num_micro_batches);
  return static_cast<int>(std::min(shape.warmup + shape.lag + 1, num_micro_batches));
}

int peak_weights_owed(ScheduleKind kind, int stage, std::int64_t num_micro_batches) {
  switch (kind) {
    case ScheduleKind::ZeroBubbleH1: return static_cast<int>(std::min<std::int64_t>(num_micro_batches, stage + 1));
    case ScheduleKind::ZeroBubbleH2: return static_cast<int>(std::min<std::int64_t>(num_micro_batches, 2 * stage + 1));
    case ScheduleKind::ZeroBubbleV:
      return static_cast<int>(std::min<std::int64_t>(2 * num_micro_batches, 2 * stage + 1));
    default: return 0;
  }
}

std::set<int> find_whole_backwards(const std::vector<Action>& list, int chunk) {
  std::set<int> whole;
  const Action* last = nullptr;
  for (const Action& action : list) {
    if (!is_compute(action.kind) || action.micro_batch < 0) continue;
    if (action.kind == ActionKind::BackwardWeight && action.chunk == chunk && last != nullptr &&
        last->kind == ActionKind::BackwardInput && last->chunk == chunk && last->micro_batch == action.micro_batch)
      whole.insert(action.micro_batch);
    last = &action;
  }
  return whole;
}

int extra_credits(ScheduleKind kind, int num_stages, std::int64_t num_micro_batches) {
  if (kind != ScheduleKind::Interleaved) return 0;
  return static_cast<int>(std::max<std::int64_t>(0, round_size(num_stages, num_micro_batches) - num_stages));
}

int part_of(ScheduleKind kind, int stage, int num_stages, int chunk) {
  if (is_v_shaped(kind) && chunk == 1) return 2 * num_stages - 1 - stage;
  return chunk * num_stages + stage;
}

PartPlace place_of_part(ScheduleKind kind, int part, int num_stages) {
  if (is_v_shaped(kind) && part >= num_stages) return {2 * num_stages - 1 - part, 1};
  return {part % num_stages, part / num_stages};
}

}  // namespace coxswain::plan
