#pragma once
// What the coordinator asks of the workers, made from the job: serialised control::Work. Threads: pure.
#include <filesystem>
#include <optional>
#include <string>

#include "launcher/control/trace_steps.h"
#include "launcher/job/job.h"

namespace coxswain::launcher {

/// Rates and links; with a job also the times of its distinct blocks.
[[nodiscard]] std::string make_measure_work(const std::optional<Job>& job);
/// Checkpoints go to `directory` (empty: nowhere), and training begins with the one in `from` (empty: at step 1).
[[nodiscard]] std::string make_train_work(const Job& job, const TraceSteps& trace,
                                          const std::filesystem::path& directory, const std::filesystem::path& from);
[[nodiscard]] std::string make_check_work(const std::filesystem::path& pt2);

/// Local samples to profile at: 1, 2, 4, ... and the largest that a replica can get.
[[nodiscard]] std::vector<std::int64_t> profile_samples(std::int64_t global_batch, std::int64_t micro_batch);

}  // namespace coxswain::launcher
