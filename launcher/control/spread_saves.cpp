#include "launcher/control/spread_saves.h"

#include <iterator>
#include <utility>

namespace coxswain::launcher {

std::optional<SpreadSaves::Stored> SpreadSaves::stored(int node, std::int64_t step, std::optional<Error> error) {
  const auto open = storing_.find(step);
  if (open == storing_.end() || open->second.nodes.erase(node) == 0) return std::nullopt;
  if (error && !open->second.error) open->second.error = std::move(error);
  if (!open->second.nodes.empty()) return std::nullopt;
  Stored done{step, std::move(open->second.error)};
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
  std::vector<std::int64_t> steps;
  for (const auto& [step, open] : storing_) steps.push_back(step);
  std::vector<Stored> done;
  for (const std::int64_t step : steps)
    if (auto stored = this->stored(node, step, std::nullopt)) done.push_back(std::move(*stored));
  return done;
}

bool SpreadSaves::lose_listing(int node) { return listed(node, {}); }

}  // namespace coxswain::launcher
