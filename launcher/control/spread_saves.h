#pragma once
// Checkpoints of nodes that share no disk, as the coordinator sees them: which nodes have yet to put their part in its
// place, whether they hold all of it together, and, when a run has to go on, what each of them holds. A node that is
// lost is waited for no longer, and what it held counts no longer. Called by coordinator. Threads: pure.
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/spread.h"
#include "common/result.h"

namespace coxswain::launcher {

class SpreadSaves {
 public:
  struct Stored {
    std::int64_t step = 0;
    std::optional<Error> error;  // a shard that no node holds: of the first node that could not, else DataLoss
  };

  /// `nodes` were told to put their part of the checkpoint in its place; `files`: of all its shards.
  void begin_storing(std::int64_t step, std::set<int> nodes, std::vector<std::string> files);
  /// What `node` answered: the files it holds, or why it could not. How it went once the last one has.
  std::optional<Stored> stored(int node, std::int64_t step, Result<std::vector<std::string>> files);

  /// `nodes` were asked what they hold.
  void begin_listing(std::set<int> nodes);
  /// True once the last one has told.
  bool listed(int node, std::vector<checkpoint::HeldPart> parts);
  [[nodiscard]] const std::vector<checkpoint::HeldPart>& parts() const { return parts_; }
  /// Those that have not told are not waited for any more. Returns them.
  std::set<int> end_listing() { return std::exchange(listing_, {}); }

  /// Checkpoints that waited for it alone.
  std::vector<Stored> lose(int node);
  /// True when a listing waited for it alone.
  bool lose_listing(int node);

 private:
  struct Open {
    std::set<int> nodes;                           // that have not answered
    std::map<std::string, std::set<int>> holders;  // by file of a shard
    std::optional<Error> error;                    // of the first node that could not
  };
  std::optional<Stored> finish_if_told(std::map<std::int64_t, Open>::iterator open);
  std::map<std::int64_t, Open> storing_;  // by step
  std::set<int> listing_;
  std::vector<checkpoint::HeldPart> parts_;
};

}  // namespace coxswain::launcher
