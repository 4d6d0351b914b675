#include "planner/replan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <tuple>

#include "planner/assignment.h"
#include "planner/outcome.h"
#include "planner/repair.h"

namespace coxswain::planner {
namespace {

/// Plans of the search that are priced, at least: a slower one may be nearer.
constexpr int kMinFound = 16;

struct Option {
  plan::Plan plan;
  plan::Estimate estimate;
  std::string summary;
  MoveEstimate move;
  std::optional<Seconds> effective;
  bool keeps = false, found_best = false;
};

Error invalid(std::string message, std::string path, std::string expected, std::string got, std::string hint = "") {
  return Error{ErrorCode::InvalidArgument, std::move(message), std::move(path),
               std::move(expected),        std::move(got),     std::move(hint)};
}

Result<void> check_running(const Request& request) {
  const RunningPlan& running = *request.running;
  std::vector<Error> problems;
  std::set<plan::DeviceId> used;
  if (!(running.horizon.value > 0) || !std::isfinite(running.horizon.value))
    problems.push_back(invalid("the horizon must be positive", "horizon_seconds", "a number of seconds above 0",
                               std::to_string(running.horizon.value)));
  if (const std::string hash = model::model_hash(request.cost->model()); running.plan.model_hash != hash)
    problems.push_back(invalid("the running plan is for another model", "model_hash", hash, running.plan.model_hash,
                               "name the plan of this job's run"));
  int next = 0;
  for (const plan::Stage& stage : running.plan.stages) {
    const auto blocks = static_cast<std::size_t>(std::max(0, stage.end_block - stage.first_block));
    if (stage.first_block != next || blocks == 0 || stage.recompute.size() != blocks || stage.replicas.empty()) break;
    next = stage.end_block;
  }
  if (next != request.cost->facts().num_blocks() || running.plan.batch.micro < 1)
    problems.push_back(invalid("the running plan does not cover the model", "stages",
                               "all " + std::to_string(request.cost->facts().num_blocks()) + " blocks",
                               std::to_string(next)));
  for (std::size_t s = 0; s < running.plan.stages.size(); ++s) {
    for (const plan::Replica& replica : running.plan.stages[s].replicas) {
      for (const plan::DeviceId device : replica.devices) {
        if (!used.insert(device).second)
          problems.push_back(
              invalid("the running plan uses a device twice", "stages[" + std::to_string(s) + "]", "each device once",
                      "class " + std::to_string(device.device_class) + ", index " + std::to_string(device.index)));
        const bool known = device.device_class >= 0 &&
                           static_cast<std::size_t>(device.device_class) < running.devices.size() &&
                           device.index >= 0 &&
                           static_cast<std::size_t>(device.index) <
                               running.devices[static_cast<std::size_t>(device.device_class)].size();
        if (known) continue;
        problems.push_back(
            invalid("the running plan uses a device that its cluster does not have",
                    "stages[" + std::to_string(s) + "]", "a device of the cluster it was made for",
                    "class " + std::to_string(device.device_class) + ", index " + std::to_string(device.index),
                    "name that cluster"));
      }
      const std::int64_t mesh = static_cast<std::int64_t>(replica.tensor) * replica.context;
      if (replica.devices.empty() || mesh != static_cast<std::int64_t>(replica.devices.size()))
        problems.push_back(invalid("a replica's devices are not those of its mesh", "stages[" + std::to_string(s) + "]",
                                   "tensor x context = " + std::to_string(mesh),
                                   std::to_string(replica.devices.size())));
    }
  }
  if (problems.empty()) return {};
  return combine_errors(ErrorCode::InvalidArgument, "the running plan cannot be used", std::move(problems));
}

class Replanner {
 public:
  explicit Replanner(const Request& request) : request_(request), running_(*request.running) {}

  Result<PlanResult> run(const FindPlan& find) {
    Request without = request_;
    without.running.reset();
    without.top_k = std::max(kMinFound, request_.top_k);
    Result<PlanResult> found = find(without);
    if (found) {
      add_found(found->plan, found->estimate, found->summary);
      if (!options_.empty()) options_.front().found_best = true;
      for (const RunnerUp& runner : found->runners_up) add_found(runner.plan, runner.estimate, runner.summary);
    }
    add_repairs();
    if (options_.empty())
      return found ? Error{ErrorCode::Internal, "no plan to choose from", "", "", "", ""} : found.error();
    std::stable_sort(options_.begin(), options_.end(),
                     [](const Option& a, const Option& b) { return rank(a) < rank(b); });
    return compose(std::move(found));
  }

 private:
  /// Work over the horizon; where no move leaves time for any, the least move; then the step.
  static std::tuple<double, double, double> rank(const Option& option) {
    const double never = std::numeric_limits<double>::infinity();
    return {option.effective ? option.effective->value : never, option.effective ? 0 : option.move.seconds.value,
            option.estimate.step.value};
  }

  void add(Option option) {
    option.effective = effective_step(option.estimate.step, option.move.seconds, running_.horizon);
    options_.push_back(std::move(option));
  }

  void add_found(const plan::Plan& plan, const plan::Estimate& estimate, const std::string& summary) {
    const cost_model::CostModel& cost = *request_.cost;
    Option option{plan, estimate, summary, {}, {}};
    option.move = estimate_move(cost, running_.plan, running_.devices, plan);
    plan::Plan assigned = assign_devices(cost, running_.plan, running_.devices, plan);
    MoveEstimate move = estimate_move(cost, running_.plan, running_.devices, assigned);
    if (move.seconds <= option.move.seconds) {
      option.plan = std::move(assigned);
      option.move = std::move(move);
    }
    option.keeps = is_same_plan(running_.plan, running_.devices, option.plan);
    add(std::move(option));
  }

  void add_repairs() {
    for (RepairedPlan& repaired : repair_plan(request_)) {
      ++repairs_;
      const bool keeps = is_same_plan(running_.plan, running_.devices, repaired.plan);
      auto estimate = simulate(repaired.plan, keeps);
      if (!estimate) {
        // Recompute makes room for the samples of those that are gone.
        for (plan::Stage& stage : repaired.plan.stages)
          std::fill(stage.recompute.begin(), stage.recompute.end(), plan::Recompute::Full);
        if (meets(request_.constraints, repaired.plan)) estimate = simulate(repaired.plan, false);
      }
      if (!estimate) {
        if (misfits_++ == 0) misfit_ = repaired.how;
        continue;
      }
      if (keeps) running_step_ = estimate->step;
      if (request_.tokens_per_sample > 1)
        estimate->tokens_per_second =
            static_cast<double>(request_.global_batch * request_.tokens_per_sample) / estimate->step.value;
      Option option{std::move(repaired.plan), std::move(*estimate), "", {}, {}};
      option.summary = summarize(option.plan) + " (" + repaired.how + ")";
      option.move = estimate_move(*request_.cost, running_.plan, running_.devices, option.plan);
      option.keeps = keeps;
      add(std::move(option));
    }
  }

  /// Nothing where memory is too small; what runs already has shown that it fits.
  [[nodiscard]] std::optional<plan::Estimate> simulate(const plan::Plan& plan, bool runs) const {
    auto simulation = cost_model::simulate(*request_.cost, plan);
    if (!simulation) return std::nullopt;
    const auto fits = [](const plan::DeviceEstimate& device) { return device.parts.total() <= device.capacity; };
    const auto& devices = simulation->estimate.devices;
    if (!runs && !std::all_of(devices.begin(), devices.end(), fits)) return std::nullopt;
    return std::move(simulation->estimate);
  }

  Result<PlanResult> compose(Result<PlanResult> found) {
    const Option& best = options_.front();
    PlanResult result = found ? *found : PlanResult{};
    if (!found) {
      result.rejected.push_back({"search without the running plan", 1, found.error().message});
      result.lower_bound_step = best.estimate.step;
    }
    // A repair may be faster than anything that was searched.
    result.lower_bound_step = std::min(result.lower_bound_step, fastest());
    result.plan = best.plan;
    result.estimate = best.estimate;
    result.summary = best.summary;
    result.optimality_gap =
        found && result.lower_bound_step.value > 0 ? best.estimate.step.value / result.lower_bound_step.value - 1 : 0;
    if (!found || !best.found_best) {
      result.binding_constraint = describe_binding(*request_.cost, result.plan, result.estimate);
    }
    result.candidates_costed += repairs_;
    if (misfits_ > 0) result.rejected.push_back({"repaired plan does not fit into memory", misfits_, misfit_});
    result.runners_up.clear();
    for (std::size_t i = 1; i < options_.size(); ++i) {
      if (static_cast<int>(result.runners_up.size()) + 1 >= std::max(1, request_.top_k)) break;
      const Option& option = options_[i];
      const auto same = [&](const RunnerUp& runner) { return runner.plan == option.plan; };
      if (option.plan == best.plan || std::any_of(result.runners_up.begin(), result.runners_up.end(), same)) continue;
      result.runners_up.push_back({option.plan, option.estimate, option.summary, option.move.seconds});
    }
    result.move = describe(best);
    return result;
  }

  [[nodiscard]] Seconds fastest() const {
    Seconds least = options_.front().estimate.step;
    for (const Option& option : options_) least = std::min(least, option.estimate.step);
    return least;
  }

  [[nodiscard]] Move describe(const Option& best) const {
    Move move{best.move, best.keeps, running_.horizon, best.effective, running_step_};
    if (!running_step_) return move;
    if (!best.keeps) {
      move.pays_after = pays_after(best.estimate.step, best.move.seconds, *running_step_);
      return move;
    }
    for (const Option& option : options_) {
      const auto after = pays_after(option.estimate.step, option.move.seconds, *running_step_);
      if (!after || option.keeps || (move.pays_after && *move.pays_after <= *after)) continue;
      move.pays_after = after;
      move.alternative = option.summary;
    }
    return move;
  }

  const Request& request_;
  const RunningPlan& running_;
  std::vector<Option> options_;
  std::optional<Seconds> running_step_;
  std::int64_t repairs_ = 0, misfits_ = 0;
  std::string misfit_;
};

}  // namespace

// C76
std::optional<Seconds> effective_step(Seconds step, Seconds move, Seconds horizon) {
  if (!(move < horizon)) return std::nullopt;
  return Seconds(step.value * horizon.value / (horizon - move).value);
}

// C77
std::optional<Seconds> pays_after(Seconds step, Seconds move, Seconds running_step) {
  if (!(step < running_step)) return std::nullopt;
  return Seconds(move.value / (1 - step / running_step));
}

Result<PlanResult> replan(const Request& request, const FindPlan& find) {
  COX_TRY_VOID(check_running(request));
  return Replanner(request).run(find);
}

}  // namespace coxswain::planner
