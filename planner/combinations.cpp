// The outer loop's combinations: micro-batch, schedule, and what stages may stand on.
#include <algorithm>
#include <array>
#include <set>
#include <span>

#include "plan/schedule.h"
#include "planner/combination_bounds.h"
#include "planner/search.h"

namespace coxswain::planner {
namespace {

std::vector<int> even_cuts(int num_blocks, int stages) {
  std::vector<int> cuts;
  for (int s = 1; s < stages; ++s) cuts.push_back((s * num_blocks + stages / 2) / stages);
  return cuts;
}

/// Axes that some class may have, each once, smallest first.
std::vector<Axes> all_axes(const SearchSpace& space) {
  std::vector<Axes> result;
  for (const Pool& pool : space.pools) {
    for (const Axes axes : space.axes[static_cast<std::size_t>(pool.device_class)]) {
      if (std::find(result.begin(), result.end(), axes) == result.end()) result.push_back(axes);
    }
  }
  std::stable_sort(result.begin(), result.end(), [](Axes a, Axes b) { return a.size() < b.size(); });
  return result;
}

/// Units of each pool when all have these axes; none where the class may not.
Counts units_of(const SearchSpace& space, const std::array<Axes, kMaxPools>& axes) {
  Counts units;
  for (std::size_t p = 0; p < space.pools.size(); ++p) {
    const std::vector<Axes>& allowed = space.axes[static_cast<std::size_t>(space.pools[p].device_class)];
    if (std::find(allowed.begin(), allowed.end(), axes[p]) != allowed.end())
      units.of[p] = static_cast<std::int32_t>(space.pools[p].num_units(axes[p].size()));
  }
  return units;
}

std::array<Axes, kMaxPools> uniform(const SearchSpace& space, Axes axes) {
  std::array<Axes, kMaxPools> all;
  std::fill_n(all.begin(), space.pools.size(), axes);
  return all;
}

bool allows(const std::vector<int>& totals, std::int32_t total) {
  return totals.empty() || std::find(totals.begin(), totals.end(), total) != totals.end();
}

/// Replicas put sums over the batch together where they all hold the experts together (V20).
bool may_hold(const SearchSpace& space, std::int32_t replicas, int expert) {
  const bool whole = !space.request->cost->model().coupled.empty();
  return whole ? expert == replicas : replicas % expert == 0;
}

/// `composition` with each size of the expert axis that its replicas divide by.
void add_with_experts(const SearchSpace& space, const Composition& composition, std::vector<Composition>& result) {
  for (const int expert : space.experts) {
    if (!may_hold(space, composition.replicas(), expert)) continue;
    result.push_back(composition);
    result.back().expert = expert;
  }
}

/// Every mixture of units of equal axes with an allowed total.
std::vector<Composition> all_compositions(const SearchSpace& space, const std::vector<int>& totals) {
  std::vector<Composition> result;
  for (const Axes axes : all_axes(space)) {
    const Counts most = units_of(space, uniform(space, axes));
    Counts units;
    while (true) {
      std::size_t p = 0;
      while (p < space.pools.size() && units.of[p] == most.of[p]) units.of[p++] = 0;
      if (p == space.pools.size()) break;
      ++units.of[p];
      if (allows(totals, units.total())) add_with_experts(space, make_composition(space.pools, units, axes), result);
    }
  }
  std::sort(result.begin(), result.end());
  return result;
}

/// Numbers of replicas worth trying on many devices: divisors of what there is and powers of two.
std::vector<std::int32_t> replica_menu(const SearchSpace& space, const Counts& units) {
  std::set<std::int32_t> menu;
  const std::vector<int>& fixed = space.request->constraints.data;
  for (const int n : fixed) menu.insert(n);
  if (!fixed.empty()) return {menu.begin(), menu.end()};
  for (std::size_t p = 0; p < space.pools.size(); ++p) {
    const std::int32_t size = units.of[p];
    for (std::int32_t n = 1; n <= size; n *= 2) menu.insert(n);
    for (std::int32_t stages = 1; stages <= std::min<std::int32_t>(size, space.max_stages); ++stages)
      menu.insert(size / stages);
  }
  return {menu.begin(), menu.end()};
}

/// What stages may stand on: everything at once, or, on many devices, stages of one shape at a time.
struct Family {
  std::vector<Composition> compositions;
  std::int32_t replicas = 0;  // least of any composition; 0: various
  int stages = 0;             // so many; 0: various
  int axes = 0;               // which of the choices of axes
};

/// Sets of pools that stages are mixed of: those of each set of classes; on few pools every set of two or more.
std::set<std::uint32_t> pool_subsets(const SearchSpace& space) {
  const std::size_t num_pools = space.pools.size();
  constexpr std::size_t kMaxFreePools = 5;
  std::set<std::uint32_t> subsets;
  std::set<int> classes;
  for (const Pool& pool : space.pools) classes.insert(pool.device_class);
  for (std::uint32_t chosen = 1; chosen < (1U << classes.size()); ++chosen) {
    std::uint32_t subset = 0;
    for (std::size_t p = 0; p < num_pools; ++p) {
      const auto at = std::distance(classes.begin(), classes.find(space.pools[p].device_class));
      if ((chosen >> at & 1U) != 0) subset |= 1U << p;
    }
    subsets.insert(subset);
  }
  for (std::uint32_t subset = 1; num_pools <= kMaxFreePools && subset < (1U << num_pools); ++subset)
    subsets.insert(subset);
  std::erase_if(subsets, [](std::uint32_t subset) { return (subset & (subset - 1)) == 0; });
  return subsets;
}

/// Every stage on the same mixture: each takes 1/S of each chosen pool.
void add_mixed_families(const SearchSpace& space, Axes axes, const std::vector<int>& totals,
                        std::vector<Family>& families) {
  const Counts units = units_of(space, uniform(space, axes));
  for (const std::uint32_t subset : pool_subsets(space)) {
    for (int stages = 1; stages <= space.max_stages; stages += stages < 16 ? 1 : stages < 32 ? 4 : 8) {
      if (!std::binary_search(space.allowed_stages.begin(), space.allowed_stages.end(), stages)) continue;
      Counts counts;
      bool whole = true;
      for (std::size_t p = 0; p < space.pools.size(); ++p) {
        if ((subset >> p & 1U) == 0) continue;
        counts.of[p] = units.of[p] / stages;
        whole = whole && counts.of[p] > 0;
      }
      if (!whole || !allows(totals, counts.total())) continue;
      std::vector<Composition> compositions;
      add_with_experts(space, make_composition(space.pools, counts, axes), compositions);
      for (const Composition& composition : compositions)
        families.push_back({{composition}, composition.replicas(), stages});
    }
  }
}

/// Each stage on one pool, all with the same number of replicas.
void add_apart_families(const SearchSpace& space, const std::array<Axes, kMaxPools>& axes,
                        const std::vector<int>& totals, std::vector<Family>& families) {
  const Counts units = units_of(space, axes);
  for (const std::int32_t n : replica_menu(space, units)) {
    if (!allows(totals, n)) continue;
    for (const int expert : space.experts) {
      if (!may_hold(space, n, expert)) continue;
      Family family{{}, n, 0};
      for (std::size_t p = 0; p < space.pools.size(); ++p) {
        if (n > units.of[p]) continue;
        Counts counts;
        counts.of[p] = n;
        family.compositions.push_back(make_composition(space.pools, counts, axes));
        family.compositions.back().expert = expert;
      }
      if (!family.compositions.empty()) families.push_back(std::move(family));
    }
  }
}

/// Axes by pool for stages apart: every choice by class without a context axis, and the same axes everywhere.
std::set<std::array<Axes, kMaxPools>> axes_by_pool(const SearchSpace& space) {
  std::vector<std::array<Axes, kMaxPools>> choices{uniform(space, {})};
  for (std::size_t c = 0; c < space.axes.size(); ++c) {
    std::vector<std::array<Axes, kMaxPools>> longer;
    for (const auto& choice : choices) {
      for (const Axes axes : space.axes[c]) {
        if (axes.context > 1) continue;
        longer.push_back(choice);
        for (std::size_t p = 0; p < space.pools.size(); ++p) {
          if (space.pools[p].device_class == static_cast<int>(c)) longer.back()[p] = axes;
        }
      }
    }
    if (!longer.empty()) choices = std::move(longer);
  }
  std::set<std::array<Axes, kMaxPools>> result(choices.begin(), choices.end());
  for (const Axes axes : all_axes(space)) result.insert(uniform(space, axes));
  return result;
}

/// On many devices, replicas alike of which the busiest has far more samples than the mean: another number of them does
/// better.
bool wasteful(const SearchSpace& space, const Family& family, std::int64_t micro) {
  if (!space.large || family.stages > 0 || !space.request->constraints.data.empty()) return false;
  constexpr double kLeastEvenness = 0.85;
  const std::int64_t most = (micro + family.replicas - 1) / family.replicas;
  return static_cast<double>(micro) < kLeastEvenness * static_cast<double>(most * family.replicas);
}

std::vector<Family> make_families(const SearchSpace& space) {
  const Constraints& constraints = space.request->constraints;
  std::vector<int> totals = constraints.data;
  if (constraints.samples) totals = {static_cast<int>(constraints.samples->size())};
  // Operators that mix samples by other than sums give the same result only while a micro-batch stays on one replica.
  const auto& coupled = space.request->cost->model().coupled;
  if (std::any_of(coupled.begin(), coupled.end(), [](const auto& op) { return op.sums.empty(); })) totals = {1};
  if (!space.large) return {{all_compositions(space, totals), 0, 0}};
  std::vector<Family> families;
  int choice = 0;
  const auto number = [&](std::size_t from) {
    for (std::size_t i = from; i < families.size(); ++i) families[i].axes = choice;
    ++choice;
  };
  for (const auto& axes : axes_by_pool(space)) {
    const std::size_t from = families.size();
    add_apart_families(space, axes, totals, families);
    number(from);
  }
  for (const Axes axes : space.pools.size() > 1 ? all_axes(space) : std::vector<Axes>{}) {
    const std::size_t from = families.size();
    add_mixed_families(space, axes, totals, families);
    number(from);
  }
  return families;
}

/// Adds what the user's cuts and numbers of stages leave of `one`.
void add_combination(const SearchSpace& space, Combination one, std::vector<Combination>& result) {
  const auto& cuts = space.request->constraints.cuts;
  if (cuts) {
    const int num_blocks = space.spans->num_blocks();
    one.fixed_cuts = true;
    one.cuts = *cuts == "even" ? even_cuts(num_blocks, one.max_stages) : *parse_cuts(*cuts, num_blocks);
    const int stages = static_cast<int>(one.cuts.size()) + 1;
    if (stages < one.min_stages || stages > one.max_stages) return;
  }
  result.push_back(std::move(one));
}

/// Numbers of stages of one family, micro-batch and schedule.
void add_stages(const SearchSpace& space, const Family& family, const Combination& base,
                std::vector<Combination>& result) {
  const auto add = [&](int least, int most, bool spread) {
    Combination one = base;
    one.min_stages = least;
    one.max_stages = most;
    one.spread = spread;
    one.total_stages = least == most ? most : 0;
    add_combination(space, std::move(one), result);
  };
  // One stage has one schedule; it is called 1F1B unless the user says otherwise.
  const bool first_schedule = base.schedule == space.schedules.front();
  if (family.stages > 0) {
    if (family.stages > 1 || first_schedule) add(family.stages, family.stages, false);
    return;
  }
  int most = space.max_stages;
  if (family.replicas > 0) {
    std::int64_t stages = 0;
    for (const Composition& composition : *base.compositions) stages += stages_on(space, composition);
    most = static_cast<int>(std::min<std::int64_t>(most, std::max<std::int64_t>(1, stages)));
  }
  // H1 and H2 hold as much at every stage as at the first: the number of stages must be known.
  const bool contiguous = static_cast<int>(space.allowed_stages.size()) == space.max_stages &&
                          !space.request->constraints.cuts && (space.large || !plan::splits_backward(base.schedule));
  if (contiguous) {
    if (first_schedule) add(1, 1, false);
    if (most > 1) add(2, most, false);
  } else {
    for (const int stages : space.allowed_stages) {
      if (stages <= most && (stages > 1 || first_schedule)) add(stages, stages, false);
    }
  }
  // Pipelines that run inside nodes, with their replicas across nodes.
  const Pool& pool = space.pools.front();
  if (!space.large || space.pools.size() > 1 || pool.one_node() || base.compositions->empty()) return;
  const std::int64_t per_node = pool.devices_per_node / base.compositions->front().axes[0].size();
  for (const int stages : space.allowed_stages) {
    if (stages > 1 && stages <= most && family.replicas > 1 && per_node % stages == 0) add(stages, stages, true);
  }
}

}  // namespace

std::int64_t stages_on(const SearchSpace& space, const Composition& composition) {
  std::int64_t stages = space.max_stages;
  for (std::size_t p = 0; p < space.pools.size(); ++p) {
    if (composition.devices.of[p] > 0)
      stages = std::min<std::int64_t>(stages, space.devices.of[p] / composition.devices.of[p]);
  }
  return stages;
}

std::vector<Combination> make_combinations(const SearchSpace& space) {
  std::vector<Combination> result;
  for (Family& family : make_families(space)) {
    const auto compositions = std::make_shared<const std::vector<Composition>>(std::move(family.compositions));
    const std::size_t first = result.size();
    for (const std::int64_t micro : space.micros) {
      if (family.replicas > micro || wasteful(space, family, micro)) continue;
      for (const plan::ScheduleKind schedule : space.schedules) {
        Combination base;
        base.micro = micro;
        base.count = space.request->global_batch / micro;
        base.schedule = schedule;
        base.compositions = compositions;
        base.group = family.axes;
        add_stages(space, family, base, result);
      }
    }
    set_bounds(space, std::span(result).subspan(first));
  }
  std::stable_sort(result.begin(), result.end(),
                   [](const Combination& a, const Combination& b) { return a.bound < b.bound; });
  return result;
}

}  // namespace coxswain::planner
