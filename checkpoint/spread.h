#pragma once
// Checkpoints of nodes that share no disk: each node holds some of the shards, in a folder of the same name, under the
// same manifest. Which is the newest that all of them together hold whole, who holds what of it, and which of its
// shards a rank needs. Called by coordinator and worker. Threads: pure. Source: docs/checkpoint.md.
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"

namespace coxswain::checkpoint {

/// What one node holds of one checkpoint.
struct HeldPart {
  int node = 0;
  std::string manifest;            // its text
  std::vector<std::string> files;  // shards that are there as they were written
};

struct SpreadCheckpoint {
  Manifest manifest;
  std::string text;                                 // the manifest's
  std::map<std::string, std::vector<int>> holders;  // by shard, ascending nodes
};

/// The newest that `accepts` of which each shard is somewhere; of equal steps any. A manifest that cannot be read is
/// left out.
[[nodiscard]] std::optional<SpreadCheckpoint> find_newest_spread(
    const std::vector<HeldPart>& parts,
    const std::function<bool(const Manifest&)>& accepts = [](const Manifest&) { return true; });

/// The shards that hold an element of one of `pieces`, in the manifest's order.
[[nodiscard]] std::vector<Shard> needed_shards(const Manifest& manifest, const std::vector<Piece>& pieces);

}  // namespace coxswain::checkpoint
