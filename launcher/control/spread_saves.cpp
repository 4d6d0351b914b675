#include "launcher/control/spread_saves.h"

#include <iterator>
#include <utility>

namespace coxswain::launcher {

void SpreadSaves::begin_storing(std::int64_t step, std::set<int> nodes, std::vector<std::string> files) {
  Open& open = storing_[step] = {std::move(nodes), {}, {}};
  for (std::string& file : files) open.holders[std::move(file)];
}

std::optional<SpreadSaves::Stored> SpreadSaves::stored(int node, std::int64_t step,
                                                       Result<std::vector<std::string>> files) {
  const auto found = storing_.find(step);
  if (found == storing_.end() || found->second.nodes.erase(node) == 0) return std::nullopt;
  Open& open = found->second;
  if (!files && !open.error) open.error = files.error();
  for (const std::string& file : files ? *files : std::vector<std::string>())
    if (const auto shard = open.holders.find(file); shard != open.holders.end()) shard->second.insert(node);
  return finish_if_told(found);
}

std::optional<SpreadSaves::Stored> SpreadSaves::finish_if_told(std::map<std::int64_t, Open>::iterator open) {
  auto& [step, told] = *open;
  if (!told.nodes.empty()) return std::nullopt;
  Stored done{step, {}};
  for (const auto& [file, nodes] : told.holders) {
    if (!nodes.empty() || done.error) continue;
    done.error = told.error ? told.error
                            : Error{ErrorCode::DataLoss, "no node that is left holds a shard of it", file, "", "", ""};
  }
  storing_.erase(open);
  return done;
}

void SpreadSaves::begin_listing(std::set<int> nodes) {
  listing_ = std::move(nodes);
  parts_.clear();
}

bool SpreadSaves::listed(int node, std::vector<checkpoint::HeldPart> parts) {
  if (listing_.erase(node) == 0) return false;
  parts_.insert(parts_.end(), std::make_move_iterator(parts.begin()), std::make_move_iterator(parts.end()));
  return listing_.empty();
}

std::vector<SpreadSaves::Stored> SpreadSaves::lose(int node) {
  std::vector<Stored> done;
  for (auto next = storing_.begin(); next != storing_.end();) {
    const auto open = next++;
    const bool waited_for = open->second.nodes.erase(node) > 0;
    for (auto& [file, nodes] : open->second.holders) nodes.erase(node);
    if (!waited_for) continue;
    if (auto stored = finish_if_told(open)) done.push_back(std::move(*stored));
  }
  return done;
}

bool SpreadSaves::lose_listing(int node) { return listed(node, {}); }

}  // namespace coxswain::launcher
