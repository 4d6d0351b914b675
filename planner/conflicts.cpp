#include "planner/conflicts.h"

#include <algorithm>
#include <map>

#include "planner/objective.h"
#include "planner/search_report.h"

namespace coxswain::planner {
namespace {

constexpr std::int64_t kTrialCandidates = 50000;

template <class Values, class ToText>
std::string join(const Values& values, ToText to_text) {
  std::string text;
  for (const auto& value : values) text += (text.empty() ? "" : ",") + to_text(value);
  return text;
}

std::string join_numbers(const auto& values) {
  return join(values, [](auto value) { return std::to_string(value); });
}

std::string number_text(double value) { return to_text(Json(value)); }

/// "a", "a and b", "a, b and c".
std::string in_words(const std::vector<UserConstraint>& set) {
  std::string text;
  for (std::size_t i = 0; i < set.size(); ++i)
    text += (i == 0 ? "" : i + 1 == set.size() ? " and " : ", ") + set[i].text;
  return text;
}

/// Feasibility of subsets, each tried once.
class Trials {
 public:
  Trials(const Request& request, std::vector<UserConstraint> all) : request_(request), all_(std::move(all)) {}

  [[nodiscard]] bool feasible(const std::vector<UserConstraint>& kept) {
    const std::string key = in_words(kept);
    const auto known = known_.find(key);
    if (known != known_.end()) return known->second;
    if (num_trials_ == kMostTrials) return true;  // leaves the set as it is
    ++num_trials_;
    Request trial = keep_constraints(request_, kept);
    trial.stop_at_first = !trial.max_step && !trial.max_cost_per_step;
    return known_[key] = search(trial).has_value();
  }

  [[nodiscard]] Result<PlanResult> search(Request trial) const {
    trial.top_k = 1;
    trial.explain_failure = false;
    trial.max_candidates = std::min(trial.max_candidates, kTrialCandidates);
    return search_objective(trial);
  }

  /// Nothing can be left out of the result; where trials allow, no smaller set conflicts.
  [[nodiscard]] std::vector<UserConstraint> smallest_conflict() {
    std::vector<UserConstraint> set = all_;
    for (const UserConstraint& one : all_) {
      const std::vector<UserConstraint> fewer = without(set, one);
      if (!feasible(fewer)) set = fewer;
    }
    if (set.size() > 1) {
      for (const UserConstraint& one : all_) {
        if (!feasible({one})) return {one};
      }
    }
    if (set.size() > 2) {
      for (std::size_t i = 0; i < all_.size(); ++i) {
        for (std::size_t j = i + 1; j < all_.size(); ++j) {
          if (!feasible({all_[i], all_[j]})) return {all_[i], all_[j]};
        }
      }
    }
    return set;
  }

  [[nodiscard]] static std::vector<UserConstraint> without(const std::vector<UserConstraint>& set,
                                                           const UserConstraint& one) {
    std::vector<UserConstraint> fewer;
    std::copy_if(set.begin(), set.end(), std::back_inserter(fewer), [&](const auto& other) { return !(other == one); });
    return fewer;
  }
  [[nodiscard]] const std::vector<UserConstraint>& all() const { return all_; }

 private:
  const Request& request_;
  std::vector<UserConstraint> all_;
  std::map<std::string, bool> known_;
  int num_trials_ = 0;
};

struct Fix {
  Seconds step{0};
  std::string text;
};

/// What to allow instead of each member of the conflict, the fastest first.
std::string nearest_changes(const Request& request, const Trials& trials, const std::vector<UserConstraint>& conflict) {
  std::vector<Fix> fixes;
  for (const UserConstraint& one : conflict) {
    const auto search_with = [&](const std::vector<UserConstraint>& kept) {
      Request trial = keep_constraints(request, kept);
      // The nearest value that a limit could have.
      if (one.key == "max-step-seconds") trial.objective = Objective::Time;
      if (one.key == "max-cost-per-step") trial.objective = Objective::Cost;
      return trials.search(trial);
    };
    auto found = search_with(Trials::without(trials.all(), one));
    std::string others;
    if (!found) {  // something else stands in the way as well
      found = search_with(Trials::without(conflict, one));
      others = " and leave out the other constraints";
    }
    if (!found) continue;
    std::string instead = constraint_of(found->plan, one.key);
    std::string known = seconds_text(found->estimate.step) + " a step: ";
    if (one.key == "max-step-seconds") instead.swap(known);
    if (one.key == "max-cost-per-step" && found->estimate.cost_per_step)
      instead = usd_text(*found->estimate.cost_per_step) + " a step";
    if (instead.empty() || instead == one.text) instead = "any " + one.key;
    fixes.push_back({found->estimate.step, one.key == "max-step-seconds"
                                               ? "allow " + instead + found->summary + others
                                               : "allow " + instead + others + " (" + known + found->summary + ")"});
  }
  std::stable_sort(fixes.begin(), fixes.end(), [](const Fix& a, const Fix& b) { return a.step < b.step; });
  std::string text;
  for (const Fix& fix : fixes) text += (text.empty() ? "" : "; or ") + fix.text;
  return text;
}

}  // namespace

std::vector<UserConstraint> list_constraints(const Request& request) {
  const Constraints& c = request.constraints;
  std::vector<UserConstraint> list;
  const auto add = [&](const std::string& key, const std::string& value) { list.push_back({key, key + "=" + value}); };
  if (!c.data.empty()) add("data", join_numbers(c.data));
  if (!c.tensor.empty()) add("tensor", join_numbers(c.tensor));
  if (!c.pipeline.empty()) add("pipeline", join_numbers(c.pipeline));
  if (!c.context.empty()) add("context", join_numbers(c.context));
  if (!c.expert.empty()) add("expert", join_numbers(c.expert));
  if (!c.zero.empty()) add("zero", join_numbers(c.zero));
  if (!c.micro.empty()) add("micro", join_numbers(c.micro));
  if (c.samples) add("samples", "[" + join_numbers(*c.samples) + "]");
  if (c.recompute) add("recompute", *c.recompute);
  if (!c.schedule.empty())
    add("schedule", join(c.schedule, [](plan::ScheduleKind kind) { return std::string(plan::to_text(kind)); }));
  if (c.offload) add("offload", *c.offload);
  if (c.cuts) add("cuts", *c.cuts);
  if (request.max_step) add("max-step-seconds", number_text(request.max_step->value));
  if (request.max_cost_per_step) add("max-cost-per-step", number_text(request.max_cost_per_step->value));
  return list;
}

Request keep_constraints(const Request& request, const std::vector<UserConstraint>& kept) {
  const auto keeps = [&](const char* key) {
    return std::any_of(kept.begin(), kept.end(), [&](const UserConstraint& one) { return one.key == key; });
  };
  Request result = request;
  Constraints& c = result.constraints;
  if (!keeps("data")) c.data.clear();
  if (!keeps("tensor")) c.tensor.clear();
  if (!keeps("pipeline")) c.pipeline.clear();
  if (!keeps("context")) c.context.clear();
  if (!keeps("expert")) c.expert.clear();
  if (!keeps("zero")) c.zero.clear();
  if (!keeps("micro")) c.micro.clear();
  if (!keeps("samples")) c.samples.reset();
  if (!keeps("recompute")) c.recompute.reset();
  if (!keeps("schedule")) c.schedule.clear();
  if (!keeps("offload")) c.offload.reset();
  if (!keeps("cuts")) c.cuts.reset();
  if (!keeps("max-step-seconds")) result.max_step.reset();
  if (!keeps("max-cost-per-step")) result.max_cost_per_step.reset();
  return result;
}

std::string constraint_of(const plan::Plan& plan, const std::string& key) {
  const auto by_stage = [&](auto value) {
    std::vector<std::int64_t> values;
    for (const plan::Stage& stage : plan.stages) {
      const auto one = static_cast<std::int64_t>(value(stage));
      if (std::find(values.begin(), values.end(), one) == values.end()) values.push_back(one);
    }
    return key + "=" + join_numbers(values);
  };
  if (key == "data") return by_stage([](const plan::Stage& stage) { return stage.replicas.size(); });
  if (key == "tensor") return by_stage([](const plan::Stage& stage) { return stage.replicas.front().tensor; });
  if (key == "context") return by_stage([](const plan::Stage& stage) { return stage.replicas.front().context; });
  if (key == "expert") return by_stage([](const plan::Stage& stage) { return stage.replicas.front().expert; });
  if (key == "zero") return by_stage([](const plan::Stage& stage) { return stage.zero_stage; });
  if (key == "pipeline") return "pipeline=" + std::to_string(plan.stages.size());
  if (key == "micro") return "micro=" + std::to_string(plan.batch.micro);
  if (key == "schedule") return "schedule=" + std::string(plan::to_text(plan.schedule));
  if (key == "offload") return "offload=" + std::string(plan::to_text(plan.stages.front().offload));
  if (key == "samples") {
    std::vector<std::int64_t> samples;
    for (const plan::Replica& replica : plan.stages.front().replicas) samples.push_back(replica.samples);
    return "samples=[" + join_numbers(samples) + "]";
  }
  if (key == "cuts") {
    std::vector<int> cuts;
    for (std::size_t s = 1; s < plan.stages.size(); ++s) cuts.push_back(plan.stages[s].first_block);
    return cuts.empty() ? "pipeline=1" : "cuts=[" + join_numbers(cuts) + "]";
  }
  if (key == "recompute") {
    std::vector<int> blocks;
    int all = 0, selective = 0;
    for (const plan::Stage& stage : plan.stages) {
      for (std::size_t b = 0; b < stage.recompute.size(); ++b, ++all) {
        selective += stage.recompute[b] == plan::Recompute::Selective ? 1 : 0;
        if (stage.recompute[b] == plan::Recompute::Full) blocks.push_back(stage.first_block + static_cast<int>(b));
      }
    }
    if (selective == all) return "recompute=selective";
    if (selective > 0)
      return "selective recompute of " + std::to_string(selective) + " of " + std::to_string(all) + " blocks";
    if (blocks.empty()) return "recompute=none";
    if (static_cast<int>(blocks.size()) == all) return "recompute=full";
    constexpr std::size_t kMost = 8;
    if (blocks.size() > kMost)
      return "recompute of " + std::to_string(blocks.size()) + " of " + std::to_string(all) + " blocks";
    return "recompute=[" + join_numbers(blocks) + "]";
  }
  return "";
}

Error explain_conflict(const Request& request, const Error& error) {
  const bool of_memory_or_limits = error.code == ErrorCode::ResourceExhausted;
  if (!of_memory_or_limits && error.message != kNothingMeets) return error;
  Trials trials(request, list_constraints(request));
  if (trials.all().empty()) return error;
  if (!trials.feasible({})) {
    const auto bare = trials.search(keep_constraints(request, {}));
    if (bare) return error;
    Error told = bare.error();
    told.message += ", with or without the constraints";
    return told;
  }
  const std::vector<UserConstraint> conflict = trials.smallest_conflict();
  const auto alone = trials.search(keep_constraints(request, conflict));
  Error told = alone ? error : alone.error();
  const std::string words = in_words(conflict);
  const bool of_limits = told.message == kBeyondLimits;
  const bool of_memory = !of_limits && told.code == ErrorCode::ResourceExhausted;
  if (of_memory) {
    const std::size_t colon = told.message.find(": ");
    const std::string missing = colon == std::string::npos ? told.message : told.message.substr(colon + 2);
    told.message = words + (conflict.size() > 1 ? " do not fit together: " : " does not fit: ") + missing;
  } else if (of_limits) {
    told.message = words + (conflict.size() > 1 ? " cannot be kept together" : " cannot be kept");
  } else {
    told.message = words + (conflict.size() > 1 ? " cannot be met together" : " cannot be met");
  }
  const std::string changes = nearest_changes(request, trials, conflict);
  if (!changes.empty()) told.hint = changes;
  return told;
}

}  // namespace coxswain::planner
