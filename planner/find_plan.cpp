// The search from outside: combinations in batches, best first; simulation of what looks best; refinement.
#include <algorithm>
#include <limits>
#include <memory>
#include <queue>
#include <set>
#include <tuple>

#include "plan/schedule.h"
#include "planner/combination_bounds.h"
#include "planner/look_order.h"
#include "planner/parallel_for.h"
#include "planner/planner.h"
#include "planner/proof.h"
#include "planner/quick_look.h"
#include "planner/refine.h"
#include "planner/search.h"
#include "planner/search_report.h"
#include "planner/stage_bounds.h"

namespace coxswain::planner {
namespace {

/// Fixed, so that pruning does not depend on the number of threads.
constexpr std::size_t kBatch = 8;

/// Effort, by size of the cluster.
struct Effort {
  int alternatives, simulations, climb_simulations;
  std::size_t results_per_combination, simulated_per_batch;
  std::size_t max_labels_per_layer;
  std::size_t seeds;  // combinations of alike stages that are searched first
  double slack;       // candidates that cost up to so many times the best are kept, for the runners-up
  ProofLimits proof = {};
};
constexpr Effort kSmallEffort{8, 1000, 300, 32, 16, std::numeric_limits<std::size_t>::max(), 0, 1.5, {20000, 20000}};
constexpr Effort kMediumEffort{1, 64, 64, 8, 8, 400, 16, 1.1};
constexpr Effort kRoughEffort{1, 8, 16, 2, 2, 48, 8, 1.0};
constexpr Effort kLargeEffort{1, 8, 16, 2, 4, 48, 0, 1.0};

/// Large searches: how many combinations are looked at, how many of them searched, and how far a look may be off.
constexpr std::size_t kMaxLooks = 6000, kLookBatch = 64, kMaxLargeSearches = 32;
constexpr double kLookSlack = 1.25;
/// How far the cost of a candidate that is to be folded may be above what the simulator says: it is no bound.
constexpr double kFoldSlack = 1.05;
/// How many bounds a large search makes closer.
constexpr std::size_t kMaxCloserBounds = 12000, kBoundBatch = 8;
/// A bound that is within this of the best plan is close enough.
constexpr double kCloseBound = 1.05;

class Search {
 public:
  Search(const SearchSpace& space, const Effort& effort)
      : space_(space), alike_(space), request_(*space.request), effort_(effort) {}

  void run() {
    std::vector<Task> tasks;
    if (space_.large) {
      tasks = search_large(kMaxLargeSearches);
    } else {
      // First as if it were large: what is found bounds the search of everything.
      alike_.large = true;
      alike_.chunked_schedules.clear();  // add_chunks tries them on what is best of everything
      if (effort_.seeds > 0) search_large(effort_.seeds);
      if (request_.rough && best_ != kNoCost)
        lower_bound_ = work_of_space(space_);
      else
        search_small(make_tasks(space_));
    }
    if (stopped()) return;
    if (!request_.stop_at_first || simulated_.empty()) {
      simulate_best(static_cast<std::size_t>(effort_.simulations));
      refine();
    }
    if (space_.large) lower_bound_ = bound_of(tasks);
    if (effort_.proof.labels > 0 && !request_.stop_at_first && !stopped()) prove_best();
    std::stable_sort(simulated_.begin(), simulated_.end());
  }

  [[nodiscard]] SearchOutcome take_outcome() {
    const Cost bound = simulated_.empty() ? lower_bound_ : std::min(lower_bound_, simulated_.front().step);
    // Theirs are no bounds.
    std::erase_if(waiting_, [](const Candidate& one) { return one.num_chunks > 1; });
    return {std::move(simulated_), std::move(waiting_), bound, misfit_, costed_};
  }

 private:
  [[nodiscard]] bool stopped() const { return request_.stop.stop_requested(); }
  [[nodiscard]] bool goes_on() const { return costed_ < request_.max_candidates && !stopped(); }

  /// Everything that may beat the best plan, best bound first.
  void search_small(const std::vector<Task>& tasks) {
    std::size_t done = 0;
    while (done < tasks.size() && goes_on()) {
      if (tasks[done].combination.bound >= wanted()) break;
      const std::size_t end = std::min(tasks.size(), done + kBatch);
      search_closely(space_, tasks, done, end);
      done = end;
      if (request_.stop_at_first && !simulated_.empty()) break;
    }
    for (std::size_t i = done; i < tasks.size(); ++i) lower_bound_ = std::min(lower_bound_, tasks[i].combination.bound);
  }

  /// What looks best, of stages of alike shapes: up to `most` combinations.
  std::vector<Task> search_large(std::size_t most) {
    std::vector<Task> all = make_tasks(alike_);
    const std::vector<Task> tasks = pick_by_look(all, most);
    for (std::size_t done = 0; done < tasks.size() && goes_on(); done += kBatch) {
      if (best_ != kNoCost && tasks[done].look > static_cast<Cost>(static_cast<double>(best_) * kLookSlack)) break;
      search_closely(alike_, tasks, done, std::min(tasks.size(), done + kBatch));
    }
    return all;
  }

  /// No plan of these combinations steps faster. Bounds in question are made closer, the least one first.
  [[nodiscard]] Cost bound_of(const std::vector<Task>& tasks) const {
    if (tasks.empty() || best_ == kNoCost) return work_of_space(space_);
    using Entry = std::tuple<Cost, bool, std::size_t>;  // bound, not yet closer, task
    std::priority_queue<Entry, std::vector<Entry>, std::greater<>> open;
    const auto close = static_cast<Cost>(static_cast<double>(best_) / kCloseBound);
    StageBounds bounds(alike_);
    for (std::size_t i = 0; i < tasks.size(); ++i) open.emplace(bounds.coarse(tasks[i].combination), true, i);
    Cost least = close;  // of those that were made closer: of the others only whether theirs are less is asked
    while (bounds.num_made() < kMaxCloserBounds && !stopped()) {
      std::vector<const Combination*> batch;
      std::vector<std::size_t> numbers;
      while (batch.size() < kBoundBatch && !open.empty()) {
        const auto [bound, coarse, task] = open.top();
        if (!coarse || bound >= least) break;
        open.pop();
        batch.push_back(&tasks[task].combination);
        numbers.push_back(task);
      }
      if (batch.empty()) break;
      const std::vector<Cost> made = bounds.bounds(batch, least, request_);
      for (std::size_t i = 0; i < made.size(); ++i) {
        least = std::min(least, made[i]);
        open.emplace(made[i], false, numbers[i]);
      }
    }
    return std::min(std::get<0>(open.top()), least);
  }

  /// Looks at combinations until none is likely to beat the best look; those that were looked at, ascending in look.
  [[nodiscard]] std::vector<Task> pick_by_look(std::vector<Task>& tasks, std::size_t most) {
    parallel_for(tasks.size(), request_, [&](std::size_t i) {
      const Combination& one = tasks[i].combination;
      const bool chunks = most_chunks(alike_, one, one.max_stages) > 1;
      tasks[i].guess = std::max(chunks ? one.chunked_bound : one.bound, guess_step(alike_, one));
    });
    std::erase_if(tasks, [](const Task& task) { return task.guess == kNoCost; });
    LookOrder order(tasks, space_.large);
    Cost best = kNoCost;
    std::vector<std::size_t> looked;
    std::vector<QuickLook> folded(tasks.size());  // with several chunks a stage
    while (looked.size() < kMaxLooks && !stopped()) {
      const std::vector<std::size_t> batch = order.next(kLookBatch, best);
      if (batch.empty()) break;
      parallel_for(batch.size(), request_, [&](std::size_t i) {
        Task& task = tasks[batch[i]];
        const QuickLook look = quick_look(alike_, task.combination);
        task.look = look.cost;
        task.combination.num_blocks = look.num_blocks;
        if (task.combination.total_stages == 0) task.combination.total_stages = look.num_stages;
        folded[batch[i]] = chunked_look(alike_, task.combination, look);
      });
      for (const std::size_t at : batch) {
        const Cost look = std::min(tasks[at].look, folded[at].cost);
        best = std::min(best, look);
        order.saw(at, look);
      }
      looked.insert(looked.end(), batch.begin(), batch.end());
    }
    costed_ += static_cast<std::int64_t>(looked.size());
    std::sort(looked.begin(), looked.end());
    std::vector<Task> result;
    for (const std::size_t at : looked) {
      // Where nothing looks as if it fitted, some are searched all the same: to say what is missing.
      if (best == kNoCost) tasks[at].combination.num_blocks.clear();
      if (best == kNoCost || tasks[at].look != kNoCost) result.push_back(tasks[at]);
      if (folded[at].cost == kNoCost) continue;
      result.push_back(tasks[at]);
      Combination& chunked = result.back().combination;
      result.back().look = folded[at].cost;
      chunked.num_blocks = std::move(folded[at].num_blocks);
      chunked.num_chunks = folded[at].num_chunks;
      chunked.total_stages = folded[at].num_stages;
    }
    std::stable_sort(result.begin(), result.end(), [](const Task& a, const Task& b) { return a.look < b.look; });
    if (result.size() > most) result.resize(most);
    return result;
  }

  /// Tasks [begin, end) label by label, and the best of what they give in the simulator.
  void search_closely(const SearchSpace& space, const std::vector<Task>& tasks, std::size_t begin, std::size_t end) {
    std::vector<CombinationResult> results(end - begin);
    parallel_for(results.size(), request_, [&](std::size_t i) {
      const Task& task = tasks[begin + i];
      SearchLimits limits;
      limits.alternatives = effort_.alternatives;
      limits.max_results = effort_.results_per_combination;
      limits.max_labels = std::max<std::int64_t>(1, request_.max_candidates);
      limits.max_labels_per_layer = space.large ? kLargeEffort.max_labels_per_layer : effort_.max_labels_per_layer;
      Cost upper = wanted(task.combination.num_chunks);
      if (task.look != kNoCost) upper = std::min(upper, static_cast<Cost>(static_cast<double>(task.look) * kLookSlack));
      results[i] = search_combination(space, task.combination, upper, limits);
    });
    for (CombinationResult& result : results) take(std::move(result));
    simulate_best(effort_.simulated_per_batch);
  }

  /// Ascending in bound.
  [[nodiscard]] static std::vector<Task> make_tasks(const SearchSpace& space) {
    std::vector<Task> tasks;
    for (Combination& combination : make_combinations(space)) tasks.push_back({std::move(combination)});
    return tasks;
  }

  [[nodiscard]] Cost wanted(int num_chunks = 1) const {
    const double slack = num_chunks > 1 ? std::max(kFoldSlack, effort_.slack) : effort_.slack;
    return best_ == kNoCost ? kNoCost : static_cast<Cost>(static_cast<double>(best_) * slack);
  }
  [[nodiscard]] bool may_win(const Candidate& one) const {
    return one.bound < (one.num_chunks > 1 ? wanted(one.num_chunks) : best_);
  }

  void take(CombinationResult result) {
    lower_bound_ = std::min(lower_bound_, result.lower_bound);
    costed_ += result.costed;
    const std::int64_t count = misfit_.count + result.misfit.count;
    if (result.misfit.count > 0 && (misfit_.count == 0 || result.misfit.least_excess < misfit_.least_excess))
      misfit_ = result.misfit;
    misfit_.count = count;
    for (Candidate& candidate : result.candidates) waiting_.push_back(std::move(candidate));
    std::stable_sort(waiting_.begin(), waiting_.end(),
                     [](const Candidate& a, const Candidate& b) { return a.bound < b.bound; });
  }

  /// Simulates up to `most` of those that wait and may still win, and the best of each shape that has none yet.
  void simulate_best(std::size_t most) {
    std::vector<std::size_t> chosen;
    for (std::size_t i = 0; i < waiting_.size() && chosen.size() < most; ++i) {
      const bool new_shape = shapes_.insert(shape_of(waiting_[i])).second;
      if (may_win(waiting_[i]) || (new_shape && waiting_[i].bound < wanted())) chosen.push_back(i);
    }
    std::vector<std::optional<Simulated>> results(chosen.size());
    parallel_for(chosen.size(), request_, [&](std::size_t i) { results[i] = simulate_form(waiting_[chosen[i]]); });
    for (auto& result : results) {
      if (result) keep(std::move(*result));
    }
    for (std::size_t i = 0; i < chosen.size() && simulated_.empty() && !stopped(); ++i)
      try_whole_backward(waiting_[chosen[i]]);
    for (auto i = chosen.rbegin(); i != chosen.rend(); ++i)
      waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(*i));
  }

  /// A candidate that does not fit after all: between I and W it holds what it recomputed. With whole backwards it does
  /// not.
  void try_whole_backward(Candidate candidate) {
    const auto whole = plan::ScheduleKind::OneForwardOneBackward;
    const auto& allowed = space_.schedules;
    if (!plan::splits_backward(candidate.schedule) || std::find(allowed.begin(), allowed.end(), whole) == allowed.end())
      return;
    candidate.schedule = whole;
    if (!refit(space_, candidate)) return;
    if (auto one = simulate_one(candidate)) keep(std::move(*one));
  }

  using Shape = std::tuple<std::vector<int>, std::int64_t, std::vector<int>>;
  static Shape shape_of(const Candidate& candidate) {
    std::vector<int> totals;
    for (const CandidateStage& stage : candidate.stages) totals.push_back(stage.composition.replicas());
    return {totals, candidate.micro, axes_of(candidate)};
  }

  [[nodiscard]] std::optional<Simulated> simulate_one(const Candidate& candidate) const {
    Simulated one{candidate, place_candidate(space_, candidate), {}, 0};
    if (one.plan.stages.empty()) return std::nullopt;
    auto simulation = cost_model::simulate(*request_.cost, one.plan);
    if (!simulation) return std::nullopt;
    one.estimate = std::move(simulation->estimate);
    one.step = cost_model::to_ticks(one.estimate.step);
    for (const plan::DeviceEstimate& device : one.estimate.devices) {
      if (device.parts.total() > device.capacity) return std::nullopt;
    }
    return one;
  }

  /// With several chunks: under the schedule that is best.
  [[nodiscard]] std::optional<Simulated> simulate_form(const Candidate& candidate) const {
    if (candidate.num_chunks == 1) return simulate_one(candidate);
    std::optional<Simulated> best;
    for (const plan::ScheduleKind kind : space_.chunked_schedules) {
      const auto choices = plan::chunk_choices(kind, static_cast<int>(candidate.stages.size()),
                                               space_.spans->num_blocks(), candidate.num_chunks);
      if (choices.empty() || choices.back() != candidate.num_chunks) continue;
      const auto folded = with_chunks(candidate, kind, candidate.num_chunks);
      std::optional<Simulated> one = folded ? simulate_folded(*folded) : std::nullopt;
      if (one && (!best || one->step < best->step)) best = std::move(one);
    }
    return best;
  }

  /// With the recompute that its chunks need.
  [[nodiscard]] std::optional<Simulated> simulate_folded(const Candidate& folded) const {
    if (!plan::has_chunks(folded.schedule)) return simulate_one(folded);
    const auto fitting = refit_chunks(space_, folded);
    return fitting ? simulate_one(*fitting) : std::nullopt;
  }

  void keep(Simulated one) {
    best_ = std::min(best_, one.step);
    simulated_.push_back(std::move(one));
  }

  void refine() {
    if (simulated_.empty()) return;
    std::stable_sort(simulated_.begin(), simulated_.end());
    if (!space_.chunked_schedules.empty()) add_chunks();
    if (simulated_.empty()) return;
    const std::vector<Simulated> starts = pick_diverse(simulated_, 2);
    for (const Simulated& start : starts) {
      climb(space_, start.candidate, start.step, effort_.climb_simulations,
            [&](const Candidate& candidate) -> std::optional<Cost> {
              std::optional<Simulated> one = stopped() ? std::nullopt : simulate_folded(candidate);
              if (!one) return std::nullopt;
              const Cost step = one->step;
              keep(std::move(*one));
              return step;
            });
    }
  }

  /// Everything that may still be better.
  void prove_best() {
    const std::vector<Combination> combinations = make_combinations(space_);
    const auto simulate = [&](const Candidate& candidate) -> std::optional<Cost> {
      std::optional<Simulated> one = stopped() ? std::nullopt : simulate_one(candidate);
      if (!one) return std::nullopt;
      const Cost step = one->step;
      if (step < best_) keep(std::move(*one));
      return step;
    };
    // Narrower searches, of which there are many, look at fewer candidates and prove less.
    const std::int64_t most = request_.max_candidates / 10;
    const ProofLimits limits{std::min(effort_.proof.labels, most), std::min(effort_.proof.actions, most)};
    const bool cpus = may_gain_from_waiting(space_);
    if (cpus) {
      ProofLimits only_find = limits;
      only_find.only_find = true;
      (void)prove(space_, combinations, best_, only_find, simulate);
    }
    const Proof proof = prove(space_, combinations, best_, limits, simulate);
    // On CPUs the best step itself may rise a little where a link gets faster (C19); C22 never does.
    lower_bound_ = cpus ? std::min(lower_bound_, proof.lower_bound) : proof.lower_bound;
  }

  /// The best pipelines once more with several chunks a stage; in small spaces with a block moved as well.
  void add_chunks() {
    constexpr std::size_t kMaxPipelines = 3;
    constexpr int kMaxMoved = 1;
    std::vector<Candidate> tried;
    std::size_t pipelines = 0;
    for (const Simulated& one : simulated_) {
      const auto stages = static_cast<int>(one.candidate.stages.size());
      if (stages < 2 || one.candidate.spread || one.candidate.num_chunks > 1) continue;
      if (pipelines++ == kMaxPipelines) break;
      for (const plan::ScheduleKind kind : space_.chunked_schedules) {
        for (const int chunks : plan::chunk_choices(kind, stages, space_.spans->num_blocks(), kMaxChunks)) {
          // Up the V the first stage is the last one too: it has work of both ends.
          for (int moved = 0; moved <= (kind == plan::ScheduleKind::ZeroBubbleV ? kMaxMoved : 0); ++moved) {
            auto candidate = with_chunks(one.candidate, kind, chunks, moved);
            if (!candidate) continue;
            if (!space_.large) {
              for (Candidate& next : neighbours(space_, *candidate)) tried.push_back(std::move(next));
            }
            tried.push_back(std::move(*candidate));
          }
        }
      }
    }
    std::vector<std::optional<Simulated>> results(tried.size());
    parallel_for(tried.size(), request_, [&](std::size_t i) { results[i] = simulate_folded(tried[i]); });
    for (auto& result : results) {
      if (result) keep(std::move(*result));
    }
    if (space_.only_chunked)
      std::erase_if(simulated_, [](const Simulated& one) { return !plan::has_chunks(one.candidate.schedule); });
    // C38 holds for chunks too.
    if (!space_.large) lower_bound_ = std::min(lower_bound_, work_of_space(space_));
    std::stable_sort(simulated_.begin(), simulated_.end());
  }

  const SearchSpace& space_;
  SearchSpace alike_;  // the same, of stages of alike shapes
  const Request& request_;
  const Effort& effort_;
  Cost best_ = kNoCost;  // simulated
  Cost lower_bound_ = kNoCost;
  std::int64_t costed_ = 0;
  PipelineProblem::Misfit misfit_;
  std::vector<Candidate> waiting_;
  std::vector<Simulated> simulated_;
  std::set<Shape> shapes_;
};

const Effort& effort_of(const SearchSpace& space) {
  // Up to so many blocks and devices everything that may be best is simulated.
  constexpr int kFewBlocks = 8;
  constexpr std::int32_t kFewDevices = 6;
  if (space.large) return kLargeEffort;
  if (space.request->rough) return kRoughEffort;
  return space.spans->num_blocks() <= kFewBlocks && space.devices.total() <= kFewDevices ? kSmallEffort : kMediumEffort;
}

}  // namespace

Error search_stopped() { return {ErrorCode::Cancelled, "the search was stopped", "", "", "", ""}; }

Result<PlanResult> search_once(const Request& request) {
  COX_TRY(SearchSpace space, make_search_space(request));
  COX_TRY(auto rule, recompute_rule(request));
  const SpanCosts spans(*request.cost, request.precision, rule.first, rule.second,
                        request.capabilities.selective_recompute);
  space.spans = &spans;
  Search search(space, effort_of(space));
  search.run();
  if (request.stop.stop_requested()) return search_stopped();
  return report_search(space, search.take_outcome());
}

}  // namespace coxswain::planner
