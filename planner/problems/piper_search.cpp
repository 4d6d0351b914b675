#include "planner/problems/piper_search.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "common/ensure.h"

namespace coxswain::planner {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
/// The largest limit that is below a score, with room for sums of doubles in another order.
constexpr double kBelow = 1 - kPiperTolerance;
/// How well the relaxed programme's optimum is found; also where the next lower plan is asked for instead of a middle.
constexpr double kNear = 1e-5;
constexpr double kSmallestLoad = 1e-12;  // to start from when no node takes time
/// Steps up from the relaxed optimum, until only an unlimited load can tell whether anything fits.
constexpr double kFirstStep = 1e-3, kLastStep = 1e6;
constexpr std::size_t kMaxSets = 50'000;
/// Where there are more, a plan along one topological order is found first and bounds the rest.
constexpr std::size_t kManySets = 1'000;

std::int64_t stashes_of(std::int64_t dp, std::int64_t replicas_behind) { return 1 + (replicas_behind + dp - 1) / dp; }

}  // namespace

PiperProblem::PiperProblem(PiperStages& stages, double limit)
    : stages_(stages),
      limit_(limit),
      num_devices_(stages.instance().devices),
      num_micro_batches_(stages.instance().micro_batches),
      rest_(stages.devices_before(limit)) {}

std::int64_t PiperProblem::find_dp(const State& state, const Label& label, const Option& option) {
  const PiperStages::Candidate& candidate = option.candidate;
  const std::int64_t left = num_devices_ - label.devices - rest_[static_cast<std::size_t>(candidate.lower)];
  const std::int64_t most = std::min(left / stages_.tp(candidate), num_micro_batches_ - label.replicas);
  for (std::int64_t dp = option.dp; dp > 0 && dp <= most; dp = stages_.next_dp(dp)) {
    if (stages_.meets(candidate, state.set, dp, stashes_of(dp, label.replicas), limit_)) return dp;
  }
  return 0;
}

std::optional<std::pair<PiperProblem::State, PiperProblem::Label>> PiperProblem::extend(const State& state,
                                                                                        const Label& label,
                                                                                        const Option& option) {
  const std::int64_t dp = find_dp(state, label, option);
  if (dp == 0) return std::nullopt;
  return std::pair{State{static_cast<std::size_t>(option.candidate.lower)},
                   Label{label.devices + dp * stages_.tp(option.candidate), label.replicas + dp}};
}

std::vector<PiperStage> PiperProblem::make_stages(const std::vector<Option>& path) {
  std::vector<PiperStage> stages;
  auto [state, label] = start();
  for (const Option& option : path) {
    const auto next = extend(state, label, option);
    COX_ENSURE(next.has_value(), state.set);
    const std::int64_t dp = next->second.replicas - label.replicas;
    stages.push_back(stages_.make_stage(option.candidate, state.set, dp, stashes_of(dp, label.replicas)));
    std::tie(state, label) = *next;
  }
  std::reverse(stages.begin(), stages.end());
  return stages;
}

PiperSearch::PiperSearch(const PiperInstance& instance, const PiperSets& sets, double known_score)
    : stages_(instance, sets, known_score), best_score_(known_score) {}

std::optional<PiperSearch::Interval> PiperSearch::relaxed_optimum() const {
  const std::int64_t devices = stages_.instance().devices;
  const auto may_fit = [&](double limit) { return stages_.devices_before(limit).back() <= devices; };
  if (!may_fit(best_score_)) return std::nullopt;
  Interval interval;
  interval.low = stages_.least_load();
  interval.high = std::max(interval.low, kSmallestLoad) * (1 + kNear);
  while (!may_fit(interval.high)) {
    interval.low = interval.high;
    interval.high = std::min(interval.high * 2, best_score_);
  }
  while (interval.high - interval.low > kNear * interval.high) {
    const double middle = (interval.low + interval.high) / 2;
    (may_fit(middle) ? interval.high : interval.low) = middle;
  }
  return interval;
}

bool PiperSearch::find_first(double& low, double limit) {
  const double end = best_score_ * kBelow;
  for (double step = kFirstStep; limit < end && step < kLastStep; step *= 4) {
    if (probe(limit)) return true;
    low = limit;
    limit *= 1 + step;
  }
  return probe(end);
}

void PiperSearch::improve(double low) {
  bool halve = false;
  while (low < best_score_ * kBelow) {
    const bool last = !halve && best_score_ - low < kNear * best_score_;
    const double limit = last ? best_score_ * kBelow : std::min((low + best_score_) / 2, best_score_ * kBelow);
    // A plan right below the best one is the next of many, perhaps: then the interval is halved once more.
    halve = last;
    if (probe(limit)) {
      stages_.drop(best_score_);
    } else {
      low = limit;
    }
  }
}

bool PiperSearch::probe(double limit) {
  PiperProblem problem(stages_, limit);
  if (!problem.hopeful()) return false;
  const auto result = search_labels(problem, {.upper_bound = stages_.instance().devices + 1});
  num_labels_ += result.num_labels;
  if (result.best.empty()) return false;
  std::vector<PiperStage> stages = problem.make_stages(result.best.front().path);
  const Result<double> score = estimate_piper(stages_.instance(), stages);
  COX_ENSURE(score.has_value(), to_text(score.error()));
  if (*score >= best_score_) return false;
  best_score_ = *score;
  best_.stages = std::move(stages);
  best_.score = *score;
  return true;
}

std::optional<PiperPlan> PiperSearch::solve() {
  const auto interval = relaxed_optimum();
  if (!interval) return std::nullopt;
  double low = interval->low;
  if (!find_first(low, interval->high)) return std::nullopt;
  improve(low);
  best_.num_labels = num_labels_;
  return best_;
}

Result<PiperPlan> search_piper(const PiperInstance& instance) {
  const std::optional<PiperSets> sets = PiperSets::all(instance, kMaxSets);
  std::optional<PiperPlan> plan;
  std::int64_t num_labels = 0;
  if (!sets || sets->count() > kManySets) {
    plan = PiperSearch(instance, PiperSets::prefixes(instance), kInfinity).solve();
    if (plan) num_labels = plan->num_labels;
  }
  if (sets) {
    if (auto better = PiperSearch(instance, *sets, plan ? plan->score : kInfinity).solve()) {
      plan = std::move(better);
      plan->num_labels += num_labels;
    }
    if (plan) plan->all_cuts = true;
  }
  if (plan) return *plan;
  return Error{
      ErrorCode::ResourceExhausted,
      "no plan fits",
      "instance.memory_bytes_per_device",
      "room for some stages",
      std::to_string(instance.memory_bytes) + " bytes on each of " + std::to_string(instance.devices) + " devices",
      "give more memory or more devices"};
}

}  // namespace coxswain::planner
