#pragma once
// The job as plain values: what the YAML or JSON file (schema: proto/job.proto) says, paths resolved against the file's
// folder. Made by load_job; used by the CLI and the train flow. Threads: pure values. Source: INTERFACE section 2.
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "plan/plan.h"
#include "planner/planner.h"

namespace coxswain::launcher {

struct JobModel {
  std::filesystem::path pt2;  // one of the three
  std::filesystem::path huggingface_folder;
  std::optional<Json> config;
};

struct JobData {
  std::filesystem::path text;        // one of the two
  std::filesystem::path tensors;     // safetensors, one row a sample
  std::int64_t sequence_length = 0;  // of a text; beside tensors it only counts tokens, 0: a sample counts as one
  std::uint64_t seed = 0;
};

struct JobValidation {
  double fraction = 0;  // 0: no validation
  std::int64_t every_steps = 0, steps = 0;
};

struct JobOptimizer {
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999, weight_decay = 0.01, clip_grad_norm = 0;  // clip 0: none
  std::int64_t warmup_steps = 0;
  std::string decay = "constant";  // or "cosine"
  double min_ratio = 0;
  bool skip_non_finite = false;  // `non_finite: skip`; else such a step ends the run
};

struct JobCheckpoint {
  std::filesystem::path directory;  // empty: RUN-DIR/checkpoints
  std::int64_t every_steps = 0;     // 0: by what one costs (launcher/control/save_interval.h)
  std::int64_t keep = 3;
};

struct Job {
  std::string name;
  std::filesystem::path file;  // as given, for messages
  JobModel model;
  JobData data;
  JobValidation validation;
  std::int64_t global_batch = 0;
  std::int64_t micro_batch = 0;  // 0: auto
  plan::Precision precision = plan::Precision::Float32;
  JobOptimizer optimizer;
  std::int64_t steps = 0;
  std::uint64_t seed = 0;
  std::int64_t log_every = 10;
  JobCheckpoint checkpoint;
  int min_nodes = 1;                          // with fewer left a run does not go on
  int max_nodes = 0;                          // more are taken while it trains; 0: those that it begins with
  int max_restarts = 3;                       // within an hour
  std::filesystem::path cluster_file;         // empty: auto
  std::filesystem::path plan_file;            // empty: search
  planner::Constraints constraints;           // from `plan: {...}`
  std::vector<std::string> constraint_texts;  // the same as KEY=VALUE, sorted
  std::map<std::string, std::string> environment;
};

/// Reads and checks a job file (YAML; JSON works too). Errors: InvalidArgument or Unimplemented (a value this version
/// cannot do), listing every problem once, each with path, line and what was expected; a `.py` file tells how to
/// export.
[[nodiscard]] Result<Job> load_job(const std::filesystem::path& file);
[[nodiscard]] Result<Job> parse_job(const std::string& text, const std::filesystem::path& file);

/// The job as YAML with absolute paths: what RUN-DIR/job.yaml holds, enough to repeat the run from anywhere.
/// `plan_constraints` of the job are written as they were given; flags are not part of a job.
[[nodiscard]] std::string to_yaml(const Job& job);

}  // namespace coxswain::launcher
