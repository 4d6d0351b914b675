#pragma once
// What the run (or probe) that a plan came from measured: cluster.json and profile.json beside the plan file, as
// `explain` and `simulate` take them. With them a run of that plan starts without measuring anew, and its prediction is
// the one that the plan was chosen by. Called by the coordinator process. Threads: pure apart from reading files.
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

/// Puts rates and times of `before` into `cluster`, which knows what devices there are now; memory stays as it is now.
/// Errors: InvalidArgument (other devices than there are).
[[nodiscard]] Result<void> take_measured_before(const MeasuredBefore& before, MeasuredCluster& cluster);

}  // namespace coxswain::launcher
