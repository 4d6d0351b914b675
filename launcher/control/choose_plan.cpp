#include "launcher/control/choose_plan.h"

#include <algorithm>
#include <cstdio>

#include "cluster/change.h"
#include "common/clock.h"
#include "common/ensure.h"
#include "common/log.h"
#include "launcher/job/job_model.h"
#include "launcher/planning/planning_inputs.h"
#include "plan/program.h"
#include "planner/planner.h"

namespace coxswain::launcher {
namespace {

/// Memory per role against capacity, for a plan that was given and not searched.
std::vector<Error> memory_problems(const plan::Estimate& estimate) {
  std::vector<Error> problems;
  for (const auto& device : estimate.devices) {
    if (device.parts.total() <= device.capacity) continue;
    problems.push_back(Error{ErrorCode::ResourceExhausted, "the plan needs more memory than " + device.device + " has",
                             "roles[" + std::to_string(device.role) + "]",
                             "at most " + std::to_string(device.capacity.value) + " bytes",
                             std::to_string(device.parts.total().value) + " bytes",
                             "more stages, smaller micro-batches, or recompute=full"});
  }
  return problems;
}

Result<cost_model::Simulation> take_given_plan(PlanChoice& choice, const std::string& file,
                                               const PlanningInputs& inputs) {
  COX_TRY(choice.plan, load_plan(file));
  const std::string model_hash = model::model_hash(inputs.model->graph),
                    cluster_hash = cluster::cluster_hash(inputs.resources);
  if (choice.plan.model_hash != model_hash) {
    return Error{ErrorCode::InvalidArgument, "the plan is for another model",
                 file + "  model_hash",      model_hash,
                 choice.plan.model_hash,     "make one for this job: launch plan " + inputs.job.file.string()};
  }
  if (choice.plan.cluster_hash != cluster_hash) {
    return Error{ErrorCode::InvalidArgument, "the plan is for another cluster",
                 file + "  cluster_hash",    cluster_hash,
                 choice.plan.cluster_hash,   "give the --devices that it was made for, or let the planner choose"};
  }
  if (choice.plan.batch.global != inputs.job.global_batch) {
    return Error{ErrorCode::InvalidArgument,
                 "the plan is for another batch",
                 file + "  batch.global",
                 std::to_string(inputs.job.global_batch),
                 std::to_string(choice.plan.batch.global),
                 "change batch.global of the job, or the plan"};
  }
  if (choice.plan.precision != inputs.job.precision) {
    return Error{ErrorCode::InvalidArgument,
                 "the plan is for another precision",
                 file + "  precision",
                 std::string(plan::to_text(inputs.job.precision)),
                 std::string(plan::to_text(choice.plan.precision)),
                 ""};
  }
  if (auto problems = plan::validate(choice.plan, inputs.model->graph, inputs.resources); !problems.empty()) {
    return with_path_prefix(combine_errors(ErrorCode::InvalidArgument, "the plan cannot run", std::move(problems)),
                            file);
  }
  COX_TRY(auto simulation, cost_model::simulate(*inputs.cost, choice.plan));
  choice.estimate = simulation.estimate;
  if (auto problems = memory_problems(choice.estimate); !problems.empty()) {
    return with_path_prefix(combine_errors(ErrorCode::ResourceExhausted, "the plan does not fit", std::move(problems)),
                            file);
  }
  choice.plan_file = JsonObject{{"plan", plan::to_json(choice.plan)}, {"estimate", plan::to_json(choice.estimate)}};
  return simulation;
}

}  // namespace

namespace {

/// What a version that ran everything it can plan would do better; searched where a search is quick.
void tell_what_is_left_out(planner::Request request, const planner::PlanResult& found) {
  constexpr double kQuickSeconds = 0.5, kWorthTelling = 0.02;
  if (found.search_seconds > kQuickSeconds) return;
  const plan::Capabilities request_searched = request.capabilities;
  request.capabilities = plan::kPlannable;
  const auto wider = planner::find_plan(request);
  if (!wider || wider->estimate.step.value > found.estimate.step.value * (1 - kWorthTelling)) return;
  const auto join = [](const std::vector<std::string>& list) {
    std::string words;
    for (const std::string& word : list) words += (words.empty() ? "" : " and ") + word;
    return words;
  };
  const std::string not_run = join(plan::list_beyond(wider->plan, plan::kRunnable));
  const std::string why = not_run.empty() ? "which is searched where plan or --constrain asks for it: " +
                                                join(plan::list_beyond(wider->plan, request_searched))
                                          : "since this version does not run " + not_run;
  char percent[16];
  std::snprintf(percent, sizeof percent, "%.0f", 100 * (1 - wider->estimate.step.value / found.estimate.step.value));
  log(LogLevel::Info, "plan", "left out, " + why + ": " + wider->summary + ", a step " + percent + " % shorter");
}

double last_end(const cost_model::Simulation& simulation) {
  double last = 0;
  for (const cost_model::SimulatedAction& one : simulation.actions) last = std::max(last, one.end);
  return last;
}

double longest_compute_action(const plan::Plan& plan, const cost_model::Simulation& simulation) {
  double longest = 0;
  for (const cost_model::SimulatedAction& one : simulation.actions) {
    const plan::Action& action =
        plan.roles[static_cast<std::size_t>(one.role)].actions[static_cast<std::size_t>(one.action)];
    if (plan::is_compute(action.kind)) longest = std::max(longest, one.end - one.start);
  }
  return longest;
}

/// The same simulation that the estimate is from, action by action.
Result<cost_model::TraceBasis> prepare_trace(const TraceSteps& steps, const PlanChoice& choice,
                                             cost_model::Simulation simulation, const PlanningInputs& inputs,
                                             const Measurements& measurements) {
  COX_TRY_VOID(check_trace_size(choice.plan, steps));
  cost_model::TraceBasis basis;
  basis.plan = choice.plan;
  basis.predicted = std::move(simulation);
  basis.groups = plan::make_groups(choice.plan, inputs.model->graph);
  for (const RankBinding& binding : choice.chosen.ranks)
    basis.nodes.push_back(measurements.nodes[static_cast<std::size_t>(binding.node)].name);
  return basis;
}

}  // namespace

namespace {

/// The devices as measured (or as files say) and all else that planning takes.
struct Prepared {
  MeasuredCluster cluster;
  PlanningInputs inputs;
};

Result<Prepared> prepare(const CoordinatorStart& start, const Job& job, const Measurements& measurements,
                         const std::optional<MeasuredBefore>& before) {
  Prepared prepared;
  COX_TRY(prepared.cluster, build_cluster(measurements));
  const bool plan_given = !start.plan_file.empty() || !job.plan_file.empty();
  if (before && plan_given) COX_TRY_VOID(take_measured_before(*before, prepared.cluster));
  if (before) prepared.cluster.profile = before->profile;
  PlanningInputs& inputs = prepared.inputs;
  inputs.job = job;
  COX_TRY(inputs.job.constraints, merge_constraints(job.constraints, start.constraints));
  COX_TRY(inputs.model, know_job_model(job));
  const std::filesystem::path cluster_file = start.cluster_file.empty() ? job.cluster_file : start.cluster_file;
  if (!cluster_file.empty()) {
    COX_TRY(auto described, load_cluster(cluster_file.string()));
    if (cluster::cluster_hash(described) != cluster::cluster_hash(prepared.cluster.resources)) {
      return Error{ErrorCode::InvalidArgument,
                   "the cluster file describes other devices than there are",
                   cluster_file.string(),
                   cluster::cluster_hash(prepared.cluster.resources),
                   cluster::cluster_hash(described),
                   "launch probe --out " + cluster_file.string() + ", or cluster: auto"};
    }
    prepared.cluster.resources = std::move(described);
  }
  if (auto problems = cluster::validate(prepared.cluster.resources); !problems.empty()) {
    return combine_errors(ErrorCode::Internal, "the measured cluster is not valid", std::move(problems));
  }
  inputs.resources = prepared.cluster.resources;
  if (!prepared.cluster.profile.blocks.empty()) inputs.profile = prepared.cluster.profile;
  return prepared;
}

/// Searches, and takes what was found. The simulation is that of the plan, action by action.
Result<cost_model::Simulation> search(PlanChoice& choice, const PlanningInputs& inputs, planner::Request request,
                                      bool tells_what_is_left_out) {
  const TimePoint began = steady_clock().now();
  COX_TRY(planner::PlanResult result, planner::find_plan(request));
  result.search_seconds = std::chrono::duration<double>(steady_clock().now() - began).count();
  if (tells_what_is_left_out) tell_what_is_left_out(request, result);
  choice.plan = result.plan;
  choice.estimate = result.estimate;
  choice.search_seconds = result.search_seconds;
  choice.move = result.move;
  choice.plan_file = planner::to_json(result);
  return cost_model::simulate(*inputs.cost, choice.plan);
}

planner::Request request_for(const PlanningInputs& inputs, const std::string& backend) {
  planner::Request request = inputs.make_request();
  request.constraints.backend = backend;
  request.capabilities = planner::searched_capabilities(request.constraints);
  return request;
}

/// What every rank is told. `bind`: a device of the plan's cluster to its place in this run.
template <class Bind>
void make_chosen(PlanChoice& choice, const cost_model::Simulation& simulation, const Job& job, Bind bind) {
  choice.chosen.longest_action_seconds = longest_compute_action(choice.plan, simulation);
  choice.chosen.step_seconds = last_end(simulation);
  choice.summary = planner::summarize(choice.plan);
  choice.chosen.plan_json = to_text(plan::to_json(choice.plan));
  choice.chosen.steps = job.steps;
  for (int rank = 0; rank < plan::num_ranks(choice.plan); ++rank)
    choice.chosen.ranks.push_back(bind(plan::device_of(choice.plan, rank)));
}

/// `all` without the nodes of this run in `lost`, and with the `slower` devices that are left.
Result<cluster::ChangedCluster> changed(const MeasuredCluster& all, const std::vector<int>& lost,
                                        const std::vector<cluster::ClusterChange::Slower>& slower) {
  cluster::ClusterChange change;
  const auto is_lost = [&](std::int64_t node) {
    return std::find(lost.begin(), lost.end(), all.run_node[static_cast<std::size_t>(node)]) != lost.end();
  };
  const auto& classes = all.resources.device_classes;
  for (const cluster::ClusterChange::Slower& device : slower) {
    const auto of = std::find_if(classes.begin(), classes.end(), [&](const auto& c) { return c.name == device.name; });
    const cluster::DeviceId id{static_cast<int>(of - classes.begin()), device.first};
    if (!is_lost(cluster::locate(all.resources, id).node)) change.slower.push_back(device);
  }
  for (std::size_t node = 0; node < all.run_node.size(); ++node) {
    const auto number = static_cast<std::int64_t>(node);
    if (!is_lost(number)) continue;
    change.lost.push_back({"node", number, number});
  }
  return cluster::apply_change(all.resources, change);
}

/// From the cluster after one change to the one after another, by way of the cluster before both.
cluster::DeviceMap between(const cluster::ChangedCluster& from, const cluster::ChangedCluster& to) {
  cluster::DeviceMap map(from.graph.device_classes.size());
  for (std::size_t c = 0; c < from.devices.size(); ++c) {
    for (std::size_t i = 0; i < from.devices[c].size(); ++i) {
      if (!from.devices[c][i]) continue;
      auto& of_class = map[static_cast<std::size_t>(from.devices[c][i]->device_class)];
      const auto index = static_cast<std::size_t>(from.devices[c][i]->index);
      of_class.resize(std::max(of_class.size(), index + 1));
      of_class[index] = to.devices[c][i];
    }
  }
  return map;
}

/// The cluster with what is known of it, and what of it is left.
struct KnownCluster {
  MeasuredCluster all;
  cluster::ChangedCluster left;
};
Result<KnownCluster> known_cluster(const MeasuredCluster& measured, const std::vector<RankBinding>& all_devices,
                                   const Corrections& known, const std::vector<int>& lost) {
  KnownCluster made{measured, {}};
  const auto slower = correct(made.all, all_devices, known);
  COX_TRY(made.left, changed(made.all, lost, slower));
  if (!made.all.profile.blocks.empty()) cluster::add_slowed(made.all.profile, made.left);
  return made;
}

void plan_on(PlanningInputs& inputs, const KnownCluster& known) {
  inputs.resources = known.left.graph;
  if (!known.all.profile.blocks.empty()) inputs.profile = known.all.profile;
  inputs.price();
}

/// No plan that the user gave is left for another, and steps of plans too large to be traced are not told.
bool is_looked_at(const CoordinatorStart& start, const Job& job, const plan::Plan& plan) {
  constexpr TraceSteps kOneLook{1, 4};
  const bool given = !start.plan_file.empty() || !job.plan_file.empty();
  return !given && check_trace_size(plan, kOneLook).has_value();
}

/// Links that take their latency, however much they carry.
cluster::ResourceGraph without_bandwidth(cluster::ResourceGraph graph) {
  const auto widen = [](cluster::LinkClass& link) { link.bandwidth.value = link.bandwidth.value * 1e6; };
  for (cluster::NodeClass& node : graph.node_classes) widen(node.link);
  for (cluster::NetworkTier& tier : graph.tiers) widen(tier.link);
  for (cluster::NodeGroup& group : graph.nodes) {
    for (cluster::NetworkTier& tier : group.tiers) widen(tier.link);
  }
  for (cluster::LinkOverride& link : graph.link_overrides) widen(link.link);
  return graph;
}

}  // namespace

Result<PlanChoice> choose_plan(const CoordinatorStart& start, const Job& job, const Measurements& measurements,
                               const std::string& backend, const std::optional<MeasuredBefore>& before) {
  PlanChoice choice;
  COX_TRY(Prepared prepared, prepare(start, job, measurements, before));
  PlanningInputs& inputs = prepared.inputs;
  inputs.price();
  const std::filesystem::path plan_file = start.plan_file.empty() ? job.plan_file : start.plan_file;
  cost_model::Simulation simulation;
  if (!plan_file.empty()) {
    COX_TRY(simulation, take_given_plan(choice, plan_file.string(), inputs));
    choice.plan.backend = backend;
  } else {
    COX_TRY(simulation, search(choice, inputs, request_for(inputs, backend), true));
  }
  make_chosen(choice, simulation, job,
              [&](plan::DeviceId device) { return bind_device(prepared.cluster, measurements.ranks, device); });
  choice.chosen.known_nodes = static_cast<int>(measurements.nodes.size());
  choice.chosen.looked_at = is_looked_at(start, job, choice.plan);
  choice.cluster = std::move(prepared.cluster);
  if (start.trace_steps.any()) {
    COX_TRY(choice.trace, prepare_trace(start.trace_steps, choice, std::move(simulation), inputs, measurements));
  }
  return choice;
}

Result<PlanChoice> plan_again(const CoordinatorStart& start, const Job& job, const Measurements& measurements,
                              const std::optional<MeasuredBefore>& before, const LostNodes& lost) {
  PlanChoice choice;
  COX_TRY(Prepared prepared, prepare(start, job, measurements, before));
  PlanningInputs& inputs = prepared.inputs;
  COX_TRY(const KnownCluster then, known_cluster(prepared.cluster, measurements.ranks, lost.known_then, lost.then));
  COX_TRY(KnownCluster now, known_cluster(prepared.cluster, measurements.ranks, lost.known_now, lost.now));
  plan_on(inputs, now);
  COX_TRY(const Json running, parse_json(lost.running_plan));
  planner::RunningPlan from;
  COX_TRY(from.plan, plan::plan_from_json(running));
  from.devices = between(then.left, now.left);
  from.horizon = lost.horizon;
  planner::Request request = request_for(inputs, from.plan.backend);
  request.running = std::move(from);
  COX_TRY(const auto simulation, search(choice, inputs, std::move(request), false));
  make_chosen(choice, simulation, job, [&](plan::DeviceId device) {
    for (std::size_t c = 0; c < now.left.devices.size(); ++c) {
      const auto& of_class = now.left.devices[c];
      const auto found = std::find(of_class.begin(), of_class.end(), std::optional(device));
      if (found == of_class.end()) continue;
      return bind_device(now.all, measurements.ranks, {static_cast<int>(c), found - of_class.begin()});
    }
    COX_ENSURE(false, "no such device", device.device_class, device.index);
    return RankBinding{};
  });
  choice.chosen.without = lost.now;
  choice.chosen.known_nodes = static_cast<int>(measurements.nodes.size());
  choice.chosen.looked_at = is_looked_at(start, job, choice.plan);
  choice.cluster = std::move(now.all);
  choice.cluster.resources = std::move(now.left.graph);
  return choice;
}

Result<LookedRun> predict_running(const CoordinatorStart& start, const Job& job, const Measurements& measurements,
                                  const std::optional<MeasuredBefore>& before, const LostNodes& lost) {
  LookedRun run;
  COX_TRY(Prepared prepared, prepare(start, job, measurements, before));
  PlanningInputs& inputs = prepared.inputs;
  COX_TRY(const KnownCluster then, known_cluster(prepared.cluster, measurements.ranks, lost.known_then, lost.then));
  COX_TRY(const Json running, parse_json(lost.running_plan));
  COX_TRY(run.basis.plan, plan::plan_from_json(running));
  plan_on(inputs, then);
  COX_TRY(run.basis.predicted, cost_model::simulate(*inputs.cost, run.basis.plan));
  inputs.resources = without_bandwidth(then.left.graph);
  inputs.price();
  COX_TRY(run.latencies, cost_model::simulate(*inputs.cost, run.basis.plan));
  run.basis.groups = plan::make_groups(run.basis.plan, inputs.model->graph);
  return run;
}

}  // namespace coxswain::launcher
