// Which step the ranks that kept their process hold whole.
#include "launcher/control/held_states.h"

#include "launcher/control/coordinator.h"
#include "proto/control.pb.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

/// A model of two parameters of three elements each.
std::string held(std::int64_t step, const std::vector<std::string>& parameters, int generation = 1) {
  checkpoint::Shard shard{"memory", Bytes(0), "", {}};
  for (const std::string& name : parameters) shard.pieces.push_back(checkpoint::whole_piece(name, {3}));
  control::HeldState state;
  state.set_generation(generation);
  state.set_num_elements(6);
  state.set_held_elements(3 * static_cast<std::int64_t>(parameters.size()));
  state.mutable_state()->set_step(step);
  state.mutable_state()->set_next_sample(8 * step);
  state.mutable_state()->set_loss_scale(4);
  state.mutable_state()->set_shard_json(to_text(checkpoint::to_json(shard)));
  return state.SerializeAsString();
}

/// Two nodes of two devices.
const std::vector<RankBinding> kRanks{{0, 0, "c"}, {0, 1, "c"}, {1, 0, "c"}, {1, 1, "c"}};

HeldStates of(const std::vector<std::pair<int, std::string>>& states) {
  HeldStates made;
  for (const auto& [rank, state] : states) made.add(rank, kRanks[static_cast<std::size_t>(rank)], state);
  return made;
}

}  // namespace

TEST_CASE("the newest step that ranks hold whole together is found, with its numbers", "[held_states]") {
  const HeldStates states = of({{0, held(7, {"a"})}, {1, held(7, {"b"})}, {2, held(8, {"b"})}});
  const auto found = states.newest(kRanks);
  REQUIRE(found);
  CHECK(found->generation == 1);
  CHECK(found->progress.step == 7);
  CHECK(found->progress.next_sample == 56);
  CHECK(found->progress.loss_scale == 4);
  CHECK(of({{0, held(7, {"a", "b"})}, {3, held(8, {"a", "b"})}}).newest(kRanks)->progress.step == 8);
}

TEST_CASE("a parameter of which no piece is left is missed", "[held_states]") {
  CHECK_FALSE(of({{0, held(7, {"a"})}, {1, held(7, {"a"})}}).newest(kRanks));
  CHECK_FALSE(of({}).newest(kRanks));
  CHECK_FALSE(of({{0, "no message"}}).newest(kRanks));
}

TEST_CASE("states of one step that different generations took are not put together", "[held_states]") {
  CHECK_FALSE(of({{0, held(7, {"a"}, 1)}, {1, held(7, {"b"}, 2)}}).newest(kRanks));
}

TEST_CASE("what is on a lost node is gone, and so is what a process of another rank holds", "[held_states]") {
  HeldStates states = of({{0, held(7, {"a"})}, {2, held(7, {"b"})}});
  CHECK(states.newest(kRanks));
  std::vector<RankBinding> others = kRanks;
  others[2].local_device = 1;
  CHECK_FALSE(states.newest(others));
  CHECK_FALSE(states.newest({kRanks[0], kRanks[1]}));
  states.lose(1);
  CHECK_FALSE(states.newest(kRanks));
}
