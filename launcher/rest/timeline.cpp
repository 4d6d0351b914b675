#include "launcher/rest/timeline.h"

#include "plan/program.h"
#include "planner/explain.h"

namespace coxswain::launcher {
namespace {

struct Looked {
  PlanRequest request;
  plan::Plan plan;
};

Result<Looked> look(const Json& request, const Json& plan, const ServedFiles& files) {
  Looked looked;
  COX_TRY(looked.request, read_plan_request(request, files));
  COX_TRY(looked.plan, plan::plan_from_json(plan));
  return looked;
}

Json role_json(const plan::Plan& plan, const plan::Estimate& estimate, std::size_t index) {
  const plan::Role& role = plan.roles[index];
  JsonArray ranks;
  std::string device;
  for (const plan::DeviceEstimate& one : estimate.devices) {
    if (one.role != static_cast<int>(index)) continue;
    for (const int rank : one.ranks) ranks.push_back(rank);
    device = one.device;
  }
  JsonArray blocks;
  for (const plan::BlockRun& run : plan::runs_of(plan.stages[static_cast<std::size_t>(role.stage)]))
    blocks.push_back(JsonArray{run.first_block, run.end_block});
  return JsonObject{
      {"stage", role.stage}, {"blocks", std::move(blocks)}, {"ranks", std::move(ranks)}, {"device", device}};
}

/// `name`: one without anything to escape.
void append_member(std::string& out, std::string_view name, const Json& value) {
  out += out.ends_with('{') ? "\"" : ",\"";
  out.append(name).append("\":").append(to_text(value));
}

/// As text at once: a plan for a thousand devices has tens of thousands of actions, and with a tree of them the whole
/// answer takes about twice the time.
void append_action(std::string& out, const plan::Plan& plan, const cost_model::SimulatedAction& at) {
  const plan::Role& role = plan.roles[static_cast<std::size_t>(at.role)];
  const plan::Action& action = role.actions[static_cast<std::size_t>(at.action)];
  out += '{';
  append_member(out, "action", plan::to_text(action));
  append_member(out, "end_seconds", at.end);
  append_member(out, "kind", plan::to_text(action.kind));
  append_member(out, "micro_batch", action.micro_batch);
  append_member(out, "role", at.role);
  append_member(out, "start_seconds", at.start);
  append_member(out, "stream", plan::to_text(plan::stream_of(plan, role.stage, action)));
  append_member(out, "transfer_start_seconds", at.transfer_start);
  out += '}';
}

}  // namespace

Result<std::string> plan_timeline(const Json& request, const Json& plan, const ServedFiles& files) {
  COX_TRY(const Looked looked, look(request, plan, files));
  COX_TRY(const cost_model::Simulation simulation, cost_model::simulate(*looked.request.inputs->cost, looked.plan));
  JsonArray roles;
  for (std::size_t role = 0; role < looked.plan.roles.size(); ++role)
    roles.push_back(role_json(looked.plan, simulation.estimate, role));
  std::string text = "{\"actions\":[";
  for (const cost_model::SimulatedAction& at : simulation.actions) {
    if (text.back() == '}') text += ',';
    append_action(text, looked.plan, at);
  }
  text += "],\"roles\":" + to_text(roles) + ",\"step_seconds\":" + to_text(simulation.estimate.step.value) + "}";
  return text;
}

Result<Json> plan_explanation(const Json& request, const Json& plan, const std::optional<Json>& against,
                              const ServedFiles& files, std::stop_token stop) {
  COX_TRY(const Looked looked, look(request, plan, files));
  plan::Plan other;
  if (against) {
    COX_TRY(other, plan::plan_from_json(*against));
    if (other.model_hash != looked.plan.model_hash || other.cluster_hash != looked.plan.cluster_hash)
      return Error{ErrorCode::InvalidArgument,
                   "the other plan is for another model or cluster",
                   "against",
                   "a plan for the same job and cluster",
                   "",
                   "ask for it with other `options.constrain`"};
  }
  planner::Request again = looked.request.inputs->make_request();
  again.constraints = {};
  again.constraints.backend = looked.plan.backend;
  again.capabilities = plan::kPlannable;
  again.stop = stop;
  COX_TRY(const auto explanation, planner::explain_plan(again, looked.plan, against ? &other : nullptr));
  if (stop.stop_requested()) return planner::search_stopped();
  return planner::to_json(explanation);
}

}  // namespace coxswain::launcher
