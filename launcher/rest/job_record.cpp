#include "launcher/rest/job_record.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "common/bytes_io.h"

namespace coxswain::launcher {
namespace {

constexpr std::array kStates{std::pair{JobState::Queued, "queued"}, std::pair{JobState::Running, "running"},
                             std::pair{JobState::Finished, "finished"}, std::pair{JobState::Failed, "failed"},
                             std::pair{JobState::Cancelled, "cancelled"}};
constexpr const char* kRecord = "record.json";
constexpr std::string_view kIdForm = "dddddddd-ddddddddd-xxxx";

bool is_job_id(std::string_view name) {
  return std::equal(name.begin(), name.end(), kIdForm.begin(), kIdForm.end(), [](char c, char form) {
    if (form == '-') return c == '-';
    return (c >= '0' && c <= '9') || (form == 'x' && c >= 'a' && c <= 'f');
  });
}

}  // namespace

std::string_view to_text(JobState state) {
  for (const auto& [one, text] : kStates)
    if (one == state) return text;
  return "unknown";
}

bool has_ended(JobState state) { return state != JobState::Queued && state != JobState::Running; }

Json to_json(const JobRecord& record) {
  return JsonObject{{"attempts", record.attempts},
                    {"cancels", record.cancels},
                    {"devices", record.devices},
                    {"ended", record.ended},
                    {"exit_code", record.exit_code ? Json(*record.exit_code) : Json()},
                    {"failure", record.failure},
                    {"id", record.id},
                    {"idempotency_key", record.idempotency_key},
                    {"name", record.name},
                    {"nodes", record.nodes},
                    {"request_sha256", record.request_sha256},
                    {"started", record.started},
                    {"state", to_text(record.state)},
                    {"steps", record.steps},
                    {"submitted", record.submitted}};
}

Result<JobRecord> job_record_from_json(const Json& json) {
  constexpr std::int64_t kMost = std::int64_t{1} << 53;
  JsonReader reader(json, kRecord);
  JobRecord record;
  record.attempts = static_cast<int>(reader.integer("attempts", 0, 1 << 30));
  record.cancels = reader.boolean("cancels");
  record.devices = reader.string("devices");
  record.ended = reader.string("ended");
  if (reader.has("exit_code"))
    record.exit_code = static_cast<int>(reader.integer("exit_code", 0, 255));
  else
    static_cast<void>(reader.any("exit_code"));
  record.failure = reader.string("failure");
  record.id = reader.string("id");
  record.idempotency_key = reader.string("idempotency_key");
  record.name = reader.string("name");
  if (reader.has("nodes")) record.nodes = reader.string("nodes");  // one of an earlier version has none
  record.request_sha256 = reader.string("request_sha256");
  record.started = reader.string("started");
  record.steps = reader.integer("steps", 0, kMost);
  record.submitted = reader.string("submitted");
  const std::string state = reader.string("state");
  const auto* const found =
      std::find_if(kStates.begin(), kStates.end(), [&state](const auto& one) { return state == one.second; });
  if (found == kStates.end())
    reader.problem({ErrorCode::DataLoss, "wrong value", "state", "a state of a job", state, ""});
  else
    record.state = found->first;
  COX_TRY_VOID(reader.finish());
  return record;
}

std::string make_job_id(const std::string& utc, int number) {
  std::string id;
  for (const char c : utc) {
    if (c == 'T') id += '-';
    if (c >= '0' && c <= '9') id += c;
  }
  char digits[8];
  std::snprintf(digits, sizeof digits, "-%04x", static_cast<unsigned>(number) & 0xffffU);
  return id + digits;
}

std::filesystem::path run_folder(const std::filesystem::path& job, int attempt) {
  return job / ("run-" + std::to_string(attempt));
}

std::filesystem::path console_file(const std::filesystem::path& job, int attempt) {
  return job / ("console-" + std::to_string(attempt) + ".log");
}

std::filesystem::path errors_file(const std::filesystem::path& job, int attempt) {
  return job / ("errors-" + std::to_string(attempt) + ".log");
}

std::filesystem::path checkpoint_folder(const std::filesystem::path& job) { return job / "checkpoints"; }

std::filesystem::path token_file(const std::filesystem::path& job, int attempt) {
  return job / ("token-" + std::to_string(attempt));
}

Result<std::vector<JobRecord>> load_job_records(const std::filesystem::path& jobs) {
  std::vector<JobRecord> records;
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator(jobs, code)) {
    if (!is_job_id(entry.path().filename().string())) continue;
    const std::filesystem::path file = entry.path() / kRecord;
    std::error_code ignored;
    if (!std::filesystem::exists(file, ignored)) {
      std::filesystem::remove_all(entry.path(), ignored);
      continue;
    }
    COX_TRY(const std::string text, read_file(file));
    auto json = parse_json(text);
    auto record = json ? job_record_from_json(*json) : Result<JobRecord>(json.error());
    if (!record)
      return Error{
          ErrorCode::DataLoss,    "a job's record cannot be read",
          file.string(),          "",
          record.error().message, "move the folder away; its checkpoints stay usable with `launch train --resume`"};
    records.push_back(std::move(*record));
  }
  if (code) return Error{ErrorCode::FailedPrecondition, "cannot read a folder", jobs.string(), "", code.message(), ""};
  std::sort(records.begin(), records.end(), [](const JobRecord& a, const JobRecord& b) { return a.id < b.id; });
  return records;
}

void remove_job_record(const std::filesystem::path& jobs, const std::string& id) {
  std::error_code ignored;
  std::filesystem::remove(jobs / id / kRecord, ignored);
}

Result<void> save_job_record(const std::filesystem::path& jobs, const JobRecord& record) {
  return write_file(jobs / record.id / kRecord, to_text(to_json(record), 2) + "\n");
}

}  // namespace coxswain::launcher
