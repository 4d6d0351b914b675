#include "planner/objective.h"

#include <algorithm>
#include <cstdio>
#include <set>
#include <tuple>

#include "cost_model/price.h"
#include "planner/device_limits.h"
#include "planner/search_report.h"
#include "planner/words.h"

namespace coxswain::planner {
namespace {

/// Parts of the cluster that are searched for a price, by its size.
constexpr std::int64_t kSmallCluster = 64;
constexpr std::size_t kManyParts = 32, kFewParts = 8, kRoughParts = 4;
/// Plans that each of these searches hands on.
constexpr int kPlansPerPart = 16;

bool wants_prices(const Request& request) {
  return request.objective == Objective::Cost || request.max_cost_per_step.has_value();
}

bool keeps_limits(const Request& request, const plan::Estimate& estimate) {
  if (request.max_step && estimate.step > *request.max_step) return false;
  return !request.max_cost_per_step ||
         (estimate.cost_per_step && *estimate.cost_per_step <= *request.max_cost_per_step);
}

Error missing_prices(const std::string& classes) {
  return Error{ErrorCode::InvalidArgument,
               "a plan for money needs the price of every device",
               "cluster",
               "price_usd_per_hour of each device class",
               "no price of " + classes,
               "give --price CLASS=USD-PER-HOUR, or write price_usd_per_hour into the cluster file"};
}

struct Found {
  plan::Plan plan;
  plan::Estimate estimate;
  std::string summary;
  std::string binding;
};

Error beyond_limits(const Request& request, const std::vector<Found>& found) {
  const auto faster = [](const Found& a, const Found& b) { return a.estimate.step < b.estimate.step; };
  const auto cheaper = [](const Found& a, const Found& b) {
    return a.estimate.cost_per_step < b.estimate.cost_per_step;
  };
  const Found& fastest = *std::min_element(found.begin(), found.end(), faster);
  const Found& cheapest = *std::min_element(found.begin(), found.end(), cheaper);
  const auto tell = [](const Found& one) {
    return seconds_text(one.estimate.step) +
           (one.estimate.cost_per_step ? " for " + usd_text(*one.estimate.cost_per_step) : "") + " a step (" +
           one.summary + ")";
  };
  std::string expected;
  if (request.max_step) expected = "at most " + seconds_text(*request.max_step) + " a step";
  if (request.max_cost_per_step)
    expected += (expected.empty() ? "at most " : " and at most ") + usd_text(*request.max_cost_per_step) + " a step";
  std::string got = "the fastest: " + tell(fastest), hint;
  if (request.max_step && fastest.estimate.step > *request.max_step)
    hint = "allow " + seconds_text(fastest.estimate.step) + " a step";
  if (request.max_cost_per_step) {
    got += "; the cheapest: " + tell(cheapest);
    if (cheapest.estimate.cost_per_step > request.max_cost_per_step)
      hint += (hint.empty() ? "allow " : ", and ") + usd_text(*cheapest.estimate.cost_per_step) + " a step";
  }
  if (hint.empty()) hint = "loosen one of the two limits: each can be kept alone";
  return Error{ErrorCode::ResourceExhausted, kBeyondLimits, "limits", expected, got, hint};
}

/// The best of `found` under the limits, ascending in the objective; no two of one summary.
std::vector<Found> pick(const Request& request, const std::vector<Found>& found) {
  std::vector<Found> kept;
  for (const Found& one : found) {
    if (keeps_limits(request, one.estimate)) kept.push_back(one);
  }
  const auto key = [&](const Found& one) {
    const double usd = one.estimate.cost_per_step ? one.estimate.cost_per_step->value : 0;
    const double step = one.estimate.step.value;
    return request.objective == Objective::Cost ? std::tuple{usd, step} : std::tuple{step, usd};
  };
  std::stable_sort(kept.begin(), kept.end(), [&](const Found& a, const Found& b) { return key(a) < key(b); });
  std::vector<Found> distinct;
  std::set<std::string> seen;
  for (Found& one : kept) {
    if (distinct.size() > static_cast<std::size_t>(std::max(0, request.top_k))) break;
    if (seen.insert(one.summary).second) distinct.push_back(std::move(one));
  }
  return distinct;
}

void take_all(const PlanResult& from, std::vector<Found>& found) {
  found.push_back({from.plan, from.estimate, from.summary, from.binding_constraint});
  for (const RunnerUp& runner : from.runners_up) found.push_back({runner.plan, runner.estimate, runner.summary, ""});
}

/// The plans of searches on parts of the cluster.
void search_parts(const Request& request, PlanResult& whole, std::vector<Found>& found) {
  const cluster::ResourceGraph& graph = request.cost->resources();
  const std::size_t most = request.rough                                  ? kRoughParts
                           : cluster::num_devices(graph) <= kSmallCluster ? kManyParts
                                                                          : kFewParts;
  for (const auto& limits : limit_choices(graph, most)) {
    Request part = request;
    part.device_limits = limits;
    part.top_k = kPlansPerPart;
    if (const auto result = search_once(part)) {
      whole.candidates_costed += result->candidates_costed;
      take_all(*result, found);
    }
  }
}

}  // namespace

std::string usd_text(cluster::Usd usd) {
  char text[40];
  std::snprintf(text, sizeof text, usd.value >= 1 ? "$%.2f" : "$%.3g", usd.value);
  return text;
}

Result<PlanResult> search_objective(const Request& request) {
  const std::string unpriced = cost_model::unpriced_classes(request.cost->resources());
  if (wants_prices(request) && !unpriced.empty()) return missing_prices(unpriced);
  Request whole = request;
  if (wants_prices(request)) whole.top_k = std::max(request.top_k, kPlansPerPart);
  COX_TRY(PlanResult result, search_once(whole));
  result.objective = request.objective;
  result.lower_bound_cost = cost_model::least_cost_per_step(*request.cost, request.global_batch, request.precision,
                                                            request.capabilities.max_tensor);
  if (!wants_prices(request) && !request.max_step) return result;

  std::vector<Found> found;
  take_all(result, found);
  if (wants_prices(request) && !request.use_all_devices && request.device_limits.empty())
    search_parts(request, result, found);
  const std::vector<Found> picked = pick(request, found);
  if (picked.empty()) return beyond_limits(request, found);
  const Found& best = picked.front();
  if (best.plan != result.plan) {
    result.binding_constraint = describe_binding(*request.cost, best.plan, best.estimate);
    std::erase_if(result.rejected, [](const Rejected& one) { return one.family.empty(); });
  }
  result.plan = best.plan;
  result.estimate = best.estimate;
  result.summary = best.summary;
  result.runners_up.clear();
  for (std::size_t i = 1; i < picked.size(); ++i)
    result.runners_up.push_back({picked[i].plan, picked[i].estimate, picked[i].summary});
  const double bound = result.lower_bound_cost ? result.lower_bound_cost->value : 0;
  if (request.objective == Objective::Cost)
    result.optimality_gap = bound > 0 ? result.estimate.cost_per_step->value / bound - 1 : 0;
  else
    result.optimality_gap = result.estimate.step / result.lower_bound_step - 1;
  return result;
}

}  // namespace coxswain::planner
