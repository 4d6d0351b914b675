#pragma once
// Private to plan/: a zero-bubble problem in whole ticks, its orders as lists of steps, and bounds that hold for every
// order. Micro-batches are alike, so that each kind of work of a chunk runs in their order on every device and a step
// needs no index: the n-th Forward0 of a list is micro-batch n. A weight step belongs to the oldest backward that
// still waits for it. Threads: pure values.
#include <cstdint>
#include <limits>
#include <vector>

#include "plan/zero_bubble.h"

namespace coxswain::plan {

using Ticks = std::int64_t;
inline constexpr Ticks kNever = std::numeric_limits<Ticks>::max() / 4;

enum class Step : std::uint8_t { Forward0, Forward1, Input0, Input1, Weight };
inline bool is_forward(Step step) { return step <= Step::Forward1; }
inline bool is_input(Step step) { return step == Step::Input0 || step == Step::Input1; }
inline int chunk_of(Step step) { return static_cast<int>(step) & 1; }  // of a forward or an input step
inline Step forward_step(int chunk) { return static_cast<Step>(chunk); }
inline Step input_step(int chunk) { return static_cast<Step>(2 + chunk); }
using StepLists = std::vector<std::vector<Step>>;  // by device

struct ZeroBubblePipeline {
  int num_devices = 0, num_micro_batches = 0, num_chunks = 1;
  std::vector<Ticks> forward, input, weight;  // by device
  Ticks communication = 0;
  double forward_memory = 0, input_memory = 0, weight_memory = 0;
  double memory_limit = 0;  // with room for rounding
  double ticks_per_second = 1;

  [[nodiscard]] int num_parts() const { return num_devices * num_chunks; }
  [[nodiscard]] int steps_per_device() const { return 3 * num_micro_batches * num_chunks; }
  [[nodiscard]] int device_of(int part) const { return part < num_devices ? part : 2 * num_devices - 1 - part; }
  [[nodiscard]] int part_of(int device, int chunk) const { return chunk == 0 ? device : 2 * num_devices - 1 - device; }
  /// Between neighbouring parts.
  [[nodiscard]] Ticks transfer(int from, int to) const { return device_of(from) == device_of(to) ? 0 : communication; }
  [[nodiscard]] Ticks duration(int device, Step step) const {
    const auto d = static_cast<std::size_t>(device);
    return is_forward(step) ? forward[d] : step == Step::Weight ? weight[d] : input[d];
  }
  [[nodiscard]] double memory_of(Step step) const {
    return is_forward(step) ? forward_memory : step == Step::Weight ? weight_memory : input_memory;
  }
  [[nodiscard]] Ticks work_per_micro_batch(int device) const;  // of all chunks
  [[nodiscard]] Ticks work(int device) const { return num_micro_batches * work_per_micro_batch(device); }
  /// Forwards that the limit holds at once on a device, at most all.
  [[nodiscard]] int max_in_flight() const;
};

/// A tick is the largest power of ten of seconds that keeps sums exact in a double; decimal inputs come out exact.
[[nodiscard]] ZeroBubblePipeline make_pipeline(const ZeroBubbleProblem& problem);

/// From the start of a forward at part `from` to the start of the same micro-batch's forward at part `to` >= `from`.
[[nodiscard]] Ticks forward_chain(const ZeroBubblePipeline& pipeline, int from, int to);
/// The same for the input gradient, which runs from the last part down; `to` <= `from`.
[[nodiscard]] Ticks input_chain(const ZeroBubblePipeline& pipeline, int from, int to);
/// From the start of a forward at part `from` to the earliest start of its micro-batch's input gradient at part `to`.
[[nodiscard]] Ticks round_trip(const ZeroBubblePipeline& pipeline, int from, int to);

/// No order has a shorter longest span. The best of: a device's work; plus the idle time before its first and after
/// its last possible work that memory forces; plus another device's work between two crossings of the pipeline.
[[nodiscard]] Ticks longest_span_bound(const ZeroBubblePipeline& pipeline);

/// One micro-batch after the other: the order with the least memory.
[[nodiscard]] StepLists sequential_steps(const ZeroBubblePipeline& pipeline);
[[nodiscard]] double peak_memory(const ZeroBubblePipeline& pipeline, const std::vector<Step>& steps);

[[nodiscard]] ZeroBubbleOrder to_order(const ZeroBubblePipeline& pipeline, const StepLists& lists);

}  // namespace coxswain::plan
