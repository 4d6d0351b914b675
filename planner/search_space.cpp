// From a request to what the search may choose from.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <set>

#include "planner/device_limits.h"
#include "planner/search.h"

namespace coxswain::planner {
namespace {

/// Up to so many devices every mixture of counts is searched for every stage.
constexpr std::int32_t kMaxFreeDevices = 16;
constexpr std::int64_t kMaxFreeCompositions = 400;

Error invalid(std::string message, std::string path, std::string expected, std::string got, std::string hint = "") {
  return Error{ErrorCode::InvalidArgument, std::move(message), std::move(path),
               std::move(expected),        std::move(got),     std::move(hint)};
}

Error contradiction(std::vector<Error> problems) {
  const ErrorCode code = problems.front().code;
  return combine_errors(code, "the plan's constraints cannot be met", std::move(problems));
}

std::vector<std::int64_t> divisors(std::int64_t n) {
  std::vector<std::int64_t> result;
  for (std::int64_t d = 1; d <= n; ++d) {
    if (n % d == 0) result.push_back(d);
  }
  return result;
}

std::string join(const std::vector<std::int64_t>& numbers) {
  std::string text;
  for (const std::int64_t n : numbers) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return text;
}

/// Axes that this version cannot use must stay at one.
void check_axes(const Request& request, std::vector<Error>& problems) {
  const Constraints& constraints = request.constraints;
  const auto within = [&](const std::vector<int>& values, const char* key, int least, int most) {
    for (const int value : values) {
      if (least <= value && value <= most) continue;
      problems.push_back(
          Error{ErrorCode::Unimplemented, std::string("this version cannot do what ") + key + " asks for",
                std::string("plan.") + key,
                least == most ? std::to_string(least) : std::to_string(least) + " to " + std::to_string(most),
                std::to_string(value), "leave the key out"});
      return;
    }
  };
  within(constraints.tensor, "tensor", 1, request.capabilities.max_tensor);
  within(constraints.context, "context", 1, 1);
  within(constraints.expert, "expert", 1, 1);
  within(constraints.zero, "zero", 0, request.capabilities.max_zero_stage);
  if (constraints.offload && *constraints.offload != "none") {
    problems.push_back(Error{ErrorCode::Unimplemented, "this version cannot offload", "plan.offload", "none",
                             *constraints.offload, "leave the key out"});
  }
}

std::vector<std::int64_t> allowed_micros(const Request& request, std::int64_t devices, std::vector<Error>& problems) {
  const Constraints& constraints = request.constraints;
  const std::int64_t fixed = request.cost->facts().static_batch();
  std::vector<std::int64_t> micros = divisors(request.global_batch);
  if (constraints.samples) {
    const std::int64_t sum = std::accumulate(constraints.samples->begin(), constraints.samples->end(), std::int64_t{0});
    if (request.global_batch % sum != 0) {
      problems.push_back(invalid("samples do not divide the global batch", "plan.samples",
                                 "a sum that divides " + std::to_string(request.global_batch), std::to_string(sum)));
    }
    if (!constraints.micro.empty() &&
        std::find(constraints.micro.begin(), constraints.micro.end(), sum) == constraints.micro.end()) {
      problems.push_back(invalid("samples do not add up to the micro-batch", "plan.samples",
                                 "a sum of " + join(constraints.micro), std::to_string(sum)));
    }
    return {sum};
  }
  if (!constraints.micro.empty()) {
    for (const std::int64_t micro : constraints.micro) {
      if (micro < 1 || request.global_batch % micro != 0) {
        problems.push_back(invalid("the micro-batch does not divide the global batch", "plan.micro",
                                   "a divisor of " + std::to_string(request.global_batch) + " (" + join(micros) + ")",
                                   std::to_string(micro)));
      }
    }
    micros = constraints.micro;
    std::sort(micros.begin(), micros.end());
    micros.erase(std::unique(micros.begin(), micros.end()), micros.end());
  }
  if (fixed > 0) {
    std::erase_if(micros, [&](std::int64_t micro) { return micro % fixed != 0 || micro / fixed > devices; });
    if (micros.empty() && problems.empty()) {
      problems.push_back(invalid(
          "the model's static batch does not fit the micro-batches", "plan.micro",
          "a multiple of " + std::to_string(fixed) + " that divides " + std::to_string(request.global_batch),
          constraints.micro.empty() ? "none" : join(constraints.micro), "export the model with a dynamic batch"));
    }
  }
  return micros;
}

/// First blocks of the later stages. Errors: form and range.
Result<std::vector<int>> parse_cuts(const std::string& text, int num_blocks) {
  const std::string expected =
      "even, or ascending block numbers from 1 to " + std::to_string(num_blocks - 1) + " in brackets";
  const auto json = parse_json(text);
  if (!json || !json->is_array()) return invalid("cuts cannot be read", "plan.cuts", expected, text);
  std::vector<int> cuts;
  for (const Json& entry : json->array()) {
    if (!entry.is_integer() || entry.integer() < 1 || entry.integer() >= num_blocks ||
        (!cuts.empty() && entry.integer() <= cuts.back()))
      return invalid("cuts cannot be read", "plan.cuts", expected, text);
    cuts.push_back(static_cast<int>(entry.integer()));
  }
  return cuts;
}

std::vector<int> even_cuts(int num_blocks, int stages) {
  std::vector<int> cuts;
  for (int s = 1; s < stages; ++s) cuts.push_back((s * num_blocks + stages / 2) / stages);
  return cuts;
}

/// At least one degree that the user names must fit the heads and a node.
std::optional<Error> check_tensor(const Request& request, const std::vector<Pool>& pools) {
  const std::vector<int>& wanted = request.constraints.tensor;
  if (wanted.empty()) return std::nullopt;
  std::int64_t widest = 1;
  for (const Pool& pool : pools) widest = std::max(widest, pool.per_node);
  std::vector<std::int64_t> possible;
  for (int degree = 1; degree <= std::min<std::int64_t>(widest, request.capabilities.max_tensor); ++degree) {
    if (request.cost->facts().splits_over(degree)) possible.push_back(degree);
  }
  for (const int degree : wanted) {
    if (std::find(possible.begin(), possible.end(), degree) != possible.end()) return std::nullopt;
  }
  return invalid("the tensor-parallel degree does not divide the attention heads, or no node holds so many devices",
                 "plan.tensor", "one of " + join(possible), std::to_string(wanted.front()),
                 "use one of these, or leave the key out and let the planner choose");
}

/// Whether every mixture of devices can be tried for every stage.
void set_size(SearchSpace& space) {
  std::int64_t mixtures = 1;
  for (const Pool& pool : space.pools) mixtures *= static_cast<std::int64_t>(pool.devices.size()) + 1;
  space.large = space.devices.total() > kMaxFreeDevices || mixtures > kMaxFreeCompositions;
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
    while (p < pools.size() && counts.of[p] == static_cast<std::int32_t>(pools[p].devices.size())) counts.of[p++] = 0;
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
    const auto size = static_cast<std::int32_t>(pool.devices.size());
    for (std::int32_t n = 1; n <= size; n *= 2) menu.insert(n);
    for (std::int32_t stages = 1; stages <= std::min<std::int32_t>(size, space.max_stages); ++stages)
      menu.insert(size / stages);
  }
  return {menu.begin(), menu.end()};
}

/// Least over most time of one replica when a micro-batch is shared out over `replicas` of a class: C24's k.
double evenness(const SearchSpace& space, int device_class, std::int64_t micro, std::int64_t replicas) {
  const SampleTable& most = space.spans->table(device_class, (micro + replicas - 1) / replicas);
  const SampleTable& least = space.spans->table(device_class, micro / replicas);
  double k = 1.0;
  for (std::size_t b = 0; b < most.forward.size(); ++b) {
    const Ticks busiest = most.forward[b] + most.backward[b];
    if (busiest > 0)
      k = std::min(k, static_cast<double>(least.forward[b] + least.backward[b]) / static_cast<double>(busiest));
  }
  return k;
}

/// C24, for stages of `replicas` equal devices each. With every t_s the time of a micro-batch on the busiest replica of
/// stage s, and k t_s at most that on the least busy one: the first micro-batch reaches stage s after the forward
/// passes before it and its gradient goes back the same way, so m t_s <= T - k (t_0 + ... + t_(s-1)); over all stages
/// k sum(t) <= T (1 - (1 - k/m)^S).
Cost fill_bound(const SearchSpace& space, const Combination& one, std::int64_t replicas) {
  const int device_class = space.pools.front().device_class;
  const SampleTable& most = space.spans->table(device_class, (one.micro + replicas - 1) / replicas);
  const double k = evenness(space, device_class, one.micro, replicas);
  const Cost all = most.forward_sum.back() + most.backward_sum.back();
  const double filled = 1.0 - std::pow(1.0 - k / static_cast<double>(one.count), one.max_stages);
  return std::max(one.count * (all / one.max_stages),
                  static_cast<Cost>(k * static_cast<double>(all) / filled * (1 - 1e-9)));
}

/// The fastest devices that stages of `one` can stand on.
Counts usable_devices(const SearchSpace& space, const PipelineProblem& problem, const Combination& one) {
  std::int64_t most = 0;
  for (const Counts& counts : one.compositions) most = std::max<std::int64_t>(most, counts.total());
  std::vector<std::size_t> order(space.pools.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return problem.speed_of(space.pools[a].device_class) > problem.speed_of(space.pools[b].device_class);
  });
  std::int64_t left = most * one.max_stages;
  Counts usable;
  for (const std::size_t p : order) {
    usable.of[p] = static_cast<std::int32_t>(std::min<std::int64_t>(left, space.devices.of[p]));
    left -= usable.of[p];
  }
  return usable;
}

/// C27: C24 for stages of one class each. The fastest stages first, each after the other.
Cost ramp_bound(const SearchSpace& space, const PipelineProblem& problem, const Combination& one) {
  struct Kind {
    double speed;  // of a whole stage
    std::int64_t stages;
  };
  std::vector<Kind> kinds;
  double k = 1.0;
  for (std::size_t p = 0; p < space.pools.size(); ++p) {
    std::int32_t replicas = 0;
    for (const Counts& counts : one.compositions) {
      // A stage of several classes is the only one.
      if (counts.of[p] > 0 && counts.of[p] != counts.total()) return 0;
      replicas = std::max(replicas, counts.of[p]);
      if (counts.of[p] > 0) k = std::min(k, evenness(space, space.pools[p].device_class, one.micro, counts.of[p]));
    }
    if (replicas == 0) continue;
    kinds.push_back(
        {replicas * problem.speed_of(space.pools[p].device_class), (space.devices.of[p] + replicas - 1) / replicas});
  }
  std::sort(kinds.begin(), kinds.end(), [](const Kind& a, const Kind& b) { return a.speed > b.speed; });
  const double fade = 1.0 - k / static_cast<double>(one.count);
  double speed = 0, share = 1;
  std::int64_t left = one.max_stages;
  for (const Kind& kind : kinds) {
    for (std::int64_t stage = 0; stage < kind.stages && left > 0; ++stage, --left, share *= fade)
      speed += kind.speed * share;
  }
  return problem.time_of_work(speed);
}

/// C23 on the devices that a combination can use, C24 where all stages are alike.
void set_bounds(const SearchSpace& space, std::vector<Combination>& combinations) {
  struct OfMicro {
    StageCosts costs;
    PipelineProblem problem;
    OfMicro(StageContext context, const PipelineShape& shape)
        : costs(std::move(context)), problem(costs, shape, kNoCost) {}
  };
  std::map<std::int64_t, std::unique_ptr<OfMicro>> of_micro;
  const int num_blocks = space.spans->num_blocks();
  for (Combination& one : combinations) {
    std::unique_ptr<OfMicro>& entry = of_micro[one.micro];
    if (!entry) {
      StageContext context{space.spans, &space.pools, one.micro, one.count,        kBucketBytes, {}, false,
                           1,           {},           2,         space.zero_stages};
      entry = std::make_unique<OfMicro>(std::move(context),
                                        PipelineShape{one.schedule, 1, 1, {}, false, false, space.devices});
    }
    one.bound = entry->problem.work_bound(num_blocks, usable_devices(space, entry->problem, one));
    if (space.large && space.spans->cost().facts().static_batch() == 0)
      one.bound = std::max(one.bound, ramp_bound(space, entry->problem, one));
    if (space.large && space.pools.size() == 1 && space.spans->cost().facts().static_batch() == 0)
      one.bound = std::max(one.bound, fill_bound(space, one, one.compositions.front().total()));
  }
}

}  // namespace

Result<std::pair<RecomputeRule, std::vector<char>>> recompute_rule(const Request& request) {
  const auto& text = request.constraints.recompute;
  const auto num_blocks = static_cast<std::size_t>(request.cost->facts().num_blocks());
  if (!text) return std::pair{RecomputeRule::Free, std::vector<char>{}};
  if (*text == "none") return std::pair{RecomputeRule::None, std::vector<char>{}};
  if (*text == "full") return std::pair{RecomputeRule::Full, std::vector<char>{}};
  const std::string expected =
      "none, full, or block numbers from 0 to " + std::to_string(num_blocks - 1) + " in brackets";
  std::vector<char> listed(num_blocks, 0);
  const auto json = parse_json(*text);
  if (!json || !json->is_array()) return invalid("recompute cannot be read", "plan.recompute", expected, *text);
  for (const Json& entry : json->array()) {
    if (!entry.is_integer() || entry.integer() < 0 || entry.integer() >= static_cast<std::int64_t>(num_blocks))
      return invalid("recompute cannot be read", "plan.recompute", expected, *text);
    listed[static_cast<std::size_t>(entry.integer())] = 1;
  }
  return std::pair{RecomputeRule::Listed, listed};
}

Result<SearchSpace> make_search_space(const Request& request) {
  SearchSpace space;
  space.request = &request;
  const Constraints& constraints = request.constraints;
  COX_TRY(space.pools, make_pools(request.cost->resources()));
  limit_pools(space.pools, request.device_limits);
  space.devices = all_of(space.pools);
  const std::int32_t devices = space.devices.total();
  const int num_blocks = request.cost->facts().num_blocks();

  std::vector<Error> problems;
  if (request.global_batch < 1)
    problems.push_back(invalid("the global batch must be positive", "batch.global", "at least 1",
                               std::to_string(request.global_batch)));
  check_axes(request, problems);
  if (!problems.empty()) return contradiction(std::move(problems));
  space.micros = allowed_micros(request, devices, problems);
  space.zero_stages = constraints.zero;
  for (int zero = 0; zero <= request.capabilities.max_zero_stage && constraints.zero.empty(); ++zero)
    space.zero_stages.push_back(zero);
  std::sort(space.zero_stages.begin(), space.zero_stages.end());

  space.schedules = constraints.schedule;
  // On many devices memory decides, and GPipe never holds less than 1F1B.
  if (space.schedules.empty() && devices > kMaxFreeDevices) {
    space.schedules = {plan::ScheduleKind::OneForwardOneBackward};
  } else if (space.schedules.empty()) {
    space.schedules = {plan::ScheduleKind::OneForwardOneBackward, plan::ScheduleKind::GPipe};
  }
  for (const plan::ScheduleKind schedule : space.schedules) {
    if (schedule == plan::ScheduleKind::GPipe || schedule == plan::ScheduleKind::OneForwardOneBackward) continue;
    problems.push_back(Error{ErrorCode::Unimplemented, "this version cannot do the schedule", "plan.schedule",
                             "gpipe, 1f1b", std::string(plan::to_text(schedule)), ""});
  }

  space.max_stages = static_cast<int>(std::min<std::int64_t>(devices, num_blocks));
  if (constraints.pipeline.empty()) {
    for (int s = 1; s <= space.max_stages; ++s) space.allowed_stages.push_back(s);
  } else {
    for (const int s : constraints.pipeline) {
      if (s < 1 || s > space.max_stages) {
        problems.push_back(invalid("the pipeline cannot have so many stages", "plan.pipeline",
                                   "1 to " + std::to_string(space.max_stages) + " (" + std::to_string(devices) +
                                       " devices, " + std::to_string(num_blocks) + " blocks)",
                                   std::to_string(s)));
      }
    }
    space.allowed_stages = constraints.pipeline;
    std::sort(space.allowed_stages.begin(), space.allowed_stages.end());
  }
  for (const int n : constraints.data) {
    if (n < 1 || n > devices)
      problems.push_back(
          invalid("there are not so many devices", "plan.data", "1 to " + std::to_string(devices), std::to_string(n)));
  }
  if (constraints.samples && !constraints.data.empty() &&
      std::find(constraints.data.begin(), constraints.data.end(), static_cast<int>(constraints.samples->size())) ==
          constraints.data.end()) {
    problems.push_back(invalid("samples and data differ in the number of replicas", "plan.samples",
                               std::to_string(constraints.data.front()) + " numbers",
                               std::to_string(constraints.samples->size())));
  }
  if (!constraints.data.empty() && !space.allowed_stages.empty() && problems.empty()) {
    const int least =
        *std::min_element(constraints.data.begin(), constraints.data.end()) * space.allowed_stages.front();
    if (least > devices)
      problems.push_back(invalid("there are not so many devices", "plan",
                                 "data x pipeline of at most " + std::to_string(devices), std::to_string(least)));
  }
  if (constraints.cuts && *constraints.cuts != "even") {
    const auto cuts = parse_cuts(*constraints.cuts, num_blocks);
    if (!cuts)
      problems.push_back(cuts.error());
    else if (!constraints.pipeline.empty() &&
             std::find(space.allowed_stages.begin(), space.allowed_stages.end(), static_cast<int>(cuts->size()) + 1) ==
                 space.allowed_stages.end()) {
      problems.push_back(invalid("cuts and pipeline differ in the number of stages", "plan.cuts",
                                 std::to_string(space.allowed_stages.front() - 1) + " cuts",
                                 std::to_string(cuts->size())));
    } else if (static_cast<int>(cuts->size()) + 1 > space.max_stages) {
      problems.push_back(invalid("the pipeline cannot have so many stages", "plan.cuts",
                                 "at most " + std::to_string(space.max_stages - 1) + " cuts",
                                 std::to_string(cuts->size())));
    }
  }
  if (!problems.empty()) return contradiction(std::move(problems));

  if (const auto problem = check_tensor(request, space.pools)) return *problem;
  set_size(space);
  return space;
}

std::vector<int> tensor_of(const Candidate& candidate) {
  return candidate.space == nullptr ? std::vector<int>{} : candidate.space->tensor;
}

std::vector<std::vector<int>> tensor_choices(const Request& request, const SearchSpace& space) {
  const std::size_t num_classes = request.cost->resources().device_classes.size();
  const std::vector<int>& wanted = request.constraints.tensor;
  // By class: what its nodes hold, the model's heads divide by, and the user allows.
  std::vector<std::vector<int>> degrees(num_classes);
  for (std::size_t c = 0; c < num_classes; ++c) {
    std::int64_t widest = 1;
    for (const Pool& pool : space.pools) {
      if (pool.device_class == static_cast<int>(c)) widest = std::max(widest, pool.per_node);
    }
    for (int degree = 1; degree <= std::min<std::int64_t>(widest, request.capabilities.max_tensor); degree *= 2) {
      const bool asked = wanted.empty() || std::find(wanted.begin(), wanted.end(), degree) != wanted.end();
      if (asked && request.cost->facts().splits_over(degree)) degrees[c].push_back(degree);
    }
    for (const int degree : wanted) {
      const bool power = (degree & (degree - 1)) == 0;
      if (!power && degree <= widest && request.cost->facts().splits_over(degree)) degrees[c].push_back(degree);
    }
    if (degrees[c].empty()) degrees[c].push_back(wanted.empty() ? 1 : wanted.front());
  }
  std::vector<std::vector<int>> choices{{}};
  for (const std::vector<int>& of_class : degrees) {
    std::vector<std::vector<int>> longer;
    for (const std::vector<int>& choice : choices) {
      for (const int degree : of_class) {
        longer.push_back(choice);
        longer.back().push_back(degree);
      }
    }
    choices = std::move(longer);
  }
  return choices;
}

std::optional<SearchSpace> with_tensor(const SearchSpace& space, const std::vector<int>& tensor) {
  SearchSpace result = space;
  result.pools = make_units(space.pools, tensor);
  result.tensor = tensor;
  result.devices = all_of(result.pools);
  if (result.devices.total() == 0) return std::nullopt;
  result.max_stages = std::min<int>(space.max_stages, result.devices.total());
  std::erase_if(result.allowed_stages, [&](int stages) { return stages > result.max_stages; });
  if (result.allowed_stages.empty()) return std::nullopt;
  set_size(result);
  return result;
}

std::vector<Combination> make_combinations(const SearchSpace& space) {
  const Request& request = *space.request;
  const Constraints& constraints = request.constraints;
  const int num_blocks = request.cost->facts().num_blocks();
  std::vector<int> totals = constraints.data;
  if (constraints.samples) totals = {static_cast<int>(constraints.samples->size())};
  // Operators that mix samples give the same result only while a micro-batch stays on one device.
  if (!request.cost->model().coupled.empty()) totals = {1};

  // What stages may stand on: everything at once, or, on many devices, one number of replicas at a time.
  struct Family {
    std::vector<Counts> compositions;
    std::int32_t replicas = 0;  // 0: various
  };
  std::vector<Family> families;
  if (!space.large) {
    families.push_back({all_compositions(space.pools, totals), 0});
  } else {
    for (const std::int32_t n : replica_menu(space)) {
      if (!totals.empty() && std::find(totals.begin(), totals.end(), n) == totals.end()) continue;
      Family family{{}, n};
      for (std::size_t p = 0; p < space.pools.size(); ++p) {
        // A pool of another class may take another number of replicas for the same samples.
        for (const std::int32_t replicas : {n / 2, n, 2 * n}) {
          if (replicas < 1 || replicas > space.devices.of[p] ||
              (replicas != n && (space.pools.size() == 1 || !totals.empty())))
            continue;
          Counts counts;
          counts.of[p] = replicas;
          family.compositions.push_back(counts);
        }
      }
      if (!family.compositions.empty()) families.push_back(std::move(family));
    }
    if (space.pools.size() > 1 && same_tensor(space.pools, space.devices) &&
        (totals.empty() || std::find(totals.begin(), totals.end(), space.devices.total()) != totals.end()))
      families.push_back({{space.devices}, space.devices.total()});
  }

  std::vector<Combination> result;
  for (const std::int64_t micro : space.micros) {
    for (const Family& family : families) {
      if (family.replicas > micro) continue;
      for (const plan::ScheduleKind schedule : space.schedules) {
        Combination base;
        base.micro = micro;
        base.count = request.global_batch / micro;
        base.schedule = schedule;
        base.compositions = family.compositions;
        const int most = family.replicas > 0
                             ? std::min<int>(space.max_stages, std::max(1, space.devices.total() / family.replicas))
                             : space.max_stages;
        const auto add = [&](int least_stages, int most_stages, bool spread) {
          Combination one = base;
          one.min_stages = least_stages;
          one.max_stages = most_stages;
          one.spread = spread;
          if (constraints.cuts) {
            one.fixed_cuts = true;
            one.cuts = *constraints.cuts == "even" ? even_cuts(num_blocks, most_stages)
                                                   : *parse_cuts(*constraints.cuts, num_blocks);
            if (static_cast<int>(one.cuts.size()) + 1 < least_stages ||
                static_cast<int>(one.cuts.size()) + 1 > most_stages)
              return;
          }
          result.push_back(std::move(one));
        };
        // One stage has one schedule; it is called 1F1B unless the user says otherwise.
        const bool first_schedule = schedule == space.schedules.front();
        const bool contiguous = static_cast<int>(space.allowed_stages.size()) == space.max_stages && !constraints.cuts;
        if (contiguous) {
          if (first_schedule) add(1, 1, false);
          if (most > 1) add(2, most, false);
        } else {
          for (const int stages : space.allowed_stages) {
            if (stages > most || (stages == 1 && !first_schedule)) continue;
            add(stages, stages, false);
          }
        }
        // Pipelines that run inside nodes, with their replicas across nodes.
        if (space.large && space.pools.size() == 1 && !space.pools.front().one_node &&
            space.pools.front().per_node > 1) {
          for (const int stages : space.allowed_stages) {
            if (stages > 1 && stages <= most && family.replicas > 1 && space.pools.front().per_node % stages == 0)
              add(stages, stages, true);
          }
        }
      }
    }
  }

  set_bounds(space, result);
  std::stable_sort(result.begin(), result.end(),
                   [](const Combination& a, const Combination& b) { return a.bound < b.bound; });
  return result;
}

}  // namespace coxswain::planner
