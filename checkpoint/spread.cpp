#include "checkpoint/spread.h"

#include <algorithm>

namespace coxswain::checkpoint {
namespace {

bool is_whole(const SpreadCheckpoint& checkpoint) {
  return std::all_of(checkpoint.manifest.shards.begin(), checkpoint.manifest.shards.end(),
                     [&](const Shard& shard) { return checkpoint.holders.contains(shard.file); });
}

bool have_common(const std::vector<FlatRun>& wanted, const std::vector<FlatRun>& present) {
  bool common = false;
  static_cast<void>(take_common(wanted, present, [&](std::int64_t, std::int64_t, std::int64_t) { common = true; }));
  return common;
}

}  // namespace

std::optional<SpreadCheckpoint> find_newest_spread(const std::vector<HeldPart>& parts,
                                                   const std::function<bool(const Manifest&)>& accepts) {
  std::map<std::string, SpreadCheckpoint> checkpoints;  // by text: a step that was saved twice is two
  for (const HeldPart& part : parts) {
    auto [entry, is_new] = checkpoints.try_emplace(part.manifest);
    if (is_new) {
      auto manifest = parse_manifest(part.manifest);
      if (!manifest) {
        checkpoints.erase(entry);
        continue;
      }
      entry->second.manifest = std::move(*manifest);
      entry->second.text = part.manifest;
    }
    for (const std::string& file : part.files) entry->second.holders[file].push_back(part.node);
  }
  std::optional<SpreadCheckpoint> newest;
  for (auto& [text, checkpoint] : checkpoints) {
    if (!is_whole(checkpoint) || !accepts(checkpoint.manifest)) continue;
    for (auto& [file, nodes] : checkpoint.holders) std::sort(nodes.begin(), nodes.end());
    if (!newest || checkpoint.manifest.progress.step > newest->manifest.progress.step) newest = std::move(checkpoint);
  }
  return newest;
}

std::vector<Shard> needed_shards(const Manifest& manifest, const std::vector<Piece>& pieces) {
  std::map<std::string, std::vector<std::vector<FlatRun>>> wanted;  // by parameter
  for (const Piece& piece : pieces) wanted[piece.parameter].push_back(flat_runs(piece));
  const auto needs = [&](const Piece& present) {
    const auto found = wanted.find(present.parameter);
    if (found == wanted.end()) return false;
    const std::vector<FlatRun> runs = flat_runs(present);
    return std::any_of(found->second.begin(), found->second.end(),
                       [&](const std::vector<FlatRun>& want) { return have_common(want, runs); });
  };
  std::vector<Shard> needed;
  for (const Shard& shard : manifest.shards)
    if (std::any_of(shard.pieces.begin(), shard.pieces.end(), needs)) needed.push_back(shard);
  return needed;
}

}  // namespace coxswain::checkpoint
