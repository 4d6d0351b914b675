#pragma once
// A job that a request holds: what it may name, and how large it may be. Nothing outside of the folders that are served
// is ever opened. Called by plan_request and jobs. Threads: pure apart from reading files. Source: INTERFACE section 5.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "launcher/job/job.h"
#include "launcher/rest/known_models.h"

namespace coxswain::launcher {

/// What a job may name.
struct ServedFiles {
  std::filesystem::path root;    // files beneath it; empty: none
  std::filesystem::path models;  // models that were sent, as SHA256.pt2: `model: {pt2: "sha256:HEX"}`
  std::shared_ptr<KnownModels> known = std::make_shared<KnownModels>();  // of all copies of these
};

/// The model of a job that was read from a request: what is known of it where it was read before. Errors: of its form
/// and its file, with paths in a job.
[[nodiscard]] Result<KnownModels::Model> know_served_model(const Job& job, const ServedFiles& files);

/// `constraints`: KEY=VALUE texts on top of the job's. Data is not looked at. Errors: those of the job, with paths in a
/// body whose member `job` it is; PermissionDenied for a file that may not be named; NotFound (a model that was not
/// sent).
[[nodiscard]] Result<Job> read_served_job(Json json, const ServedFiles& files,
                                          const std::vector<std::string>& constraints);

/// Does `path` lie beneath `root`, with symlinks followed, so that none leads out?
[[nodiscard]] bool lies_beneath(const std::filesystem::path& root, const std::filesystem::path& path);
/// Of a file that a job may not name.
[[nodiscard]] Error not_served(const std::string& member, const std::filesystem::path& root);
/// Of what no honest request exceeds.
[[nodiscard]] Error more_than_served(const std::string& member, std::int64_t most, std::int64_t got);

}  // namespace coxswain::launcher
