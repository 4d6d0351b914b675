#include "planner/given_order.h"

#include <algorithm>
#include <limits>

#include "plan/program.h"
#include "planner/search.h"

namespace coxswain::planner {
namespace {

using plan::CsvSchedule;
using plan::ScheduleKind;

/// Whose devices and cuts suit the order.
ScheduleKind nearest_kind(const CsvSchedule& order) {
  if (order.num_stages == 1) return ScheduleKind::OneForwardOneBackward;
  if (!plan::is_custom(order.kind)) return order.kind;
  if (order.kind == ScheduleKind::CustomV) return ScheduleKind::ZeroBubbleV;
  if (order.num_chunks > 1) return ScheduleKind::Interleaved;
  const auto is_split = [](const plan::Action& action) { return action.kind == plan::ActionKind::BackwardInput; };
  const bool splits = std::any_of(order.stages.begin(), order.stages.end(),
                                  [&](const auto& stage) { return std::any_of(stage.begin(), stage.end(), is_split); });
  return splits ? ScheduleKind::ZeroBubbleH1 : ScheduleKind::OneForwardOneBackward;
}

template <class T>
bool allows(const std::vector<T>& pinned, T value) {
  return pinned.empty() || std::find(pinned.begin(), pinned.end(), value) != pinned.end();
}

Result<void> check(const Request& request, const CsvSchedule& order) {
  std::vector<Error> problems;
  const auto problem = [&](std::string message, std::string path, std::string expected, std::string got,
                           std::string hint) {
    problems.push_back({ErrorCode::InvalidArgument, std::move(message), std::move(path), std::move(expected),
                        std::move(got), std::move(hint)});
  };
  const Constraints& pinned = request.constraints;
  const int parts = order.num_stages * order.num_chunks, blocks = request.cost->model().num_blocks();
  const std::string stages = std::to_string(order.num_stages), count = std::to_string(order.num_micro_batches);
  if (request.global_batch % order.num_micro_batches != 0)
    problem("the schedule's micro-batches do not divide the global batch", "batch.global", "a multiple of " + count,
            std::to_string(request.global_batch), "change batch.global, or write the schedule for another number");
  else if (!allows(pinned.micro, request.global_batch / order.num_micro_batches))
    problem(
        "the schedule has another number of micro-batches", "micro",
        std::to_string(request.global_batch / order.num_micro_batches) + " samples, for " + count + " micro-batches",
        "another micro-batch", "leave batch.micro to the schedule");
  if (!allows(pinned.pipeline, order.num_stages))
    problem("the schedule has another number of stages", "pipeline", stages, "another number",
            "leave `pipeline` to the schedule");
  if (parts > blocks)
    problem("the schedule has more parts than the model has blocks", "schedule", "at most " + std::to_string(blocks),
            std::to_string(parts), "write the schedule for fewer stages");
  if (pinned.cuts && order.num_chunks > 1)
    problem("cuts say nothing of chunks", "cuts", "no cuts beside a schedule with several parts a stage", *pinned.cuts,
            "leave the cuts to the planner");
  if (problems.empty()) return {};
  return combine_errors(ErrorCode::InvalidArgument, "the schedule does not fit the job", std::move(problems));
}

/// Runs of blocks, one a part, whose longest takes least; each part takes the time of its own stage's first replica.
std::vector<plan::BlockRun> cut_into_parts(const Request& request, const plan::Plan& plan, const CsvSchedule& order) {
  const int blocks = request.cost->model().num_blocks(), parts = order.num_stages * order.num_chunks;
  std::vector<std::vector<double>> before(plan.stages.size());  // by stage: seconds of the blocks before
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const plan::Replica& replica = plan.stages[s].replicas.front();
    before[s].assign(1, 0.0);
    for (int b = 0; b < blocks; ++b) {
      const cost_model::BlockTime time =
          request.cost->estimate_block({b, replica.devices.front().device_class, replica.samples, request.precision,
                                        replica.tensor, replica.context, replica.expert});
      before[s].push_back(before[s].back() + time.forward.value + time.backward.value);
    }
  }
  constexpr double kNever = std::numeric_limits<double>::infinity();
  std::vector<std::vector<double>> longest(parts + 1, std::vector<double>(blocks + 1, kNever));
  std::vector<std::vector<int>> start(parts + 1, std::vector<int>(blocks + 1, 0));
  longest[0][0] = 0;
  std::vector<int> operators{0};  // of the blocks before each
  for (const model::Block& block : request.cost->model().blocks)
    operators.push_back(operators.back() + block.end_op - block.first_op);
  for (int part = 0; part < parts; ++part) {
    const auto& seconds = before[plan::place_of_part(order.kind, part, order.num_stages).stage];
    for (int end = part + 1; end <= blocks; ++end) {
      for (int first = part; first < end; ++first) {
        if (operators[end] == operators[first]) continue;  // V11
        const double here = std::max(longest[part][first], seconds[end] - seconds[first]);
        if (here < longest[part + 1][end]) {
          longest[part + 1][end] = here;
          start[part + 1][end] = first;
        }
      }
    }
  }
  std::vector<plan::BlockRun> runs(parts);
  for (int part = parts, end = blocks; part > 0; end = start[part][end], --part)
    runs[part - 1] = {start[part][end], end};
  return runs;
}

void set_parts(plan::Plan& plan, const std::vector<plan::BlockRun>& runs, const CsvSchedule& order) {
  std::vector<plan::Recompute> recompute;  // by block
  for (std::size_t part = 0; part < runs.size(); ++part)
    for (int b = runs[part].first_block; b < runs[part].end_block; ++b)
      for (const plan::Stage& stage : plan.stages)
        if (const int position = plan::position_of(stage, b); position >= 0)
          recompute.push_back(stage.recompute[position]);
  for (plan::Stage& stage : plan.stages) {
    stage.chunks.clear();
    stage.recompute.clear();
  }
  for (std::size_t part = 0; part < runs.size(); ++part) {
    const auto place = plan::place_of_part(order.kind, static_cast<int>(part), order.num_stages);
    plan::Stage& stage = plan.stages[place.stage];
    if (place.chunk == 0) {
      stage.first_block = runs[part].first_block;
      stage.end_block = runs[part].end_block;
    } else {
      stage.chunks.push_back(runs[part]);
    }
    stage.recompute.insert(stage.recompute.end(), recompute.begin() + runs[part].first_block,
                           recompute.begin() + runs[part].end_block);
  }
}

Result<void> check_memory(const plan::Estimate& estimate) {
  std::vector<Error> problems;
  for (const auto& device : estimate.devices) {
    if (device.parts.total() <= device.capacity) continue;
    problems.push_back({ErrorCode::ResourceExhausted, "the plan needs more memory than " + device.device + " has",
                        "roles[" + std::to_string(device.role) + "]",
                        "at most " + std::to_string(device.capacity.value) + " bytes",
                        std::to_string(device.parts.total().value) + " bytes",
                        "a schedule with fewer micro-batches in flight, smaller micro-batches, or recompute=full"});
  }
  if (problems.empty()) return {};
  return combine_errors(ErrorCode::ResourceExhausted, "the schedule's plan does not fit", std::move(problems));
}

}  // namespace

Result<PlanResult> find_with_order(const Request& request, const FindPlan& find) {
  const CsvSchedule& order = *request.constraints.order;
  COX_TRY_VOID(check(request, order));
  Request nearest = request;
  nearest.constraints.order.reset();
  nearest.constraints.schedule = {nearest_kind(order)};
  nearest.constraints.pipeline = {order.num_stages};
  nearest.constraints.micro = {request.global_batch / order.num_micro_batches};
  COX_TRY(PlanResult result, find(nearest));
  plan::Plan& plan = result.plan;
  plan.schedule = order.kind;
  if (plan::num_chunks(plan.stages.front()) != order.num_chunks)
    set_parts(plan, cut_into_parts(request, plan, order), order);
  COX_TRY_VOID(plan::apply_schedule(plan, request.cost->model(), kBucketBytes, order));
  COX_TRY(auto simulation, cost_model::simulate(*request.cost, plan));
  result.estimate = std::move(simulation.estimate);
  COX_TRY_VOID(check_memory(result.estimate));
  // What no order of this plan's work can beat: its busiest device.
  double busiest = 0;
  for (const auto& device : result.estimate.devices) busiest = std::max(busiest, device.busy_fraction);
  result.lower_bound_step = result.estimate.step * busiest;
  result.optimality_gap = busiest > 0 ? 1 / busiest - 1 : 0;
  result.binding_constraint = "the order of computing is given";
  result.lower_bound_cost.reset();
  result.runners_up.clear();
  result.rejected.clear();
  result.sensitivities.clear();
  return result;
}

}  // namespace coxswain::planner
