#include "launcher/rest/plan_request.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "cluster/catalogue.h"
#include "launcher/rest/problem.h"

namespace coxswain::launcher {
namespace {

constexpr std::size_t kMostTexts = 64;

struct Options {
  std::vector<std::string> constraints, prices;
  PlanQuery query;
  std::optional<double> horizon_seconds;
  Json profile, running_cluster;
};

/// Members that are missing or null keep what stands there.
class OptionsReader {
 public:
  explicit OptionsReader(const Json& json) : reader_(json, "options") {}

  Result<Options> read() {
    Options options;
    options.constraints = texts("constrain");
    options.prices = texts("prices");
    if (has("objective")) {
      const std::string objective = reader_.string("objective");
      if (objective != "time" && objective != "cost") wrong("objective", "time or cost", objective);
      options.query.objective = objective == "cost" ? planner::Objective::Cost : planner::Objective::Time;
    }
    if (const auto seconds = positive("max_step_seconds")) options.query.max_step = Seconds(*seconds);
    if (const auto usd = positive("max_cost_per_step")) options.query.max_cost_per_step = cluster::Usd(*usd);
    if (has("max_candidates"))
      options.query.max_candidates =
          std::min(kMostCandidates, reader_.integer("max_candidates", 1, std::numeric_limits<std::int64_t>::max()));
    if (has("top")) options.query.top_k = static_cast<int>(reader_.integer("top", 0, 100));
    if (has("reasons")) options.query.reasons = reader_.boolean("reasons");
    if (has("runnable")) options.query.runnable = reader_.boolean("runnable");
    options.horizon_seconds = positive("horizon_seconds");
    if (has("profile")) options.profile = reader_.object("profile");
    if (has("running_cluster")) options.running_cluster = reader_.object("running_cluster");
    COX_TRY_VOID(reader_.finish());
    return options;
  }

 private:
  bool has(const std::string& key) { return !reader_.any(key).is_null(); }

  void wrong(const std::string& key, const std::string& expected, const std::string& got) {
    reader_.problem({ErrorCode::InvalidArgument, "wrong value", key, expected, got, ""});
  }

  std::vector<std::string> texts(const std::string& key) {
    std::vector<std::string> texts;
    if (!has(key)) return texts;
    for (const Json& one : reader_.array(key)) {
      if (one.is_string() && texts.size() < kMostTexts)
        texts.push_back(one.string());
      else
        wrong(key + "[" + std::to_string(texts.size()) + "]", "a string, of at most " + std::to_string(kMostTexts), "");
    }
    return texts;
  }

  std::optional<double> positive(const std::string& key) {
    if (!has(key)) return std::nullopt;
    const double value = reader_.number(key);
    if (!(value > 0)) wrong(key, "a number above 0", "");
    return value;
  }

  JsonReader reader_;
};

/// What no honest request exceeds: it takes memory before anything else could say no.
constexpr std::int64_t kMostDevices = 1000000;

Result<cluster::ResourceGraph> read_cluster(const Json& json, const std::string& member) {
  if (json.is_string()) {
    auto graph = cluster::cluster_from_catalogue(json.string());
    if (graph) return graph;
    Error error = graph.error();
    error.path = member;
    for (Error& detail : error.details) detail.path = member;
    return error;
  }
  auto graph = cluster::resource_graph_from_json(json);
  if (!graph) return with_path_prefix(graph.error(), member);
  if (auto problems = cluster::validate(*graph); !problems.empty())
    return with_path_prefix(combine_errors(ErrorCode::InvalidArgument, "bad cluster", std::move(problems)), member);
  if (const std::int64_t devices = cluster::num_devices(*graph); devices > kMostDevices)
    return more_than_served(member, kMostDevices, devices);
  return graph;
}

Result<void> take_profile(const Json& json, PlanningInputs& inputs) {
  if (json.is_null()) return {};
  auto profile = cluster::profile_from_json(json);
  if (!profile) return with_path_prefix(profile.error(), "options.profile");
  const std::string wanted(plan::to_text(inputs.job.precision));
  if (!profile->precision.empty() && profile->precision != wanted)
    return Error{ErrorCode::InvalidArgument,  "the profile was measured in another precision",
                 "options.profile.precision", wanted,
                 profile->precision,          "measure anew with `launch probe --job`, or leave it out"};
  inputs.profile = std::move(*profile);
  return {};
}

Result<std::optional<planner::RunningPlan>> read_running(const Json& json, const Options& options,
                                                         const PlanningInputs& inputs) {
  if (json.is_null()) return std::optional<planner::RunningPlan>();
  if (!options.horizon_seconds)
    return Error{ErrorCode::InvalidArgument,
                 "re-planning needs a horizon",
                 "options.horizon_seconds",
                 "for how long the next plan is to run",
                 "nothing",
                 "a short horizon keeps the running plan, a long one moves"};
  auto plan = plan::plan_from_json(json["plan"].is_object() ? json["plan"] : json);
  if (!plan) return with_path_prefix(plan.error(), "running_plan");
  cluster::ResourceGraph before = inputs.resources;
  if (!options.running_cluster.is_null()) {
    COX_TRY(before, read_cluster(options.running_cluster, "options.running_cluster"));
  }
  if (const std::string hash = cluster::cluster_hash(before); plan->cluster_hash != hash)
    return Error{ErrorCode::InvalidArgument,  "the running plan is for another cluster",
                 "running_plan.cluster_hash", hash,
                 plan->cluster_hash,          "send the cluster that it was made for as options.running_cluster"};
  planner::RunningPlan running{std::move(*plan), cluster::match_devices(before, inputs.resources),
                               Seconds(*options.horizon_seconds)};
  return std::optional(std::move(running));
}

}  // namespace

Result<PlanRequest> read_plan_request(const Json& body, const ServedFiles& files) {
  JsonReader reader(body, "");
  const Json& job = reader.object("job");
  const Json& cluster = reader.any("cluster");
  if (!cluster.is_string() && !cluster.is_object())
    reader.problem({ErrorCode::InvalidArgument, "wrong value", "cluster",
                    "a cluster, or hardware of the catalogue such as 16x8xh100-sxm,ib400",
                    cluster.is_null() ? "nothing" : "", "GET /v1/catalogue lists hardware"});
  const Json& running = reader.any("running_plan");
  const Json& given = reader.any("options");
  COX_TRY_VOID(reader.finish());
  COX_TRY(Options options, OptionsReader(given.is_null() ? Json(JsonObject{}) : given).read());

  PlanRequest request;
  request.inputs = std::make_unique<PlanningInputs>();
  PlanningInputs& inputs = *request.inputs;
  COX_TRY(inputs.job, read_served_job(job, files, options.constraints));
  auto model = know_served_model(inputs.job, files);
  if (!model) return within("job.model", model.error());
  inputs.model = std::move(*model);
  COX_TRY(inputs.resources, read_cluster(cluster, "cluster"));
  if (auto priced = set_prices(inputs.resources, options.prices); !priced)
    return within("options.prices", priced.error());
  COX_TRY_VOID(take_profile(options.profile, inputs));
  inputs.price();
  request.query = std::move(options.query);
  COX_TRY(request.query.running, read_running(running, options, inputs));
  return request;
}

}  // namespace coxswain::launcher
