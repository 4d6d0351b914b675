// The outer loop's combinations: micro-batch, schedule, and what stages may stand on.
#include <algorithm>
#include <set>

#include "planner/combination_bounds.h"
#include "planner/search.h"

namespace coxswain::planner {
namespace {

std::vector<int> even_cuts(int num_blocks, int stages) {
  std::vector<int> cuts;
  for (int s = 1; s < stages; ++s) cuts.push_back((s * num_blocks + stages / 2) / stages);
  return cuts;
}

/// Replicas of one stage have tensor axes of one size.
bool same_tensor(const std::vector<Pool>& pools, const Counts& counts) {
  int tensor = 0;
  for (std::size_t p = 0; p < pools.size(); ++p) {
    if (counts.of[p] == 0) continue;
    if (tensor != 0 && pools[p].tensor != tensor) return false;
    tensor = pools[p].tensor;
  }
  return true;
}

/// Every mixture of counts with an allowed total.
std::vector<Counts> all_compositions(const std::vector<Pool>& pools, const std::vector<int>& totals) {
  std::vector<Counts> result;
  Counts counts;
  while (true) {
    std::size_t p = 0;
    while (p < pools.size() && counts.of[p] == static_cast<std::int32_t>(pools[p].size())) counts.of[p++] = 0;
    if (p == pools.size()) break;
    ++counts.of[p];
    const bool allowed = totals.empty() || std::find(totals.begin(), totals.end(), counts.total()) != totals.end();
    if (allowed && same_tensor(pools, counts)) result.push_back(counts);
  }
  std::sort(result.begin(), result.end());
  return result;
}

/// Numbers of replicas worth trying on many devices: divisors of what there is and powers of two.
std::vector<std::int32_t> replica_menu(const SearchSpace& space) {
  std::set<std::int32_t> menu;
  const std::vector<int>& fixed = space.request->constraints.data;
  for (const int n : fixed) menu.insert(n);
  if (!fixed.empty()) return {menu.begin(), menu.end()};
  for (const Pool& pool : space.pools) {
    const auto size = static_cast<std::int32_t>(pool.size());
    for (std::int32_t n = 1; n <= size; n *= 2) menu.insert(n);
    for (std::int32_t stages = 1; stages <= std::min<std::int32_t>(size, space.max_stages); ++stages)
      menu.insert(size / stages);
  }
  return {menu.begin(), menu.end()};
}


/// What stages may stand on: everything at once, or, on many devices, stages of one shape at a time.
struct Family {
  std::vector<Counts> compositions;
  std::int32_t replicas = 0;  // least of any composition; 0: various
  int stages = 0;             // so many; 0: various
};

/// Every stage on the same mixture: each takes 1/S of each chosen pool.
void add_mixed_families(const SearchSpace& space, const std::vector<int>& totals, std::vector<Family>& families) {
  const std::size_t num_pools = space.pools.size();
  constexpr std::size_t kMaxSubsets = 64;
  std::set<std::uint32_t> subsets;
  // All pools; those of each set of classes; on few pools every set.
  std::set<int> classes;
  for (const Pool& pool : space.pools) classes.insert(pool.device_class);
  const std::uint32_t all = (1U << num_pools) - 1;
  for (std::uint32_t chosen = 1; chosen < (1U << classes.size()); ++chosen) {
    std::uint32_t subset = 0;
    for (std::size_t p = 0; p < num_pools; ++p) {
      const auto at = std::distance(classes.begin(), classes.find(space.pools[p].device_class));
      if ((chosen >> at & 1U) != 0) subset |= 1U << p;
    }
    subsets.insert(subset);
  }
  for (std::uint32_t subset = 1; subset <= all && (std::size_t{1} << num_pools) <= kMaxSubsets; ++subset)
    subsets.insert(subset);

  for (const std::uint32_t subset : subsets) {
    if ((subset & (subset - 1)) == 0) continue;  // one pool: the other families
    for (int stages = 1; stages <= space.max_stages; stages += stages < 16 ? 1 : stages < 32 ? 4 : 8) {
      if (std::find(space.allowed_stages.begin(), space.allowed_stages.end(), stages) == space.allowed_stages.end())
        continue;
      Counts counts;
      bool whole = true;
      for (std::size_t p = 0; p < num_pools; ++p) {
        if ((subset >> p & 1U) == 0) continue;
        counts.of[p] = space.devices.of[p] / stages;
        whole = whole && counts.of[p] > 0;
      }
      if (!whole || !same_tensor(space.pools, counts)) continue;
      if (!totals.empty() && std::find(totals.begin(), totals.end(), counts.total()) == totals.end()) continue;
      families.push_back({{counts}, counts.total(), stages});
    }
  }
}

/// Each stage on one pool, all with the same number of replicas.
void add_apart_families(const SearchSpace& space, const std::vector<int>& totals, std::vector<Family>& families) {
  for (const std::int32_t n : replica_menu(space)) {
    if (!totals.empty() && std::find(totals.begin(), totals.end(), n) == totals.end()) continue;
    Family family{{}, n, 0};
    for (std::size_t p = 0; p < space.pools.size(); ++p) {
      if (n > space.devices.of[p]) continue;
      Counts counts;
      counts.of[p] = n;
      family.compositions.push_back(counts);
    }
    if (!family.compositions.empty()) families.push_back(std::move(family));
  }
}

std::vector<Family> make_families(const SearchSpace& space) {
  const Constraints& constraints = space.request->constraints;
  std::vector<int> totals = constraints.data;
  if (constraints.samples) totals = {static_cast<int>(constraints.samples->size())};
  // Operators that mix samples give the same result only while a micro-batch stays on one device.
  if (!space.request->cost->model().coupled.empty()) totals = {1};
  if (!space.large) return {{all_compositions(space.pools, totals), 0, 0}};
  std::vector<Family> families;
  add_apart_families(space, totals, families);
  if (space.pools.size() > 1) add_mixed_families(space, totals, families);
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
    add_combination(space, std::move(one), result);
  };
  // One stage has one schedule; it is called 1F1B unless the user says otherwise.
  const bool first_schedule = base.schedule == space.schedules.front();
  if (family.stages > 0) {
    if (family.stages > 1 || first_schedule) add(family.stages, family.stages, false);
    return;
  }
  const int most = family.replicas > 0
                       ? std::min<int>(space.max_stages, std::max(1, space.devices.total() / family.replicas))
                       : space.max_stages;
  const bool contiguous =
      static_cast<int>(space.allowed_stages.size()) == space.max_stages && !space.request->constraints.cuts;
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
  if (!space.large || space.pools.size() > 1 || pool.one_node() || pool.units_per_node() < 2) return;
  for (const int stages : space.allowed_stages) {
    if (stages > 1 && stages <= most && family.replicas > 1 && pool.units_per_node() % stages == 0)
      add(stages, stages, true);
  }
}

}  // namespace

std::vector<Combination> make_combinations(const SearchSpace& space) {
  const std::vector<Family> families = make_families(space);
  std::vector<Combination> result;
  for (const std::int64_t micro : space.micros) {
    for (const Family& family : families) {
      if (family.replicas > micro) continue;
      for (const plan::ScheduleKind schedule : space.schedules) {
        Combination base;
        base.micro = micro;
        base.count = space.request->global_batch / micro;
        base.schedule = schedule;
        base.compositions = family.compositions;
        add_stages(space, family, base, result);
      }
    }
  }
  set_bounds(space, result);
  std::stable_sort(result.begin(), result.end(),
                   [](const Combination& a, const Combination& b) { return a.bound < b.bound; });
  return result;
}

}  // namespace coxswain::planner
