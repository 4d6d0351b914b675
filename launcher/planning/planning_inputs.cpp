#include "launcher/planning/planning_inputs.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "cluster/catalogue.h"
#include "common/bytes_io.h"

namespace coxswain::launcher {

Result<Json> load_json(const std::string& file) {
  COX_TRY(std::string text, read_file(file));
  auto json = parse_json(text);
  if (!json) return with_path_prefix(json.error(), file);
  return json;
}

Result<cluster::ResourceGraph> load_cluster(const std::string& file) {
  std::error_code unreadable;
  if (!std::filesystem::exists(file, unreadable) && !(unreadable == std::errc::permission_denied)) {
    if (cluster::names_catalogue(file)) return cluster::cluster_from_catalogue(file);
    return Error{ErrorCode::NotFound,
                 "no such cluster",
                 file,
                 "a cluster file, or hardware of the catalogue such as 16x8xh100-sxm,ib400",
                 "no file of that name",
                 "`launch probe --out cluster.json` writes one, `launch catalogue` lists hardware"};
  }
  COX_TRY(Json json, load_json(file));
  auto graph = cluster::resource_graph_from_json(json);
  if (!graph) return with_path_prefix(graph.error(), file);
  if (auto problems = cluster::validate(*graph); !problems.empty())
    return with_path_prefix(combine_errors(ErrorCode::InvalidArgument, "bad cluster file", std::move(problems)), file);
  return graph;
}

Result<plan::Plan> load_plan(const std::string& file) {
  COX_TRY(Json json, load_json(file));
  auto plan = plan::plan_from_json(json["plan"].is_object() ? json["plan"] : json);
  if (!plan) return with_path_prefix(plan.error(), file);
  return plan;
}

Result<planner::Constraints> merge_constraints(const planner::Constraints& job, const std::vector<std::string>& flags) {
  auto parsed = planner::parse_constraints(flags);
  if (!parsed) {
    Error error = parsed.error();
    return with_path_prefix(std::move(error), "--constrain");
  }
  planner::Constraints merged = job;
  const auto take = [](auto& target, const auto& source) {
    if (!source.empty()) target = source;
  };
  const auto take_optional = [](auto& target, const auto& source) {
    if (source) target = source;
  };
  take(merged.data, parsed->data);
  take(merged.tensor, parsed->tensor);
  take(merged.pipeline, parsed->pipeline);
  take(merged.context, parsed->context);
  take(merged.expert, parsed->expert);
  take(merged.zero, parsed->zero);
  take(merged.micro, parsed->micro);
  take(merged.schedule, parsed->schedule);
  take(merged.schedule_file, parsed->schedule_file);
  if (!parsed->schedule.empty()) merged.schedule_file.clear();
  take_optional(merged.samples, parsed->samples);
  take_optional(merged.recompute, parsed->recompute);
  take_optional(merged.cuts, parsed->cuts);
  take_optional(merged.offload, parsed->offload);
  COX_TRY_VOID(read_schedule_file(merged));
  return merged;
}

Result<void> read_schedule_file(planner::Constraints& constraints) {
  if (constraints.schedule_file.empty()) return {};
  COX_TRY(const std::string text, read_file(constraints.schedule_file));
  auto order = plan::read_schedule_csv(text);
  if (!order) return with_path_prefix(order.error(), constraints.schedule_file + "  ");
  constraints.order = std::move(*order);
  constraints.schedule.clear();
  return {};
}

std::vector<std::string> with_absolute_paths(std::vector<std::string> constraints) {
  constexpr std::string_view kSchedule = "schedule=csv:";
  for (std::string& text : constraints) {
    if (!text.starts_with(kSchedule)) continue;
    text = std::string(kSchedule) + std::filesystem::absolute(text.substr(kSchedule.size())).string();
  }
  return constraints;
}

Result<void> set_prices(cluster::ResourceGraph& graph, const std::vector<std::string>& prices) {
  std::vector<Error> problems;
  std::string names;
  for (const cluster::DeviceClass& device : graph.device_classes) names += (names.empty() ? "" : ", ") + device.name;
  for (const std::string& text : prices) {
    const std::size_t equals = text.rfind('=');
    const std::string name = text.substr(0, equals), value = equals == std::string::npos ? "" : text.substr(equals + 1);
    const auto device = std::find_if(graph.device_classes.begin(), graph.device_classes.end(),
                                     [&](const cluster::DeviceClass& one) { return one.name == name; });
    double usd = 0;
    const auto [end, code] = std::from_chars(value.data(), value.data() + value.size(), usd);
    if (device == graph.device_classes.end())
      problems.push_back({ErrorCode::InvalidArgument, "no device class of that name", "--price", names, text, ""});
    else if (code != std::errc() || end != value.data() + value.size() || !(usd > 0) || usd > 1e9)
      problems.push_back(
          {ErrorCode::InvalidArgument, "not a price", "--price", "CLASS=USD for an hour, above 0", text, ""});
    else
      device->price = {cluster::UsdPerHour(usd), cluster::Source::Assumed};
  }
  if (problems.empty()) return {};
  return combine_errors(ErrorCode::InvalidArgument, "the prices have problems", std::move(problems));
}

void PlanningInputs::price() { cost = cost_model::make_cost_model(model, resources, profile ? &*profile : nullptr); }

planner::Request PlanningInputs::make_request() const {
  planner::Request request;
  request.cost = cost.get();
  request.global_batch = job.global_batch;
  request.tokens_per_sample = std::max<std::int64_t>(job.data.sequence_length, 1);
  request.precision = job.precision;
  request.constraints = job.constraints;
  if (job.micro_batch > 0 && request.constraints.micro.empty()) request.constraints.micro = {job.micro_batch};
  return request;
}

}  // namespace coxswain::launcher
