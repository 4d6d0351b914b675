#include "launcher/cli/running.h"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <filesystem>

#include "cluster/change.h"

namespace coxswain::launcher {
namespace {

std::string beside(const std::string& plan, const char* name) {
  const auto path = std::filesystem::path(plan).parent_path() / name;
  std::error_code unreadable;
  return std::filesystem::exists(path, unreadable) ? path.string() : "";
}

std::string before_file(const RunningOptions& options) {
  return options.cluster.empty() ? beside(options.plan, "cluster.json") : options.cluster;
}

bool has_change(const RunningOptions& options) {
  return !options.lost.empty() || !options.slower.empty() || !options.added.empty();
}

/// "a100-80 3, 8-15": which devices of the running plan's cluster are gone.
std::string list_lost(const cluster::ResourceGraph& before, const cluster::DeviceMap& devices) {
  std::string text;
  for (std::size_t c = 0; c < devices.size(); ++c) {
    std::string ranges;
    for (std::size_t i = 0; i < devices[c].size(); ++i) {
      if (devices[c][i]) continue;
      const std::size_t first = i;
      while (i + 1 < devices[c].size() && !devices[c][i + 1]) ++i;
      ranges += (ranges.empty() ? " " : ", ") + std::to_string(first) + (i > first ? "-" + std::to_string(i) : "");
    }
    if (!ranges.empty()) text += (text.empty() ? "" : "; ") + before.device_classes[c].name + ranges;
  }
  return text;
}

}  // namespace

void add_running_options(CLI::App& command, RunningOptions& options) {
  command.add_option("--running", options.plan,
                     "the plan that runs: the move from it is part of what is planned; its cluster is cluster.json "
                     "beside it, or --running-cluster");
  command.add_option("--horizon-seconds", options.horizon_seconds,
                     "with --running: for how long the next plan is to run, the move included");
  command.add_option("--running-cluster", options.cluster, "with --running: the cluster that the running plan is for");
  command
      .add_option("--lost", options.lost,
                  "with --running: devices that are gone, CLASS:INDEX[-INDEX],... or node:INDEX[-INDEX]")
      ->take_all();
  command
      .add_option("--slower", options.slower,
                  "with --running: devices at a fraction of their rates, CLASS:INDEX[-INDEX]=FRACTION,...")
      ->take_all();
  command.add_option("--added", options.added, "with --running: new nodes, NODE_CLASS=COUNT,...")->take_all();
  command.add_option("--out-cluster", options.out_cluster, "with --running: also write the changed cluster");
}

Result<void> resolve_running(const RunningOptions& options, PlanningOptions& planning) {
  if (options.plan.empty()) {
    if (!options.horizon_seconds && options.cluster.empty() && options.out_cluster.empty() && !has_change(options))
      return {};
    return usage_error("the change of a cluster needs the plan that runs on it", "--running PLAN", "none",
                       "name the running plan, or leave out --horizon-seconds, --running-cluster, --lost, --slower, "
                       "--added and --out-cluster");
  }
  if (!options.horizon_seconds)
    return usage_error("re-planning needs a horizon", "--horizon-seconds S", "none",
                       "say for how long the next plan is to run: a short horizon keeps the plan, a long one moves");
  const std::string before = before_file(options);
  if (has_change(options) && !options.cluster.empty())
    planning.cluster_file = options.cluster;
  else if (planning.cluster_file.empty())
    planning.cluster_file = before;
  if (planning.profile_file.empty()) planning.profile_file = beside(options.plan, "profile.json");
  return {};
}

Result<std::optional<planner::RunningPlan>> load_running(const RunningOptions& options, PlanningInputs& inputs) {
  if (options.plan.empty()) return std::optional<planner::RunningPlan>();
  planner::RunningPlan running;
  running.horizon = Seconds(*options.horizon_seconds);
  COX_TRY(running.plan, load_plan(options.plan));
  COX_TRY(const cluster::ClusterChange change, cluster::parse_change(options.lost, options.slower, options.added));

  cluster::ResourceGraph before = inputs.resources;
  const std::string file = before_file(options);
  if (change.empty() && !file.empty()) {
    COX_TRY(before, load_cluster(file));
  }
  if (const std::string hash = cluster::cluster_hash(before); running.plan.cluster_hash != hash)
    return Error{ErrorCode::InvalidArgument,      "the running plan is for another cluster",
                 options.plan + "  cluster_hash", hash,
                 running.plan.cluster_hash,       "name the cluster that it was made for with --running-cluster"};
  if (change.empty()) {
    running.devices = cluster::match_devices(before, inputs.resources);
  } else {
    COX_TRY(cluster::ChangedCluster changed, cluster::apply_change(before, change));
    if (inputs.profile) cluster::add_slowed(*inputs.profile, changed);
    running.devices = std::move(changed.devices);
    inputs.resources = std::move(changed.graph);
    inputs.price();
  }
  if (const std::string lost = list_lost(before, running.devices); !lost.empty())
    std::fprintf(stderr, "note: lost since the running plan was made: %s\n", lost.c_str());
  if (!options.out_cluster.empty())
    COX_TRY_VOID(write_output(to_text(cluster::to_json(inputs.resources), 2) + "\n", options.out_cluster));
  return std::optional(std::move(running));
}

}  // namespace coxswain::launcher
