#include "launcher/rest/served_job.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "common/hash.h"
#include "launcher/job/job_model.h"
#include "launcher/planning/planning_inputs.h"
#include "launcher/rest/problem.h"

namespace coxswain::launcher {

Error not_served(const std::string& member, const std::filesystem::path& root) {
  return {ErrorCode::PermissionDenied,
          "a file that this service does not serve",
          member,
          root.empty() ? "no file: the service was started without --root" : "a file beneath the service's --root",
          "",
          "send the model with PUT /v1/models/{sha256} and name it `sha256:HEX`, or write its configuration into the "
          "job"};
}

bool lies_beneath(const std::filesystem::path& root, const std::filesystem::path& path) {
  std::error_code root_failed, failed;
  const auto real_root = std::filesystem::weakly_canonical(root, root_failed);
  const auto real = std::filesystem::weakly_canonical(path, failed);
  if (root_failed || failed || real_root.empty()) return false;
  const auto [end, at] = std::mismatch(real_root.begin(), real_root.end(), real.begin(), real.end());
  return end == real_root.end();
}

Error more_than_served(const std::string& member, std::int64_t most, std::int64_t got) {
  return {ErrorCode::InvalidArgument, "more than this service plans for", member, "at most " + std::to_string(most),
          std::to_string(got),        "plan it with `launch plan`"};
}

namespace {

constexpr std::string_view kSentModel = "sha256:";

/// Every file that planning would read. Data is not read.
Result<void> check_files(const Job& job, const std::filesystem::path& sent_model, const ServedFiles& files) {
  std::vector<Error> problems;
  const auto check = [&](const char* member, const std::filesystem::path& path) {
    if (!path.empty() && path != sent_model && !lies_beneath(files.root, path))
      problems.push_back(not_served(member, files.root));
  };
  check("job.model.pt2", job.model.pt2);
  if (!job.model.huggingface_folder.empty())
    check("job.model.huggingface", job.model.huggingface_folder / "config.json");
  check("job.plan.schedule", job.constraints.schedule_file);
  if (problems.empty()) return {};
  return combine_errors(ErrorCode::PermissionDenied, "files that this service does not serve", std::move(problems));
}

/// `model: {pt2: "sha256:HEX"}`: the file that was sent. Empty: the job names none.
Result<std::filesystem::path> take_sent_model(Json& job, const ServedFiles& files) {
  const Json named = std::as_const(job)["model"]["pt2"];
  if (!named.is_string() || !named.string().starts_with(kSentModel)) return std::filesystem::path();
  const std::string hex = named.string().substr(kSentModel.size());
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  const std::filesystem::path file = files.models / (hex + ".pt2");
  std::error_code code;
  if (hex.size() != 64 || !std::all_of(hex.begin(), hex.end(), is_hex) || !std::filesystem::exists(file, code))
    return Error{ErrorCode::NotFound,         "no such model was sent",     "job.model.pt2",
                 "sha256: and 64 hex digits", named.string().substr(0, 80), "send it with PUT /v1/models/{sha256}"};
  job.object()["model"].object()["pt2"] = file.string();
  return file;
}

/// What no honest request exceeds. Each takes memory before anything else could say no.
constexpr std::int64_t kMostLayers = 10000, kMostSamples = 10000000;

Result<void> check_sizes(const Job& job) {
  if (job.global_batch > kMostSamples) return more_than_served("job.batch.global", kMostSamples, job.global_batch);
  if (!job.model.config) return {};
  for (const char* key : {"n_layer", "num_hidden_layers", "num_layers", "n_layers"}) {
    const Json& layers = std::as_const(*job.model.config)[key];
    if (layers.is_integer() && layers.integer() > kMostLayers)
      return more_than_served("job.model.config." + std::string(key), kMostLayers, layers.integer());
  }
  return {};
}

/// What a model is made of, where nothing else can change it: not a file beneath the root. Short, however long a
/// configuration is.
std::optional<std::string> key_of(const Job& job, const std::filesystem::path& models) {
  if (job.model.config) return sha256_hex(std::to_string(job.data.sequence_length) + " " + to_text(*job.model.config));
  if (!job.model.pt2.empty() && job.model.pt2.parent_path() == models) return job.model.pt2.string();
  return std::nullopt;
}

}  // namespace

Result<KnownModels::Model> know_served_model(const Job& job, const ServedFiles& files) {
  const auto key = key_of(job, files.models);
  return key ? files.known->get(*key, [&] { return know_job_model(job); }) : know_job_model(job);
}

Result<Job> read_served_job(Json json, const ServedFiles& files, const std::vector<std::string>& constraints) {
  COX_TRY(const std::filesystem::path sent_model, take_sent_model(json, files));
  const std::filesystem::path folder = files.root.empty() ? std::filesystem::path("/nothing-is-served") : files.root;
  auto job = parse_job(to_text(json), folder / "job.json");
  if (!job) return within("job", job.error());
  COX_TRY_VOID(check_files(*job, sent_model, files));
  COX_TRY_VOID(check_sizes(*job));
  // As they are parsed, and before a file of theirs is read: it would be looked for where the service was started.
  const auto parsed = planner::parse_constraints(constraints);
  if (parsed && !parsed->schedule_file.empty())
    return Error{ErrorCode::PermissionDenied,
                 "a file that this service does not serve",
                 "options.constrain",
                 "a schedule without a file",
                 "csv:" + parsed->schedule_file,
                 "name the file in the job: `plan: {schedule: \"csv:FILE\"}`"};
  auto merged = merge_constraints(job->constraints, constraints);
  if (!merged) {
    Error error = merged.error();
    error.path = "options.constrain";
    for (Error& detail : error.details) detail.path = "options.constrain";
    return error;
  }
  job->constraints = std::move(*merged);
  return job;
}

}  // namespace coxswain::launcher
