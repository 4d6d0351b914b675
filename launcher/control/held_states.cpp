#include "launcher/control/held_states.h"

#include <algorithm>
#include <functional>
#include <map>

#include "launcher/control/coordinator.h"
#include "proto/control.pb.h"

namespace coxswain::launcher {

void HeldStates::add(int rank, const RankBinding& place, std::string_view bytes) {
  control::HeldState held;
  if (!held.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  const auto json = parse_json(held.state().shard_json());
  if (!json) return;
  auto shard = checkpoint::shard_from_json(*json, "rank " + std::to_string(rank));
  if (!shard) return;
  const control::ShardSaved& saved = held.state();
  const checkpoint::Progress progress{saved.step(),          saved.next_sample(),
                                      saved.loss_scale(),    saved.steps_since_scaled(),
                                      saved.skipped_steps(), saved.skipped_in_a_row()};
  states_.push_back({rank,
                     place.node,
                     place.local_device,
                     {held.generation(), progress},
                     held.num_elements(),
                     std::move(shard->pieces)});
}

void HeldStates::lose(int node) {
  std::erase_if(states_, [node](const State& state) { return state.node == node; });
}

std::optional<StepInMemory> HeldStates::newest(const std::vector<RankBinding>& ranks) const {
  std::vector<const State*> kept;
  for (const State& state : states_) {
    if (state.rank >= static_cast<int>(ranks.size())) continue;
    const RankBinding& place = ranks[static_cast<std::size_t>(state.rank)];
    if (place.node == state.node && place.local_device == state.local_device) kept.push_back(&state);
  }
  std::map<std::int64_t, StepInMemory, std::greater<>> steps;  // newest first
  for (const State* state : kept) steps.emplace(state->step.progress.step, state->step);
  for (const auto& [number, step] : steps) {
    std::vector<checkpoint::Shard> shards;
    std::vector<std::vector<checkpoint::Piece>> pieces;
    std::int64_t num_elements = 0;
    for (const State* state : kept) {
      if (state->step != step) continue;
      shards.push_back({"", Bytes(0), "", state->pieces});
      pieces.push_back(state->pieces);
      num_elements = state->num_elements;
    }
    // Of a parameter that only a lost rank had no piece is there to show that it is missing.
    if (checkpoint::num_elements(pieces) == num_elements && checkpoint::check_complete(shards)) return step;
  }
  return std::nullopt;
}

}  // namespace coxswain::launcher
