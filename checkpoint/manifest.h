#pragma once
// The page that makes a folder of shards a checkpoint: which training step it is, the numbers beside the parameters,
// every shard with its size and SHA-256, and which pieces it holds. The page carries a SHA-256 of itself. Random
// numbers need no state: every draw is a function of seed, step and sample. Called by folder, reader, launcher, worker.
// Threads: pure. Source: DESIGN 3.9, docs/checkpoint.md.
#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/pieces.h"
#include "common/json.h"
#include "common/units.h"

namespace coxswain::checkpoint {

/// One file of a checkpoint, as the rank that wrote it knows it.
struct Shard {
  std::string file;  // in the checkpoint's folder
  Bytes size{0};
  std::string sha256;
  std::vector<Piece> pieces;
  friend bool operator==(const Shard&, const Shard&) = default;
};

/// Equal on all ranks at the end of a step.
struct Progress {
  std::int64_t step = 0;         // the last one taken
  std::int64_t next_sample = 0;  // in the order of the data
  double loss_scale = 1;
  std::int64_t steps_since_scaled = 0;  // good ones, since the scale changed
  std::int64_t skipped_steps = 0, skipped_in_a_row = 0;
  friend bool operator==(const Progress&, const Progress&) = default;
};

struct Manifest {
  Progress progress;
  std::uint64_t seed = 0;
  std::string model_hash, plan_hash;
  std::vector<Shard> shards;
  friend bool operator==(const Manifest&, const Manifest&) = default;
};

[[nodiscard]] Json to_json(const Shard& shard);
/// Errors: InvalidArgument with every problem (a file with a folder in its name, a piece beyond its parameter).
[[nodiscard]] Result<Shard> shard_from_json(const Json& json, const std::string& path = "shard");

/// Canonical, with the page's own SHA-256.
[[nodiscard]] std::string to_text(const Manifest& manifest);
/// Errors: DataLoss (not the text that was written: no JSON, another SHA-256, members that are wrong or missing).
[[nodiscard]] Result<Manifest> parse_manifest(const std::string& text);

/// Every parameter in one of the pieces is there with all its elements, and always under the same dims.
/// Errors: DataLoss, naming the parameter and the first element that no shard holds.
[[nodiscard]] Result<void> check_complete(const std::vector<Shard>& shards);

}  // namespace coxswain::checkpoint
