#include "bench/support/fault_script.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "bench/support/simulated_time.h"

namespace coxswain::bench {
namespace {

// Of so many a step and a second cost most; faults come faster then, and a run sees the same number of them.
constexpr int kManyNodes = 200;

struct Kind {
  std::string_view name;
  int weight = 0;  // how often, among all
};
// In the order of FaultKind. What ends a run stands last in it or is rare, so that runs see many faults.
constexpr std::array<Kind, kNumFaultKinds> kKinds{{{"rank killed", 20},
                                                   {"rank fails", 12},
                                                   {"rank loses peer", 6},
                                                   {"rank hangs", 1},
                                                   {"rank outlives kill", 3},
                                                   {"kept rank ends", 6},
                                                   {"node lost", 8},
                                                   {"agent silent", 6},
                                                   {"connection breaks", 14},
                                                   {"coordinator killed", 14},
                                                   {"coordinator pauses", 4},
                                                   {"save fails", 4},
                                                   {"publication fails", 3},
                                                   {"newest damaged", 4},
                                                   {"plan fails", 0},
                                                   {"spawn fails", 0},
                                                   {"late report", 8},
                                                   {"late joiner", 2},
                                                   {"stop requested", 0}}};

FaultKind any_kind(SeededRandom& random) {
  int total = 0;
  for (const Kind& kind : kKinds) total += kind.weight;
  int left = static_cast<int>(random.below(static_cast<std::uint64_t>(total)));
  for (std::size_t i = 0; i < kKinds.size(); ++i) {
    left -= kKinds[i].weight;
    if (left < 0) return static_cast<FaultKind>(i);
  }
  return FaultKind::RankKilled;
}

/// From 2 to 100.
int any_size(SeededRandom& random) {
  const double share = random.between(0, 1);
  return static_cast<int>(std::lround(2 * std::pow(50.0, share * share)));
}

Fault any_fault(SeededRandom& random) {
  Fault fault;
  fault.kind = any_kind(random);
  // In the same moment, within the outage before, or after it.
  const std::uint64_t when = random.below(10);
  fault.after_seconds = when == 0  ? 0
                        : when < 5 ? random.between(0, 0.5)
                        : when < 8 ? random.between(0, 2)
                                   : random.between(1, 6);
  fault.choice = random.next();
  return fault;
}

}  // namespace

std::string_view to_text(FaultKind kind) { return kKinds[static_cast<std::size_t>(kind)].name; }

Scenario make_scenario(std::uint64_t seed, int num_nodes) {
  SeededRandom random(seed * 2 + 1);
  Scenario scenario;
  scenario.seed = seed;
  scenario.num_nodes = num_nodes > 0 ? num_nodes : any_size(random);
  scenario.devices_per_node = scenario.num_nodes > kManyNodes ? 1 : random.chance(0.3) ? 2 : 1;
  scenario.save_every = random.chance(0.85) ? 2 + static_cast<std::int64_t>(random.below(5)) : 0;
  scenario.measures = random.chance(0.3);
  scenario.early = random.chance(0.05);
  scenario.steps_kept = 20 + static_cast<int>(random.below(800));
  // As launcher/control/coordinator_process.cpp: no more than a few times a step.
  if (scenario.num_nodes > kManyNodes) scenario.steps_kept = 4 * scenario.num_nodes;
  const int num_faults = std::min(40, 6 + static_cast<int>(random.below(6)) + 2 * scenario.num_nodes);
  for (int i = 0; i < num_faults; ++i) {
    scenario.faults.push_back(any_fault(random));
    if (scenario.num_nodes > kManyNodes) scenario.faults.back().after_seconds /= 2;
  }
  // One run in five comes to an end of its own; the others end after their last step.
  constexpr std::array<FaultKind, 5> kEnds{FaultKind::StopRequested, FaultKind::StopRequested, FaultKind::StopRequested,
                                           FaultKind::PlanFails, FaultKind::SpawnFails};
  if (random.chance(0.2)) {
    const auto where = random.below(scenario.faults.size());
    scenario.faults[scenario.faults.size() - 1 - where / 2].kind = kEnds[random.below(kEnds.size())];
  }
  return scenario;
}

}  // namespace coxswain::bench
