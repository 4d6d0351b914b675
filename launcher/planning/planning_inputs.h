#pragma once
// What planning needs, from files and texts: job, model, cluster, profile and the cost model over them. Called by the
// commands, the coordinator and the service. Threads: pure apart from reading files.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cluster/profile.h"
#include "cluster/resource_graph.h"
#include "common/json.h"
#include "common/result.h"
#include "cost_model/cost_model.h"
#include "launcher/job/job.h"
#include "model/model_graph.h"
#include "planner/planner.h"

namespace coxswain::launcher {

/// Everything that costing and planning a job needs; members refer to each other, so it stays where it was made.
struct PlanningInputs {
  Job job;
  std::shared_ptr<const cost_model::KnownModel> model;
  cluster::ResourceGraph resources;
  std::optional<cluster::Profile> profile;
  std::unique_ptr<cost_model::CostModel> cost;

  [[nodiscard]] planner::Request make_request() const;
  /// Makes `cost` of the others.
  void price();
};

[[nodiscard]] Result<Json> load_json(const std::string& file);
/// A cluster file, or where there is no such file a cluster of the catalogue (cluster/catalogue.h).
[[nodiscard]] Result<cluster::ResourceGraph> load_cluster(const std::string& file);
/// A plan file, or the output of `launch plan --format json` (its `plan`). `estimate` is set when the file has one.
[[nodiscard]] Result<plan::Plan> load_plan(const std::string& file);

/// Joins constraints of a job and of flags: a key that is given in both takes the flag's. Reads the schedule file.
[[nodiscard]] Result<planner::Constraints> merge_constraints(const planner::Constraints& job,
                                                             const std::vector<std::string>& flags);

/// Reads the file of `schedule=csv:FILE`, where there is one. Errors: of the file; every bad cell.
[[nodiscard]] Result<void> read_schedule_file(planner::Constraints& constraints);
/// Constraints that another process, in another folder, may read.
[[nodiscard]] std::vector<std::string> with_absolute_paths(std::vector<std::string> constraints);

/// "CLASS=USD": the price of one device for an hour. Errors: InvalidArgument for all bad ones, listing the classes.
[[nodiscard]] Result<void> set_prices(cluster::ResourceGraph& graph, const std::vector<std::string>& prices);

}  // namespace coxswain::launcher
