#pragma once
// Makes this node's folder of a checkpoint hold every shard that a rank needs, where nodes share no disk: what is not
// here comes from the nodes that have it. Ranks of one node may do so at once; each file appears whole or not at all.
// Called by train_mode. Threads: one. Source: docs/checkpoint.md.
#include <string>
#include <vector>

#include "checkpoint/manifest.h"
#include "common/clock.h"
#include "worker/service/assignment.h"

namespace coxswain::worker {

/// The manifest of `assignment.checkpoint_from` with only the shards that hold an element of `pieces`.
/// Errors: DataLoss (the manifest), NotFound (no node has a shard), of proto::get_file.
[[nodiscard]] Result<checkpoint::Manifest> gather_checkpoint(const Assignment& assignment,
                                                             const std::vector<checkpoint::Piece>& pieces,
                                                             const std::string& job_key, Deadline deadline);

}  // namespace coxswain::worker
