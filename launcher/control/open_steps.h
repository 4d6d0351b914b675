#pragma once
// Steps under way: what each rank told of its step, until all have and the step is one row. Called by coordinator.
// Threads: pure.
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/control/step_row.h"

namespace coxswain::launcher {

class OpenSteps {
 public:
  /// `report`: a serialised StepReport of `rank` of `num_ranks`.
  void add(int rank, int num_ranks, std::string_view report);
  /// The oldest step, once every rank has told of it. Steps come in their order.
  std::optional<StepRow> next(int generation);
  /// Of each step from `first` to `last` some rank has told, and of none before. None: true.
  [[nodiscard]] bool tells_of(std::int64_t first, std::int64_t last) const;
  /// The oldest step, of those ranks that have told of it; what the others would have told is 0. Requires: there is
  /// one.
  [[nodiscard]] StepRow take(int generation);
  void clear() { open_.clear(); }
  /// Those up to `step` are known otherwise.
  void forget(std::int64_t step) { open_.erase(open_.begin(), open_.upper_bound(step)); }

 private:
  struct Open {
    std::vector<std::string> reports;  // by rank; empty: not yet told
    std::size_t num_told = 0;
  };
  std::map<std::int64_t, Open> open_;  // by step
};

}  // namespace coxswain::launcher
