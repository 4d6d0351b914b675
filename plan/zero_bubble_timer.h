#pragma once
// Private to plan/: start times of step lists, first all of them, then again after a change in one list: only what
// starts later than the change is timed anew. Threads: one per object.
#include <array>
#include <vector>

#include "plan/zero_bubble_pipeline.h"

namespace coxswain::plan {

class ZeroBubbleTimer {
 public:
  explicit ZeroBubbleTimer(const ZeroBubblePipeline& pipeline);

  /// The longest span; kNever when the lists deadlock (nothing else may be asked then).
  Ticks time_all(const StepLists& lists);

  /// After time_all or keep, with lists[device] changed from position `first` on: the longest span, or kNever when it
  /// is over `limit` or the lists deadlock. Must be followed by keep or undo, with the lists as they are then.
  Ticks time_change(const StepLists& lists, int device, int first, Ticks limit);
  void keep(const StepLists& lists);
  void undo();

  [[nodiscard]] Ticks start(int device, int position) const { return starts_[slot(device, position)]; }
  [[nodiscard]] Ticks end(const StepLists& lists, int device, int position) const;
  /// Where the step of that micro-batch stands in its device's list.
  [[nodiscard]] int forward_position(int part, int micro_batch) const {
    return forward_position_[cell(part, micro_batch)];
  }
  [[nodiscard]] int input_position(int part, int micro_batch) const { return input_position_[cell(part, micro_batch)]; }
  /// How many steps of a kind stand before `position` of their device's list.
  [[nodiscard]] int forwards_before(int part, int position) const;
  [[nodiscard]] int inputs_before(int part, int position) const;
  /// The device whose span is the longest, the first of several.
  [[nodiscard]] int slowest_device() const { return slowest_device_; }

 private:
  struct Device {
    int position = 0;  // of the next step
    Ticks free = 0;
    Ticks idle = 0;   // since its first step
    int rewound = 0;  // position from which the last change was timed
  };
  [[nodiscard]] std::size_t slot(int device, int position) const {
    return static_cast<std::size_t>(device) * static_cast<std::size_t>(length_) + static_cast<std::size_t>(position);
  }
  [[nodiscard]] std::size_t cell(int part, int micro_batch) const {
    return static_cast<std::size_t>(part) * static_cast<std::size_t>(pipeline_.num_micro_batches) +
           static_cast<std::size_t>(micro_batch);
  }
  void find_positions(const StepLists& lists, int device);
  void rewind(const StepLists& lists, int device, int position);
  bool run(const StepLists& lists, Ticks limit);
  bool run_device(const std::vector<Step>& list, int device, Ticks limit);
  [[nodiscard]] Ticks longest_span();

  const ZeroBubblePipeline& pipeline_;
  int length_;
  std::vector<Ticks> first_start_, work_;  // by device
  std::vector<Device> devices_;
  std::vector<int> done_forwards_, done_inputs_, rewound_forwards_, rewound_inputs_;  // by part
  std::vector<Ticks> starts_, saved_starts_;                                          // by slot
  std::vector<Ticks> forward_end_, saved_forward_end_, input_end_, saved_input_end_;  // by cell
  std::vector<int> forward_position_, input_position_;                                // by cell
  int changed_device_ = 0, slowest_device_ = 0;
};

}  // namespace coxswain::plan
