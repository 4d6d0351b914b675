#pragma once
// Private to plan/: list scheduling of a zero-bubble pipeline. Devices decide in the order of time; what a device does
// next depends on what has arrived, on the memory left and on a policy. Forwards and input gradients come first, by
// urgency; weight work fills the gaps, or makes room, or follows its backward at once. Never deadlocks: the oldest
// micro-batch can always go on, since a V keeps room for a forward of its second chunk. Threads: one per object.
#include <vector>

#include "plan/zero_bubble_pipeline.h"

namespace coxswain::plan {

struct ZeroBubblePolicy {
  /// Steps of a micro-batch are as urgent as the way that it still has before it, less `spacing` for every micro-batch
  /// before it. Small: forwards first; large: old micro-batches first.
  Ticks spacing = 0;
  enum class Alternate { Never, AfterInput, Always };
  Alternate alternate = Alternate::Always;  // forwards and input gradients take turns where both are ready
  bool chunks_alternate = false;            // of two ready forwards, or gradients, the chunk that was not last
  /// A weight step right after each input gradient until this many forwards of the last chunk are left; -1: never.
  int weave_until = -1;
  /// What arrives within this part of a forward counts as ready.
  double patience_fraction = 0;
  /// No forward is begun when an input gradient arrives within this part of it.
  double forward_wait_fraction = 0;
  /// Weight work starts in a gap that is at least this part of its time; shorter gaps stay idle ...
  double fill_fraction = 1;
  /// ... while the device stays within this span.
  Ticks target = kNever;
  bool count_communication = true;  // false: decide as if it took no time
  std::vector<int> max_flying[2];   // by chunk and device: forwards without their input gradient
};

class ZeroBubbleDispatcher {
 public:
  explicit ZeroBubbleDispatcher(const ZeroBubblePipeline& pipeline);
  /// Writes an order within the memory limit. False: the policy found none (only for unusual memory changes).
  /// Requires: the limit holds two forwards, or one for one chunk. Cost: O(actions x (log or devices)).
  bool run(const ZeroBubblePolicy& policy, StepLists& lists);

 private:
  struct Device {
    Ticks free = 0;
    Ticks spare = 0;  // idle time that it may still have
    double live = 0;
    int forwards[2] = {0, 0}, inputs[2] = {0, 0}, weights[2] = {0, 0};
    int left = 0;
    Step last = Step::Weight;
    bool last_was_input = false;           // leaving weight steps out
    int last_forward = 1, last_input = 0;  // chunks
  };
  struct Options {
    bool has_input = false, has_forward = false;  // that may start within the policy's patience
    Step input{}, forward{};
    Ticks input_key = kNever, forward_key = kNever;
    Ticks input_at = kNever, forward_at = kNever;
    Ticks next_input = kNever;  // of all that is known to arrive
    Ticks next = kNever;        // of what is not an option yet
    bool memory_left = false, weight_waits = false;
    bool hold = false;  // weight work now would make an input gradient too late for the target
  };

  void reset(const ZeroBubblePolicy& policy);
  [[nodiscard]] Options options_of(const ZeroBubblePolicy& policy, int device, Ticks now) const;
  void decide(const ZeroBubblePolicy& policy, int device, Ticks now, StepLists& lists);
  void start(int device, Step step, Ticks now, StepLists& lists);
  void arrive(std::vector<Ticks>& arrivals, int from, int to, int micro_batch, Ticks end);
  [[nodiscard]] bool may_fly(const ZeroBubblePolicy& policy, int device, int chunk) const;
  [[nodiscard]] bool weave_now(const ZeroBubblePolicy& policy, const Device& state) const;
  [[nodiscard]] std::size_t cell(int part, int micro_batch) const {
    return static_cast<std::size_t>(part) * static_cast<std::size_t>(pipeline_.num_micro_batches) +
           static_cast<std::size_t>(micro_batch);
  }

  const ZeroBubblePipeline& pipeline_;
  std::vector<Device> devices_;
  std::vector<Ticks> wake_;                             // when a device decides next
  std::vector<Ticks> forward_arrival_, input_arrival_;  // by cell
  std::vector<Ticks> forward_way_, input_way_;          // by part: time to the end of the micro-batch
  std::vector<Ticks> latest_input_;                     // by part: start of the last one that meets the target
  Ticks least_input_ = 0;
  Ticks communication_ = 0;
};

}  // namespace coxswain::plan
