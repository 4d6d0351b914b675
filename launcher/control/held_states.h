#pragma once
// State of the last step that ranks of an ended generation keep in memory: whether those whose processes serve the next
// one hold every element of it together. Called by coordinator. Threads: pure.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/manifest.h"

namespace coxswain::launcher {

struct RankBinding;

/// A step's state that lies in memory whole.
struct StepInMemory {
  int generation = 0;  // that took it
  checkpoint::Progress progress;
  friend bool operator==(const StepInMemory&, const StepInMemory&) = default;
};

class HeldStates {
 public:
  /// `held`: a serialised HeldState of `rank`, which ran at `place`. One that cannot be read is left out.
  void add(int rank, const RankBinding& place, std::string_view held);
  /// The node is lost, with all that it held.
  void lose(int node);
  void clear() { states_.clear(); }
  /// The newest step whose every element is held by ranks that have the same number and place in `ranks`: an agent
  /// keeps no other process.
  [[nodiscard]] std::optional<StepInMemory> newest(const std::vector<RankBinding>& ranks) const;

 private:
  struct State {
    int rank = 0, node = 0, local_device = 0;
    StepInMemory step;
    std::int64_t num_elements = 0, held_elements = 0;  // of the whole model, of this state
    std::string pieces;                                // a Shard as JSON: read when it is asked what is whole
  };
  [[nodiscard]] static bool is_whole(const std::vector<const State*>& states);
  std::vector<State> states_;
};

}  // namespace coxswain::launcher
