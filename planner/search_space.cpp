// From a request to what the search may choose from.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <set>

#include "plan/schedule.h"
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
  within(constraints.context, "context", 1, request.capabilities.max_context);
  within(constraints.expert, "expert", 1, request.capabilities.max_expert);
  within(constraints.zero, "zero", 0, request.capabilities.max_zero_stage);
  if (constraints.offload && *constraints.offload != "none" && !request.capabilities.offload) {
    problems.push_back(Error{ErrorCode::Unimplemented, "this version cannot offload", "plan.offload", "none",
                             *constraints.offload, "leave the key out"});
  }
  if (constraints.recompute == "selective" && !request.capabilities.selective_recompute) {
    problems.push_back(Error{ErrorCode::Unimplemented, "this version cannot recompute selectively", "plan.recompute",
                             "none, full", "selective", "leave the key out"});
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
  if (!request.cost->model().coupled.empty() && problems.empty()) {
    std::erase_if(micros, [&](std::int64_t micro) { return micro != request.global_batch; });
    if (micros.empty())
      problems.push_back(invalid("the model mixes samples, so a micro-batch is the whole batch", "plan.micro",
                                 std::to_string(request.global_batch), join(constraints.micro)));
  }
  return micros;
}

/// At least one degree that the user names must fit the heads and a node.
std::optional<Error> check_tensor(const Request& request, const std::vector<Pool>& pools) {
  const std::vector<int>& wanted = request.constraints.tensor;
  if (wanted.empty()) return std::nullopt;
  std::int64_t widest = 1;
  for (const Pool& pool : pools) widest = std::max(widest, pool.devices_per_node);
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

/// Sizes of an axis that the user allows, of 1, 2, 4, ... up to `most`.
std::vector<int> axis_sizes(const std::vector<int>& wanted, std::int64_t most) {
  std::set<int> sizes;
  for (int size = 1; size <= most; size *= 2) {
    if (wanted.empty() || std::find(wanted.begin(), wanted.end(), size) != wanted.end()) sizes.insert(size);
  }
  for (const int size : wanted) {
    if (size <= most) sizes.insert(size);
  }
  return {sizes.begin(), sizes.end()};
}

/// By class: what its nodes hold, the model splits over, and the user allows.
std::vector<std::vector<Axes>> allowed_axes(const Request& request, const std::vector<Pool>& pools) {
  const cost_model::ModelFacts& facts = request.cost->facts();
  const plan::Capabilities& capabilities = request.capabilities;
  std::vector<std::vector<Axes>> result;
  for (std::size_t c = 0; c < request.cost->resources().device_classes.size(); ++c) {
    std::int64_t widest = 0;
    for (const Pool& pool : pools) {
      if (pool.device_class == static_cast<int>(c)) widest = std::max(widest, pool.devices_per_node);
    }
    std::vector<Axes> axes;
    for (const int tensor :
         axis_sizes(request.constraints.tensor, std::min<std::int64_t>(widest, capabilities.max_tensor))) {
      if (!facts.splits_over(tensor)) continue;
      for (const int context :
           axis_sizes(request.constraints.context, std::min<std::int64_t>(widest / tensor, capabilities.max_context))) {
        if (context == 1 || facts.context_splits(context)) axes.push_back({tensor, context});
      }
    }
    std::stable_sort(axes.begin(), axes.end(), [](Axes a, Axes b) { return a.size() < b.size(); });
    result.push_back(std::move(axes));
  }
  return result;
}

std::vector<int> allowed_experts(const Request& request) {
  std::vector<int> result;
  for (const int expert : axis_sizes(request.constraints.expert, request.capabilities.max_expert)) {
    if (expert == 1 || request.cost->facts().expert_splits(expert)) result.push_back(expert);
  }
  if (result.empty()) result.push_back(1);
  return result;
}

/// What a stage may choose from: every ZeRO stage with every offload that the user and the capabilities allow.
std::vector<StateChoice> allowed_states(const Request& request) {
  std::vector<int> zero = request.constraints.zero;
  for (int stage = 0; stage <= request.capabilities.max_zero_stage && request.constraints.zero.empty(); ++stage)
    zero.push_back(stage);
  std::sort(zero.begin(), zero.end());
  std::vector<plan::Offload> offloads{plan::Offload::None};
  // To the host goes what an accelerator has no room for; on a CPU both are one memory.
  const auto& classes = request.cost->resources().device_classes;
  const bool accelerators = std::any_of(classes.begin(), classes.end(), [](const cluster::DeviceClass& one) {
    return one.kind != cluster::DeviceKind::Cpu;
  });
  if (request.constraints.offload) {
    offloads = {*plan::parse_offload(*request.constraints.offload)};
  } else if (request.capabilities.offload && accelerators) {
    offloads.insert(offloads.end(), {plan::Offload::Optimizer, plan::Offload::Activations});
  }
  std::vector<StateChoice> states;
  for (const plan::Offload offload : offloads) {
    for (const int stage : zero) states.push_back({stage, offload});
  }
  return states;
}

std::string schedule_texts(const plan::Capabilities& capabilities) {
  using plan::ScheduleKind;
  std::string text;
  for (const ScheduleKind kind : {ScheduleKind::GPipe, ScheduleKind::OneForwardOneBackward, ScheduleKind::Interleaved,
                                  ScheduleKind::ZeroBubbleH1, ScheduleKind::ZeroBubbleH2, ScheduleKind::ZeroBubbleV}) {
    if (plan::has_schedule(capabilities, kind)) text += (text.empty() ? "" : ", ") + std::string(plan::to_text(kind));
  }
  return text;
}

/// Whether every mixture of devices can be tried for every stage.
void set_size(SearchSpace& space) {
  std::int64_t mixtures = 1;
  for (const Pool& pool : space.pools) mixtures *= pool.size() + 1;
  space.large = space.devices.total() > kMaxFreeDevices || mixtures > kMaxFreeCompositions;
}

}  // namespace

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

Result<std::pair<RecomputeRule, std::vector<char>>> recompute_rule(const Request& request) {
  const auto& text = request.constraints.recompute;
  const auto num_blocks = static_cast<std::size_t>(request.cost->facts().num_blocks());
  if (!text) return std::pair{RecomputeRule::Free, std::vector<char>{}};
  if (*text == "none") return std::pair{RecomputeRule::None, std::vector<char>{}};
  if (*text == "full") return std::pair{RecomputeRule::Full, std::vector<char>{}};
  if (*text == "selective") return std::pair{RecomputeRule::Selective, std::vector<char>{}};
  const std::string expected =
      "none, full, selective, or block numbers from 0 to " + std::to_string(num_blocks - 1) + " in brackets";
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
  if (space.pools.empty()) return invalid("no device is left", "devices", "at least one", "none");
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
  space.states = allowed_states(request);
  space.schedules = constraints.schedule;
  // 1F1B first: what stands first names the plans that have no order to choose.
  std::sort(space.schedules.begin(), space.schedules.end(), [](plan::ScheduleKind a, plan::ScheduleKind b) {
    const auto first = plan::ScheduleKind::OneForwardOneBackward;
    return (a == first) != (b == first) ? a == first : a < b;
  });
  // On many devices memory decides, and GPipe never holds less than 1F1B.
  if (space.schedules.empty()) {
    space.schedules = {plan::ScheduleKind::OneForwardOneBackward};
    if (devices <= kMaxFreeDevices) space.schedules.push_back(plan::ScheduleKind::GPipe);
    // H2 gains over H1 only where I is longer than W, for up to twice the memory.
    for (const plan::ScheduleKind kind : {plan::ScheduleKind::ZeroBubbleH1, plan::ScheduleKind::ZeroBubbleH2}) {
      if (kind == plan::ScheduleKind::ZeroBubbleH2 && devices > kMaxFreeDevices) continue;
      if (plan::has_schedule(request.capabilities, kind)) space.schedules.push_back(kind);
    }
  }
  for (const plan::ScheduleKind schedule : space.schedules) {
    if (plan::has_schedule(request.capabilities, schedule)) continue;
    problems.push_back(Error{ErrorCode::Unimplemented, "this version cannot do the schedule", "plan.schedule",
                             schedule_texts(request.capabilities), std::string(plan::to_text(schedule)), ""});
  }

  for (const plan::ScheduleKind kind : space.schedules) {
    if (plan::has_chunks(kind)) space.chunked_schedules.push_back(kind);
  }
  std::erase_if(space.schedules, [](plan::ScheduleKind kind) { return plan::has_chunks(kind); });
  space.only_chunked = space.schedules.empty();
  if (space.only_chunked) space.schedules = {plan::ScheduleKind::OneForwardOneBackward};
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
  space.axes = allowed_axes(request, space.pools);
  space.experts = allowed_experts(request);
  set_size(space);
  // The bounds of small searches are of stages of one run: there chunks are tried where they are asked for.
  if (space.large && constraints.schedule.empty() && !constraints.cuts) {
    for (const plan::ScheduleKind kind : {plan::ScheduleKind::ZeroBubbleV, plan::ScheduleKind::Interleaved}) {
      if (plan::has_schedule(request.capabilities, kind)) space.chunked_schedules.push_back(kind);
    }
  }
  return space;
}

std::vector<int> axes_of(const Candidate& candidate) {
  std::vector<int> result;
  for (const CandidateStage& stage : candidate.stages) {
    for (const Share& share : stage.shares) {
      const Axes axes = stage.composition.axes[share.pool];
      result.insert(result.end(), {axes.tensor, axes.context, stage.composition.expert});
    }
  }
  return result;
}

}  // namespace coxswain::planner
