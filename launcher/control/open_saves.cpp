#include "launcher/control/open_saves.h"

#include <utility>

namespace coxswain::launcher {

std::optional<CompleteSave> OpenSaves::add(int rank, int num_ranks, const checkpoint::Progress& progress,
                                           Result<checkpoint::Shard> shard, Seconds copy) {
  Save& save = saves_[progress.step];
  save.shards.resize(static_cast<std::size_t>(num_ranks));
  save.told.resize(static_cast<std::size_t>(num_ranks), 0);
  const auto index = static_cast<std::size_t>(rank);
  if (std::exchange(save.told[index], 1) == 0) ++save.num_told;
  save.copy = std::max(save.copy, copy);
  if (shard)
    save.shards[index] = std::move(*shard);
  else if (!save.error)
    save.error = shard.error();
  if (save.num_told < save.told.size()) return std::nullopt;
  CompleteSave complete{progress, {}, save.error};
  for (auto& written : save.shards)
    if (written) complete.shards.push_back(std::move(*written));
  return complete;
}

Seconds OpenSaves::copy(std::int64_t step) const {
  const auto found = saves_.find(step);
  return found == saves_.end() ? Seconds(0) : found->second.copy;
}

}  // namespace coxswain::launcher
