#include "planner/refine.h"

#include <algorithm>
#include <iterator>
#include <map>

#include "cost_model/offload_time.h"
#include "plan/schedule.h"

namespace coxswain::planner {
namespace {

/// One replica of a stage.
struct Part {
  std::size_t pool = 0;
  std::int64_t samples = 0;
};

std::vector<Part> parts_of(const CandidateStage& stage) {
  std::vector<Part> parts;
  for (const Share& share : stage.shares)
    parts.insert(parts.end(), static_cast<std::size_t>(share.replicas), Part{share.pool, share.samples});
  return parts;
}

/// Replicas of one stage have units of one shape.
Axes axes_of_stage(const CandidateStage& stage) { return stage.composition.axes[stage.shares.front().pool]; }

/// Pool by pool, as replicas are placed.
void set_parts(const SearchSpace& space, CandidateStage& stage, std::vector<Part> parts) {
  std::stable_sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.pool < b.pool; });
  Counts units;
  stage.shares.clear();
  for (const Part& part : parts) {
    add_share(stage.shares, {part.pool, 1, part.samples});
    ++units.of[part.pool];
  }
  const int expert = stage.composition.expert;
  stage.composition = make_composition(space.pools, units, axes_of_stage(stage));
  stage.composition.expert = expert;
}

SpanQuery query_of(const SearchSpace& space, const Candidate& candidate, std::size_t s) {
  const CandidateStage& stage = candidate.stages[s];
  const int credits = static_cast<int>(std::min<std::int64_t>(2, candidate.count));
  return {stage.first,
          stage.end,
          1,
          credits,
          stage.state.zero_stage,
          stage.composition.replicas(),
          stage.state.offload,
          &space.spans->moments(candidate.schedule, static_cast<int>(s), static_cast<int>(candidate.stages.size()),
                                candidate.count, credits)};
}

/// Whether stage `s` fits with just what it recomputes.
bool holds(const SearchSpace& space, const Candidate& candidate, std::size_t s) {
  const CandidateStage& stage = candidate.stages[s];
  return std::all_of(stage.shares.begin(), stage.shares.end(), [&](const Share& share) {
    const SampleTable& table = space.spans->table(stage.composition.kind(space.pools, share.pool), share.samples);
    const Fit fit = space.spans->fit(table, query_of(space, candidate, s), stage.recompute);
    return fit.fits && fit.recompute == stage.recompute;
  });
}

class NeighbourList {
 public:
  explicit NeighbourList(const SearchSpace& space) : space_(space) {}

  void add(Candidate candidate) {
    if (refit(space_, candidate)) found_.push_back(std::move(candidate));
  }

  void add_cuts(const Candidate& from) {
    if (space_.request->constraints.cuts) return;
    for (std::size_t s = 0; s + 1 < from.stages.size(); ++s) {
      for (const int shift : {-1, 1}) {
        Candidate moved = from;
        moved.stages[s].end += shift;
        moved.stages[s + 1].first += shift;
        const bool whole = space_.spans->has_work(moved.stages[s].first, moved.stages[s].end) &&
                           space_.spans->has_work(moved.stages[s + 1].first, moved.stages[s + 1].end);
        if (moved.stages[s].first < moved.stages[s].end && moved.stages[s + 1].first < moved.stages[s + 1].end && whole)
          add(std::move(moved));
      }
    }
  }

  void add_samples(const Candidate& from) {
    if (space_.request->constraints.samples || space_.spans->cost().facts().static_batch() > 0) return;
    for (std::size_t s = 0; s < from.stages.size(); ++s) {
      const std::vector<Part> parts = parts_of(from.stages[s]);
      for (std::size_t i = 0; i < parts.size(); ++i) {
        for (std::size_t j = 0; j < parts.size(); ++j) {
          // Equal devices gain nothing from unequal shares.
          if (class_of(parts[i].pool) == class_of(parts[j].pool)) continue;
          for (const std::int64_t moved : {1, 2}) {
            if (parts[i].samples <= moved) continue;
            std::vector<Part> other = parts;
            other[i].samples -= moved;
            other[j].samples += moved;
            Candidate next = from;
            set_parts(space_, next.stages[s], std::move(other));
            add(std::move(next));
          }
        }
      }
    }
  }

  void add_swaps(const Candidate& from) {
    for (std::size_t s = 0; s < from.stages.size(); ++s) {
      for (std::size_t t = s + 1; t < from.stages.size(); ++t) {
        for (std::size_t p = 0; p < space_.pools.size(); ++p) {
          for (std::size_t q = 0; q < space_.pools.size(); ++q) {
            if (p == q || from.stages[s].composition.units.of[p] == 0 || from.stages[t].composition.units.of[q] == 0)
              continue;
            // Only between pools of one class: times stay, links change.
            if (class_of(p) != class_of(q) || !(axes_of_stage(from.stages[s]) == axes_of_stage(from.stages[t])))
              continue;
            Candidate swapped = from;
            exchange(swapped.stages[s], p, q);
            exchange(swapped.stages[t], q, p);
            add(std::move(swapped));
          }
        }
      }
    }
  }

  void add_schedules(const Candidate& from) {
    if (from.stages.size() < 2) return;
    for (const plan::ScheduleKind schedule : space_.schedules) {
      if (schedule == from.schedule) continue;
      Candidate other = from;
      other.schedule = schedule;
      add(std::move(other));
    }
  }

  /// One block recomputes more or less: which ones, the search says by each stage alone.
  void add_recompute(const Candidate& from) {
    if (space_.request->constraints.recompute) return;
    std::vector<plan::Recompute> kinds{plan::Recompute::None, plan::Recompute::Full};
    if (space_.request->capabilities.selective_recompute) kinds.push_back(plan::Recompute::Selective);
    for (std::size_t s = 0; s < from.stages.size(); ++s) {
      for (std::size_t b = 0; b < from.stages[s].recompute.size(); ++b) {
        for (const plan::Recompute kind : kinds) {
          if (kind == from.stages[s].recompute[b]) continue;
          Candidate other = from;
          other.stages[s].recompute[b] = kind;
          if (holds(space_, other, s)) found_.push_back(std::move(other));
        }
      }
    }
  }

  void add_states(const Candidate& from) {
    for (std::size_t s = 0; s < from.stages.size(); ++s) {
      for (const StateChoice& state : space_.states) {
        if (state == from.stages[s].state || (state.zero_stage > 0 && (from.stages[s].composition.replicas() < 2 ||
                                                                       !from.stages[s].composition.has_equal_axes())))
          continue;
        Candidate other = from;
        other.stages[s].state = state;
        add(std::move(other));
      }
    }
  }

  [[nodiscard]] std::vector<Candidate> take() { return std::move(found_); }

 private:
  [[nodiscard]] int class_of(std::size_t pool) const { return space_.pools[pool].device_class; }
  /// The first replica of `stage` on pool `from` goes to pool `to`.
  void exchange(CandidateStage& stage, std::size_t from, std::size_t to) const {
    std::vector<Part> parts = parts_of(stage);
    for (Part& part : parts) {
      if (part.pool != from) continue;
      part.pool = to;
      break;
    }
    set_parts(space_, stage, std::move(parts));
  }

  const SearchSpace& space_;
  std::vector<Candidate> found_;
};

}  // namespace

bool refit(const SearchSpace& space, Candidate& candidate) {
  for (std::size_t s = 0; s < candidate.stages.size(); ++s) {
    CandidateStage& stage = candidate.stages[s];
    const SpanQuery query = query_of(space, candidate, s);
    stage.recompute.clear();
    // Twice: the second pass sees what any replica needs.
    for (int pass = 0; pass < 2; ++pass) {
      for (const Share& share : stage.shares) {
        Fit fit = space.spans->fit(space.spans->table(stage.composition.kind(space.pools, share.pool), share.samples),
                                   query, stage.recompute);
        if (!fit.fits) return false;
        stage.recompute = std::move(fit.recompute);
      }
    }
  }
  return true;
}

std::optional<Candidate> with_chunks(const Candidate& candidate, plan::ScheduleKind schedule, int num_chunks,
                                     int moved) {
  const int num_stages = static_cast<int>(candidate.stages.size());
  Candidate result = candidate;
  result.schedule = schedule;
  result.num_chunks = num_chunks;
  int block = 0;
  for (int part = 0; part < num_stages * num_chunks; ++part) {
    const plan::PartPlace place = plan::place_of_part(schedule, part, num_stages);
    const CandidateStage& from = candidate.stages[static_cast<std::size_t>(place.stage)];
    CandidateStage& to = result.stages[static_cast<std::size_t>(place.stage)];
    int all = from.end - from.first;
    if (place.stage == 0) all -= moved;
    if (place.stage == num_stages - 1) all += moved;
    if (all < num_chunks) return std::nullopt;
    to.recompute.resize(static_cast<std::size_t>(all),
                        to.recompute.empty() ? plan::Recompute::None : to.recompute.back());
    // The first runs take what does not divide.
    const int size = all / num_chunks + (place.chunk < all % num_chunks ? 1 : 0);
    if (place.chunk == 0) {
      to.first = block;
      to.end = block + size;
    } else {
      to.chunks.push_back({block, block + size});
    }
    block += size;
  }
  return result;
}

namespace {

/// One stage of a plan with several chunks: what it may recompute, and whether it fits then.
class ChunkedStage {
 public:
  ChunkedStage(const SearchSpace& space, plan::Plan& plan, std::size_t s) : space_(space), plan_(plan), s_(s) {
    const plan::Stage& stage = plan.stages[s];
    for (std::size_t r = 0; r < stage.replicas.size(); ++r) {
      const plan::Replica& one = stage.replicas[r];
      const bool as_before = r > 0 && one.samples == stage.replicas[r - 1].samples &&
                             one.devices.front().device_class == stage.replicas[r - 1].devices.front().device_class;
      if (!as_before) cases_.push_back(static_cast<int>(r));
    }
  }

  [[nodiscard]] bool fits() const {
    const cost_model::CostModel& cost = *space_.request->cost;
    return std::all_of(cases_.begin(), cases_.end(), [&](int r) {
      const plan::Stage& stage = plan_.stages[s_];
      const plan::DeviceId device = stage.replicas[static_cast<std::size_t>(r)].devices.front();
      const auto device_class = static_cast<std::size_t>(device.device_class);
      const cost_model::MemoryNeed need = cost_model::estimate_memory_need(cost, plan_, static_cast<int>(s_), r);
      return need.parts.total() <= cost.resources().device_classes[device_class].memory.value &&
             (stage.offload == plan::Offload::None ||
              need.host <= cost_model::host_memory_of(cost.resources(), device));
    });
  }

  /// The first of `steps` until it fits.
  bool recompute(const std::vector<SampleTable::RecomputeStep>& steps) {
    std::map<int, std::size_t> position;
    plan::Stage& stage = plan_.stages[s_];
    for (int chunk = 0; chunk < plan::num_chunks(stage); ++chunk) {
      const plan::BlockRun run = plan::run_of(stage, chunk);
      for (int block = run.first_block; block < run.end_block; ++block) position.emplace(block, position.size());
    }
    std::vector<SampleTable::RecomputeStep> own;
    std::copy_if(steps.begin(), steps.end(), std::back_inserter(own),
                 [&](const SampleTable::RecomputeStep& step) { return position.count(step.block) > 0; });
    const auto fits_after = [&](std::size_t count) {
      std::fill(stage.recompute.begin(), stage.recompute.end(), plan::Recompute::None);
      for (std::size_t i = 0; i < count; ++i) stage.recompute[position.at(own[i].block)] = own[i].to;
      return fits();
    };
    if (fits_after(0)) return true;
    if (!fits_after(own.size())) return false;
    std::size_t too_few = 0, enough = own.size();
    while (too_few + 1 < enough) {
      const std::size_t middle = (too_few + enough) / 2;
      (fits_after(middle) ? enough : too_few) = middle;
    }
    return fits_after(enough);
  }

 private:
  const SearchSpace& space_;
  plan::Plan& plan_;
  std::size_t s_;
  std::vector<int> cases_;  // replicas of one class and number of samples are one case
};

}  // namespace

std::optional<Candidate> refit_chunks(const SearchSpace& space, const Candidate& candidate) {
  plan::Plan plan = place_candidate(space, candidate);
  if (plan.stages.empty()) return std::nullopt;
  const bool free = !space.request->constraints.recompute;
  Candidate result = candidate;
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    ChunkedStage stage(space, plan, s);
    CandidateStage& from = result.stages[s];
    const Share& first = from.shares.front();
    const SampleTable& table = space.spans->table(from.composition.kind(space.pools, first.pool), first.samples);
    if (free ? !stage.recompute(table.recompute_steps) : !stage.fits()) return std::nullopt;
    from.recompute = plan.stages[s].recompute;
  }
  return result;
}

namespace {

/// The same blocks on each stage in one run.
Candidate without_chunks(const Candidate& candidate) {
  Candidate result = candidate;
  int block = 0;
  for (CandidateStage& stage : result.stages) {
    int blocks = stage.end - stage.first;
    for (const plan::BlockRun& run : stage.chunks) blocks += run.end_block - run.first_block;
    stage.first = block;
    stage.end = block += blocks;
    stage.chunks.clear();
  }
  result.num_chunks = 1;
  return result;
}

/// Another ZeRO stage for all stages on alike devices: the search chose each stage's by itself, but only the slowest
/// update counts, and gathers only where they are on the critical path.
void add_zero_stages(const SearchSpace& space, const Candidate& candidate, std::vector<Candidate>& found) {
  const auto on_same = [](const CandidateStage& a, const CandidateStage& b) {
    return a.state == b.state && !(a.composition < b.composition) && !(b.composition < a.composition);
  };
  for (std::size_t s = 0; s < candidate.stages.size(); ++s) {
    const CandidateStage& stage = candidate.stages[s];
    if (std::any_of(candidate.stages.begin(), candidate.stages.begin() + static_cast<std::ptrdiff_t>(s),
                    [&](const CandidateStage& before) { return on_same(before, stage); }))
      continue;
    for (const StateChoice& state : space.states) {
      if (state.offload != stage.state.offload || state == stage.state) continue;
      if (state.zero_stage > 0 && stage.composition.replicas() < 2) continue;
      Candidate other = candidate;
      for (std::size_t t = s; t < candidate.stages.size(); ++t) {
        if (on_same(candidate.stages[t], stage)) other.stages[t].state = state;
      }
      found.push_back(std::move(other));
    }
  }
}

/// One block from a stage to the next one, or back; other ZeRO stages.
std::vector<Candidate> chunked_neighbours(const SearchSpace& space, const Candidate& candidate) {
  std::vector<Candidate> found;
  if (space.large) add_zero_stages(space, candidate, found);
  if (space.request->constraints.cuts) return found;
  const int num_chunks = 1 + static_cast<int>(candidate.stages.front().chunks.size());
  const Candidate whole = without_chunks(candidate);
  for (std::size_t s = 0; s + 1 < whole.stages.size(); ++s) {
    for (const int shift : {-1, 1}) {
      Candidate moved = whole;
      moved.stages[s].end += shift;
      moved.stages[s + 1].first += shift;
      if (auto folded = with_chunks(moved, candidate.schedule, num_chunks)) found.push_back(std::move(*folded));
    }
  }
  return found;
}

}  // namespace

std::vector<Candidate> neighbours(const SearchSpace& space, const Candidate& candidate) {
  if (plan::has_chunks(candidate.schedule)) return chunked_neighbours(space, candidate);
  NeighbourList list(space);
  list.add_cuts(candidate);
  if (!space.large) {
    list.add_samples(candidate);
    list.add_swaps(candidate);
    list.add_states(candidate);
    list.add_recompute(candidate);
  }
  list.add_schedules(candidate);
  return list.take();
}

void climb(const SearchSpace& space, const Candidate& start, Cost step, int max_simulations,
           const std::function<std::optional<Cost>(const Candidate&)>& simulate_step) {
  Candidate at = start;
  int used = 0;
  bool moved = true;
  while (moved) {
    moved = false;
    for (const Candidate& next : neighbours(space, at)) {
      if (used++ == max_simulations) return;
      const std::optional<Cost> cost = simulate_step(next);
      if (!cost || *cost >= step) continue;
      step = *cost;
      at = next;
      moved = true;
      break;
    }
  }
}

}  // namespace coxswain::planner
