#pragma once
// What is known of a job that was sent, kept in a folder of its own so that it outlives the service: record.json,
// job.yaml, and a folder for each time that it was started. Called by job_runner and jobs. Threads: pure values; files
// have one writer at a time.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/result.h"

namespace coxswain::launcher {

enum class JobState { Queued, Running, Finished, Failed, Cancelled };
[[nodiscard]] std::string_view to_text(JobState state);
[[nodiscard]] bool has_ended(JobState state);

struct JobRecord {
  std::string id;  // "20260102-030405678-0001": by time, so that names sort
  std::string name;
  JobState state = JobState::Queued;
  bool cancels = false;  // was asked to end
  std::int64_t steps = 0;
  std::string devices;  // SPEC; empty: auto
  std::string nodes;    // as --nnodes, this machine among them; empty: it alone
  std::string idempotency_key, request_sha256;
  int attempts = 0;                       // that were begun: run-1, run-2 ...
  std::string submitted, started, ended;  // UTC, as Clock::utc_text says it; empty: not yet
  std::optional<int> exit_code;
  std::string failure;  // what it said last
  friend bool operator==(const JobRecord&, const JobRecord&) = default;
};
[[nodiscard]] Json to_json(const JobRecord& record);
[[nodiscard]] Result<JobRecord> job_record_from_json(const Json& json);

/// Of one attempt, in the job's folder: the run's own folder, what `launch train` printed and said was wrong.
[[nodiscard]] std::filesystem::path run_folder(const std::filesystem::path& job, int attempt);
[[nodiscard]] std::filesystem::path console_file(const std::filesystem::path& job, int attempt);
[[nodiscard]] std::filesystem::path errors_file(const std::filesystem::path& job, int attempt);
/// Of all attempts of a job that has several nodes.
[[nodiscard]] std::filesystem::path checkpoint_folder(const std::filesystem::path& job);
/// Of the nodes of one attempt; there while it runs.
[[nodiscard]] std::filesystem::path token_file(const std::filesystem::path& job, int attempt);

/// Of a time (Clock::utc_text) and a number that tells those of one millisecond apart, in their order.
[[nodiscard]] std::string make_job_id(const std::string& utc, int number);

/// Every job in `jobs`, oldest first. A job's folder without a record was not taken: it is removed.
/// Errors: FailedPrecondition (disk), DataLoss (a record that cannot be read).
[[nodiscard]] Result<std::vector<JobRecord>> load_job_records(const std::filesystem::path& jobs);
/// What is left in the job's folder is none.
void remove_job_record(const std::filesystem::path& jobs, const std::string& id);
/// Atomic. Errors: FailedPrecondition.
[[nodiscard]] Result<void> save_job_record(const std::filesystem::path& jobs, const JobRecord& record);

}  // namespace coxswain::launcher
