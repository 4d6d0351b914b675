#pragma once
// Checkpoints of nodes that share no disk, as the coordinator sees them: which nodes have yet to put their part in its
// place, and, when a run has to go on, what each of them holds. A node that is lost is waited for no longer. Called by
// coordinator. Threads: pure.
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "checkpoint/spread.h"
#include "common/error.h"

namespace coxswain::launcher {

class SpreadSaves {
 public:
  struct Stored {
    std::int64_t step = 0;
    std::optional<Error> error;  // of the first node that could not
  };

  /// `nodes` were told to put their part of the checkpoint in its place.
  void begin_storing(std::int64_t step, std::set<int> nodes) { storing_[step] = {std::move(nodes), {}}; }
  /// What `node` answered; how it went once the last one has.
  std::optional<Stored> stored(int node, std::int64_t step, std::optional<Error> error);

  /// `nodes` were asked what they hold.
  void begin_listing(std::set<int> nodes);
  /// True once the last one has told.
  bool listed(int node, std::vector<checkpoint::HeldPart> parts);
  [[nodiscard]] const std::vector<checkpoint::HeldPart>& parts() const { return parts_; }

  /// Checkpoints that waited for it alone.
  std::vector<Stored> lose(int node);
  /// True when a listing waited for it alone.
  bool lose_listing(int node);

 private:
  struct Open {
    std::set<int> nodes;  // that have not answered
    std::optional<Error> error;
  };
  std::map<std::int64_t, Open> storing_;  // by step
  std::set<int> listing_;
  std::vector<checkpoint::HeldPart> parts_;
};

}  // namespace coxswain::launcher
