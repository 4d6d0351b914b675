#pragma once
// The model graph that a job names: a .pt2 archive, a Hugging Face folder's config.json, or a config in the job itself.
// Called by the CLI and the train flow. Threads: pure apart from files.
#include <filesystem>
#include <memory>

#include "cost_model/model_facts.h"
#include "launcher/job/job.h"
#include "model/model_graph.h"

namespace coxswain::launcher {

[[nodiscard]] Result<model::ModelGraph> load_job_model(const Job& job);
/// The same for a cost model.
[[nodiscard]] Result<std::shared_ptr<const cost_model::KnownModel>> know_job_model(const Job& job);

/// A MODEL argument: a `.pt2` file, a folder with config.json, or a config.json itself.
[[nodiscard]] Result<model::ModelGraph> load_model_file(const std::filesystem::path& path,
                                                        std::int64_t sequence_length);

}  // namespace coxswain::launcher
