#include "launcher/control/measured_before.h"

#include <algorithm>

#include "common/bytes_io.h"
#include "common/log.h"
#include "launcher/planning/planning_inputs.h"

namespace coxswain::launcher {
namespace {

/// Every class of the cluster has rates of its own and at least one block time.
bool covers(const cluster::Profile& profile, const cluster::ResourceGraph& resources) {
  return std::all_of(resources.device_classes.begin(), resources.device_classes.end(),
                     [&](const cluster::DeviceClass& device) {
                       const auto of_class = [&](const auto& item) { return item.device_class == device.name; };
                       return std::any_of(profile.blocks.begin(), profile.blocks.end(), of_class) &&
                              std::any_of(profile.devices.begin(), profile.devices.end(), of_class);
                     });
}

Result<MeasuredBefore> read_with_profile(const std::filesystem::path& cluster_file) {
  MeasuredBefore before;
  COX_TRY(before.resources, load_cluster(cluster_file.string()));
  COX_TRY(const Json profile, load_json((cluster_file.parent_path() / "profile.json").string()));
  COX_TRY(before.profile, cluster::profile_from_json(profile));
  return before;
}

}  // namespace

std::optional<MeasuredBefore> find_measured_before(const std::filesystem::path& plan_file) {
  if (plan_file.empty() || !std::filesystem::exists(plan_file.parent_path() / "profile.json")) return std::nullopt;
  const auto plan = load_plan(plan_file.string());
  if (!plan) return std::nullopt;  // choose_plan says why
  auto before = read_with_profile(plan_file.parent_path() / "cluster.json");
  const auto other_precision = [&] {
    const std::string& precision = before->profile.precision;
    return !precision.empty() && precision != plan::to_text(plan->precision);
  };
  if (!before || before->profile.model_hash != plan->model_hash || other_precision() ||
      cluster::cluster_hash(before->resources) != plan->cluster_hash || !covers(before->profile, before->resources)) {
    log(LogLevel::Info, "plan", "cluster.json and profile.json beside the plan are not for it: measuring anew");
    return std::nullopt;
  }
  log(LogLevel::Info, "plan",
      "taking what was measured before from " + plan_file.parent_path().string() + "; nothing is measured anew");
  return std::move(*before);
}

std::optional<MeasuredBefore> find_measured_with(const std::filesystem::path& cluster_file,
                                                 const std::string& model_hash, const std::string& precision) {
  const std::filesystem::path profile = cluster_file.parent_path() / "profile.json";
  if (cluster_file.empty() || !std::filesystem::exists(cluster_file) || !std::filesystem::exists(profile))
    return std::nullopt;
  auto before = read_with_profile(cluster_file);
  if (!before || before->profile.model_hash != model_hash || before->profile.precision != precision ||
      !covers(before->profile, before->resources)) {
    log(LogLevel::Info, "plan",
        profile.string() + " is not for this job and " + cluster_file.string() + ": measuring anew");
    return std::nullopt;
  }
  log(LogLevel::Info, "plan", "taking the times of " + profile.string() + "; nothing is measured anew");
  return std::move(*before);
}

Result<void> take_measured_before(const MeasuredBefore& before, MeasuredCluster& cluster) {
  const std::string now = cluster::cluster_hash(cluster.resources), then = cluster::cluster_hash(before.resources);
  if (now != then)
    return Error{ErrorCode::InvalidArgument,
                 "the plan is for another cluster",
                 "cluster.json beside the plan",
                 now,
                 then,
                 "give the --devices that it was made for, or let the planner choose"};
  cluster::ResourceGraph resources = before.resources;
  // Equal hashes: the same classes and nodes in the same order.
  for (std::size_t c = 0; c < resources.device_classes.size(); ++c)
    resources.device_classes[c].memory = cluster.resources.device_classes[c].memory;
  for (std::size_t n = 0; n < resources.node_classes.size(); ++n)
    resources.node_classes[n].host_memory = cluster.resources.node_classes[n].host_memory;
  cluster.resources = std::move(resources);
  cluster.profile = before.profile;
  return {};
}

}  // namespace coxswain::launcher
