#pragma once
// What was measured before: cluster.json and profile.json beside a plan file (of the run or probe that it came from),
// as `explain` and `simulate` take them, or a cluster file with profile.json beside it. With them a run starts without
// measuring anew, and the prediction of a given plan is the one that it was chosen by. Called by the coordinator
// process. Threads: pure apart from reading files.
#include <filesystem>
#include <optional>

#include "launcher/control/measurement.h"

namespace coxswain::launcher {

struct MeasuredBefore {
  cluster::ResourceGraph resources;
  cluster::Profile profile;
};

/// Nothing where a file is missing or unreadable, or is not for the plan's model and cluster: the run then measures.
[[nodiscard]] std::optional<MeasuredBefore> find_measured_before(const std::filesystem::path& plan_file);

/// The same of a cluster file that has a profile.json of this model and precision beside it (`launch probe --job`).
[[nodiscard]] std::optional<MeasuredBefore> find_measured_with(const std::filesystem::path& cluster_file,
                                                               const std::string& model_hash,
                                                               const std::string& precision);

/// Puts rates and times of `before` into `cluster`, which knows what devices there are now; memory stays as it is now.
/// Errors: InvalidArgument (other devices than there are).
[[nodiscard]] Result<void> take_measured_before(const MeasuredBefore& before, MeasuredCluster& cluster);

}  // namespace coxswain::launcher
