#pragma once
// Ranks of a plan, looked up many times: prefix sums of ranks and samples over the replicas of each stage. The free
// functions of plan.h and program.h answer one question in time linear in the replicas; a table is made once and
// answers in logarithmic time. Called by the simulator. Threads: const after it is made.
#include <vector>

#include "plan/program.h"

namespace coxswain::plan {

class RankTable {
 public:
  /// `plan` is borrowed.
  explicit RankTable(const Plan& plan);
  [[nodiscard]] int num_ranks() const { return first_rank_.back().back(); }
  [[nodiscard]] RankPlace place_of(int rank) const;
  [[nodiscard]] int rank_of(RankPlace place) const {
    return first_rank_[static_cast<std::size_t>(place.stage)][static_cast<std::size_t>(place.replica)] + place.position;
  }
  [[nodiscard]] DeviceId device_of(int rank) const;
  /// As the free functions of program.h.
  [[nodiscard]] std::vector<Transfer> transfers_with(int rank, int other) const;
  [[nodiscard]] std::vector<Transfer> transfers_of(int rank, const Action& action) const;

 private:
  const Plan& plan_;
  // By stage: of each replica, and one more for the end.
  std::vector<std::vector<int>> first_rank_;
  std::vector<std::vector<std::int64_t>> first_sample_;
};

}  // namespace coxswain::plan
