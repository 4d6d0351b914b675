// The search from outside: combinations in batches, best first; simulation of what looks best; refinement.
#include <algorithm>
#include <atomic>
#include <memory>
#include <set>
#include <thread>
#include <tuple>

#include "planner/planner.h"
#include "planner/refine.h"
#include "planner/search.h"
#include "planner/search_report.h"

namespace coxswain::planner {
namespace {

/// Fixed, so that pruning does not depend on the number of threads.
constexpr std::size_t kBatch = 8;

/// Effort, by size of the cluster.
struct Effort {
  int alternatives, simulations, climb_simulations;
  std::size_t results_per_combination, simulated_per_batch;
  double slack;  // candidates that cost up to so many times the best are kept, for the runners-up
};
constexpr Effort kSmallEffort{2, 48, 96, 8, 4, 1.5};
constexpr Effort kRoughEffort{1, 8, 24, 4, 2, 1.0};
constexpr Effort kLargeEffort{1, 8, 8, 2, 2, 1.0};

/// Runs `body(i)` for i in [0, count) on up to `threads` threads; bodies write by index.
template <class Body>
void parallel_for(std::size_t count, int threads, Body body) {
  if (threads <= 1 || count <= 1) {
    for (std::size_t i = 0; i < count; ++i) body(i);
    return;
  }
  std::atomic<std::size_t> next{0};
  std::vector<std::jthread> pool;
  for (int t = 0; t < std::min<int>(threads, static_cast<int>(count)); ++t) {
    pool.emplace_back([&] {
      for (std::size_t i = next++; i < count; i = next++) body(i);
    });
  }
}

class Search {
 public:
  /// `spaces`: one a choice of tensor degrees; they differ in nothing else.
  Search(const std::vector<SearchSpace>& spaces, const Effort& effort)
      : spaces_(spaces), request_(*spaces.front().request), effort_(effort) {}

  void run() {
    const std::vector<Task> combinations = make_tasks();
    std::size_t done = 0;
    while (done < combinations.size() && costed_ < request_.max_candidates) {
      if (combinations[done].combination.bound >= wanted()) break;
      const std::size_t end = std::min(combinations.size(), done + kBatch);
      std::vector<CombinationResult> results(end - done);
      const Cost upper = wanted();
      SearchLimits limits;
      limits.alternatives = effort_.alternatives;
      limits.max_results = effort_.results_per_combination;
      limits.max_labels = std::max<std::int64_t>(1, request_.max_candidates);
      parallel_for(results.size(), request_.threads, [&](std::size_t i) {
        const Task& task = combinations[done + i];
        results[i] = search_combination(*task.space, task.combination, upper, limits);
      });
      for (CombinationResult& result : results) take(std::move(result));
      simulate_best(effort_.simulated_per_batch);
      done = end;
      if (request_.stop_at_first && !simulated_.empty()) break;
    }
    for (std::size_t i = done; i < combinations.size(); ++i)
      lower_bound_ = std::min(lower_bound_, combinations[i].combination.bound);
    // On many devices stages of unequal size were not searched: only the relaxed optimum bounds them.
    for (const Task& task : combinations) {
      if (task.space->large) lower_bound_ = std::min(lower_bound_, task.combination.bound);
    }
    if (!request_.stop_at_first || simulated_.empty()) {
      simulate_best(static_cast<std::size_t>(effort_.simulations));
      refine();
    }
    std::stable_sort(simulated_.begin(), simulated_.end());
  }

  [[nodiscard]] SearchOutcome take_outcome() {
    const Cost bound = simulated_.empty() ? lower_bound_ : std::min(lower_bound_, simulated_.front().step);
    return {std::move(simulated_), std::move(waiting_), bound, misfit_, costed_};
  }

 private:
  struct Task {
    const SearchSpace* space = nullptr;
    Combination combination;
  };
  /// Of all spaces, ascending in bound.
  [[nodiscard]] std::vector<Task> make_tasks() const {
    std::vector<Task> tasks;
    for (const SearchSpace& space : spaces_) {
      for (Combination& combination : make_combinations(space)) tasks.push_back({&space, std::move(combination)});
    }
    std::stable_sort(tasks.begin(), tasks.end(),
                     [](const Task& a, const Task& b) { return a.combination.bound < b.combination.bound; });
    return tasks;
  }

  [[nodiscard]] Cost wanted() const {
    return best_ == kNoCost ? kNoCost : static_cast<Cost>(static_cast<double>(best_) * effort_.slack);
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
      if (waiting_[i].bound < best_ || (new_shape && waiting_[i].bound < wanted())) chosen.push_back(i);
    }
    std::vector<std::optional<Simulated>> results(chosen.size());
    parallel_for(chosen.size(), request_.threads,
                 [&](std::size_t i) { results[i] = simulate_one(waiting_[chosen[i]]); });
    for (auto& result : results) {
      if (result) keep(std::move(*result));
    }
    for (auto i = chosen.rbegin(); i != chosen.rend(); ++i)
      waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(*i));
  }

  using Shape = std::tuple<std::vector<int>, std::int64_t, std::vector<int>>;
  static Shape shape_of(const Candidate& candidate) {
    std::vector<int> totals;
    for (const CandidateStage& stage : candidate.stages) totals.push_back(stage.counts.total());
    return {totals, candidate.micro, tensor_of(candidate)};
  }

  [[nodiscard]] std::optional<Simulated> simulate_one(const Candidate& candidate) const {
    Simulated one{candidate, place_candidate(*candidate.space, candidate), {}, 0};
    auto simulation = cost_model::simulate(*request_.cost, one.plan);
    if (!simulation) return std::nullopt;
    one.estimate = std::move(simulation->estimate);
    one.step = cost_model::to_ticks(one.estimate.step);
    for (const plan::DeviceEstimate& device : one.estimate.devices) {
      if (device.parts.total() > device.capacity) return std::nullopt;
    }
    return one;
  }

  void keep(Simulated one) {
    best_ = std::min(best_, one.step);
    simulated_.push_back(std::move(one));
  }

  void refine() {
    if (simulated_.empty()) return;
    std::stable_sort(simulated_.begin(), simulated_.end());
    const std::vector<Simulated> starts = pick_diverse(simulated_, 2);
    for (const Simulated& start : starts) {
      climb(*start.candidate.space, start.candidate, start.step, effort_.climb_simulations,
            [&](const Candidate& candidate) -> std::optional<Cost> {
              std::optional<Simulated> one = simulate_one(candidate);
              if (!one) return std::nullopt;
              const Cost step = one->step;
              keep(std::move(*one));
              return step;
            });
    }
  }

  const std::vector<SearchSpace>& spaces_;
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

/// `space` for every choice of tensor degrees; `spans` owns their costs.
std::vector<SearchSpace> make_spaces(const Request& request, const SearchSpace& space,
                                     const std::pair<RecomputeRule, std::vector<char>>& rule,
                                     std::vector<std::unique_ptr<SpanCosts>>& spans) {
  std::vector<SearchSpace> spaces;
  for (const std::vector<int>& tensor : tensor_choices(request, space)) {
    std::optional<SearchSpace> one = with_tensor(space, tensor);
    if (!one) continue;
    TensorAxes axes{tensor, std::vector<std::vector<plan::DeviceId>>(tensor.size())};
    for (const Pool& pool : one->pools) {
      if (!pool.devices.empty()) axes.devices[static_cast<std::size_t>(pool.device_class)] = devices_of_unit(pool, 0);
    }
    spans.push_back(
        std::make_unique<SpanCosts>(*request.cost, request.precision, rule.first, rule.second, std::move(axes)));
    one->spans = spans.back().get();
    spaces.push_back(std::move(*one));
  }
  return spaces;
}

}  // namespace

Result<PlanResult> search_once(const Request& request) {
  COX_TRY(SearchSpace space, make_search_space(request));
  COX_TRY(auto rule, recompute_rule(request));
  std::vector<std::unique_ptr<SpanCosts>> spans;
  const std::vector<SearchSpace> spaces = make_spaces(request, space, rule, spans);
  if (spaces.empty())
    return Error{ErrorCode::InvalidArgument, kNothingMeets, "plan", "nodes that hold a tensor axis of the kind", "none",
                 "loosen plan.tensor"};
  space.spans = spans.front().get();
  Search search(spaces, space.large ? kLargeEffort : request.rough ? kRoughEffort : kSmallEffort);
  search.run();
  return report_search(space, search.take_outcome());
}

}  // namespace coxswain::planner
