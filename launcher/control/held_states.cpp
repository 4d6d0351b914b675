#include "launcher/control/held_states.h"

#include <functional>
#include <map>

#include "launcher/control/coordinator.h"
#include "proto/control.pb.h"

namespace coxswain::launcher {

void HeldStates::add(int rank, const RankBinding& place, std::string_view bytes) {
  control::HeldState held;
  if (!held.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  const control::ShardSaved& saved = held.state();
  const checkpoint::Progress progress{saved.step(),          saved.next_sample(),
                                      saved.loss_scale(),    saved.steps_since_scaled(),
                                      saved.skipped_steps(), saved.skipped_in_a_row()};
  states_.push_back({rank,
                     place.node,
                     place.local_device,
                     {held.generation(), progress},
                     held.num_elements(),
                     held.held_elements(),
                     saved.shard_json()});
}

void HeldStates::lose(int node) {
  std::erase_if(states_, [node](const State& state) { return state.node == node; });
}

/// One after the other until nothing is missing: of replicas the first is enough.
bool HeldStates::is_whole(const std::vector<const State*>& states) {
  std::int64_t held = 0, missing = states.front()->num_elements;
  for (const State* state : states) held += state->held_elements;
  if (missing == 0 || held < missing) return false;
  std::map<std::string, std::vector<checkpoint::FlatRun>> left;  // by parameter
  for (const State* state : states) {
    const auto json = parse_json(state->pieces);
    const auto shard = json ? checkpoint::shard_from_json(*json, "rank " + std::to_string(state->rank))
                            : Result<checkpoint::Shard>(json.error());
    if (!shard) continue;
    for (const checkpoint::Piece& piece : shard->pieces) {
      const auto [found, is_new] = left.try_emplace(piece.parameter);
      if (is_new) found->second = flat_runs(checkpoint::whole_piece(piece.parameter, piece.dims));
      found->second = take_common(found->second, flat_runs(piece),
                                  [&missing](auto, auto, std::int64_t count) { missing -= count; });
    }
    // A parameter that only a lost rank had is among those that are counted, and not here.
    if (missing == 0) return true;
  }
  return false;
}

std::optional<StepInMemory> HeldStates::newest(const std::vector<RankBinding>& ranks) const {
  std::map<std::int64_t, std::vector<const State*>, std::greater<>> steps;  // newest first
  for (const State& state : states_) {
    if (state.rank >= static_cast<int>(ranks.size())) continue;
    const RankBinding& place = ranks[static_cast<std::size_t>(state.rank)];
    if (place.node != state.node || place.local_device != state.local_device) continue;
    std::vector<const State*>& same = steps[state.step.progress.step];
    if (same.empty() || same.front()->step == state.step) same.push_back(&state);
  }
  for (const auto& [number, states] : steps)
    if (is_whole(states)) return states.front()->step;
  return std::nullopt;
}

}  // namespace coxswain::launcher
