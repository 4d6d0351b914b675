// Look-ups of ranks against counting one by one.
#include "plan/rank_table.h"

#include <map>
#include <random>

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::plan;

namespace {

/// Three stages of one to four replicas, of one to four devices each, that share 12 samples.
Plan random_plan(std::mt19937& random) {
  const auto pick = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  Plan plan;
  std::int64_t device = 0;
  for (int s = 0; s < 3; ++s) {
    Stage stage;
    const int replicas = pick(1, 4), size = 1 << pick(0, 2);
    std::int64_t left = 12;
    for (int r = 0; r < replicas; ++r) {
      Replica replica;
      replica.tensor = size;
      for (int d = 0; d < size; ++d) replica.devices.push_back({0, device++});
      const int later = replicas - 1 - r;
      replica.samples = later == 0 ? left : pick(1, static_cast<int>(left) - later);
      left -= replica.samples;
      stage.replicas.push_back(std::move(replica));
    }
    plan.stages.push_back(std::move(stage));
  }
  return plan;
}

}  // namespace

TEST_CASE("ranks are counted by stage, replica and position", "[rank_table_test]") {
  std::mt19937 random(5);
  for (int round = 0; round < 50; ++round) {
    const Plan plan = random_plan(random);
    const RankTable table(plan);
    int rank = 0;
    for (int s = 0; s < 3; ++s) {
      const auto& replicas = plan.stages[static_cast<std::size_t>(s)].replicas;
      for (int r = 0; r < static_cast<int>(replicas.size()); ++r) {
        for (int p = 0; p < replicas[static_cast<std::size_t>(r)].tensor; ++p, ++rank) {
          CHECK(table.rank_of({s, r, p}) == rank);
          CHECK(table.place_of(rank) == RankPlace{s, r, p});
          CHECK(table.device_of(rank) == DeviceId{0, rank});
        }
      }
    }
    CHECK(table.num_ranks() == rank);
  }
}

TEST_CASE("a rank exchanges each of its samples with the replica that has it too", "[rank_table_test]") {
  std::mt19937 random(6);
  for (int round = 0; round < 50; ++round) {
    const Plan plan = random_plan(random);
    const RankTable table(plan);
    // The replica of stage 1 that holds each sample.
    std::vector<int> holder;
    for (std::size_t r = 0; r < plan.stages[1].replicas.size(); ++r)
      holder.insert(holder.end(), static_cast<std::size_t>(plan.stages[1].replicas[r].samples), static_cast<int>(r));
    std::int64_t sample = 0;
    for (int r = 0; r < static_cast<int>(plan.stages[0].replicas.size()); ++r) {
      const Replica& replica = plan.stages[0].replicas[static_cast<std::size_t>(r)];
      std::map<int, std::int64_t> wanted;  // samples by replica of stage 1
      for (std::int64_t i = 0; i < replica.samples; ++i) ++wanted[holder[static_cast<std::size_t>(sample++)]];
      std::map<int, std::int64_t> found;
      for (const Transfer& transfer : table.transfers_with(table.rank_of({0, r, 0}), 1)) {
        CHECK(table.place_of(transfer.peer).stage == 1);
        found[table.place_of(transfer.peer).replica] = transfer.num_samples;
      }
      CHECK(found == wanted);
    }
    CHECK(table.transfers_with(0, -1).empty());
    CHECK(table.transfers_with(0, 3).empty());
  }
}
