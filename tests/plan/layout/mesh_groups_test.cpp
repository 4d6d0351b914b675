#include "plan/layout/mesh_groups.h"

#include <map>
#include <set>

#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using plan::GroupKind;

/// Stages of replicas of (context, tensor) devices.
plan::Plan make_plan(const std::vector<std::vector<std::pair<int, int>>>& stages) {
  plan::Plan plan;
  for (const auto& replicas : stages) {
    plan::Stage& stage = plan.stages.emplace_back();
    for (const auto& [context, tensor] : replicas) {
      plan::Replica replica;
      replica.context = context;
      replica.tensor = tensor;
      replica.devices.resize(static_cast<std::size_t>(context) * static_cast<std::size_t>(tensor));
      stage.replicas.push_back(replica);
    }
  }
  return plan;
}

}  // namespace

TEST_CASE("meshes of one device need no groups of their own") {
  CHECK(plan::mesh_groups(make_plan({{{1, 1}, {1, 1}}, {{1, 1}}}), 2).empty());
}

TEST_CASE("a mesh has a group for every set of its axes, positions differ along those alone") {
  // Ranks 0 and 1: one device each. Ranks 2 to 7: context 2 x tensor 3, position = 3 context + tensor.
  const plan::Plan plan = make_plan({{{1, 1}, {1, 1}}, {{2, 3}}});
  const auto groups = plan::mesh_groups(plan, 6);
  REQUIRE(groups.size() == 4);
  CHECK(groups[plan::kStageRound].ranks == std::vector<int>{2, 3, 4, 5, 6, 7});
  CHECK(groups[plan::mesh_round(1)].ranks == std::vector<int>{3, 6});     // context
  CHECK(groups[plan::mesh_round(2)].ranks == std::vector<int>{5, 6, 7});  // tensor
  CHECK(groups[plan::mesh_round(3)].ranks == std::vector<int>{2, 3, 4, 5, 6, 7});
  const auto outside = plan::mesh_groups(plan, 0);
  REQUIRE(outside.size() == 4);
  for (const auto& group : outside) CHECK(group.ranks.empty());
}

TEST_CASE("an expert axis has two rounds behind those of meshes: who exchanges rows, and who holds the same") {
  // Four replicas of context 2 x tensor 2 (ranks 0 to 15), two in a row hold all experts; then one device.
  plan::Plan plan = make_plan({{{2, 2}, {2, 2}, {2, 2}, {2, 2}}, {{1, 1}}});
  for (plan::Replica& replica : plan.stages[0].replicas) replica.expert = 2;
  const auto groups = plan::mesh_groups(plan, 9);  // replica 2, position 1
  REQUIRE(groups.size() == 6);
  CHECK(groups[4].kind == GroupKind::Experts);
  CHECK(groups[4].ranks == std::vector<int>{9, 13});
  CHECK(groups[5].kind == GroupKind::ExpertHolders);
  CHECK(groups[5].ranks == std::vector<int>{1, 3, 9, 11});
  CHECK(plan::mesh_groups(plan, 16).size() == 6);
  for (const auto& group : plan::mesh_groups(plan, 16)) CHECK(group.ranks.empty());
  // Where every replica holds other experts, nobody else holds them.
  plan::Plan small = make_plan({{{1, 1}, {1, 1}}});
  for (plan::Replica& replica : small.stages[0].replicas) replica.expert = 2;
  const auto own = plan::mesh_groups(small, 1);
  REQUIRE(own.size() == 2);
  CHECK(own[0].ranks == std::vector<int>{0, 1});
  CHECK(own[1].ranks.empty());
}

TEST_CASE("in each round all ranks agree: groups are disjoint and their members name the same ranks") {
  const plan::Plan plan = make_plan({{{1, 4}, {1, 2}, {1, 1}}, {{2, 2}, {3, 1}}, {{1, 1}}});
  const std::size_t rounds = plan::mesh_groups(plan, 0).size();
  for (std::size_t round = 0; round < rounds; ++round) {
    for (int rank = 0; rank < plan::num_ranks(plan); ++rank) {
      const auto groups = plan::mesh_groups(plan, rank);
      REQUIRE(groups.size() == rounds);
      const auto& ranks = groups[round].ranks;
      if (ranks.empty()) continue;
      CHECK(std::count(ranks.begin(), ranks.end(), rank) == 1);
      CHECK(std::is_sorted(ranks.begin(), ranks.end()));
      for (const int other : ranks) CHECK(plan::mesh_groups(plan, other)[round].ranks == ranks);
      CHECK(groups[round].kind == (round == plan::kStageRound ? GroupKind::Stage : GroupKind::Mesh));
    }
  }
}

}  // namespace coxswain::tests
