#pragma once
// Checkpoints under way, by step: what each rank told of its shard, until all have and it is published. Called by
// coordinator. Threads: pure.
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "checkpoint/manifest.h"
#include "common/error.h"
#include "common/result.h"
#include "common/units.h"

namespace coxswain::launcher {

/// Of every rank.
struct CompleteSave {
  checkpoint::Progress progress;
  std::vector<checkpoint::Shard> shards;  // in the order of ranks
  std::optional<Error> error;             // of the first rank that could not write: the checkpoint will not be
};

class OpenSaves {
 public:
  /// What `rank` of `num_ranks` told, `copy`: of how long the step waited; the whole once the last one has.
  std::optional<CompleteSave> add(int rank, int num_ranks, const checkpoint::Progress& progress,
                                  Result<checkpoint::Shard> shard, Seconds copy = Seconds(0));
  /// What the step waited for its copy, on the rank that took longest; 0 where it is not open.
  [[nodiscard]] Seconds copy(std::int64_t step) const;
  /// It is published, or will not be. False: it was not open.
  bool close(std::int64_t step) { return saves_.erase(step) > 0; }
  [[nodiscard]] bool empty() const { return saves_.empty(); }
  void clear() { saves_.clear(); }

 private:
  struct Save {
    std::vector<std::optional<checkpoint::Shard>> shards;  // by rank
    std::vector<char> told;
    std::size_t num_told = 0;
    std::optional<Error> error;
    Seconds copy{0};
  };
  std::map<std::int64_t, Save> saves_;
};

}  // namespace coxswain::launcher
