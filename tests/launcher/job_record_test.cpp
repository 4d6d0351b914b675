#include "launcher/rest/job_record.h"

#include "common/bytes_io.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

TEST_CASE("a record is read back as it was written", "[job_record]") {
  JobRecord record;
  record.id = make_job_id("2026-01-02T03:04:05.678Z", 1);
  CHECK(record.id == "20260102-030405678-0001");
  record.name = "gpt";
  record.state = JobState::Failed;
  record.cancels = true;
  record.steps = 300;
  record.devices = "2xcpu";
  record.idempotency_key = "key";
  record.request_sha256 = "abc";
  record.attempts = 2;
  record.submitted = "2026-01-02T03:04:05.678Z";
  record.started = "2026-01-02T03:05:05.678Z";
  record.exit_code = 65;
  record.failure = "error: no such file";
  const auto again = job_record_from_json(to_json(record));
  REQUIRE(again);
  CHECK(*again == record);
  record.exit_code.reset();
  CHECK(*job_record_from_json(to_json(record)) == record);
}

TEST_CASE("records are listed oldest first; a folder that was not finished goes", "[job_record]") {
  const TempDir folder;
  for (const char* id : {"20260102-030405000-ffff", "20260101-030405000-0000", "20260103-000000000-aaaa"}) {
    JobRecord record;
    record.id = id;
    std::filesystem::create_directory(folder / id);
    REQUIRE(save_job_record(folder.path(), record));
  }
  std::filesystem::create_directory(folder / "20260104-000000000-bbbb");
  REQUIRE(write_file(folder / "20260104-000000000-bbbb" / "job.yaml", "name: cut short\n"));
  std::filesystem::create_directory(folder / "somebody-else");
  const auto records = load_job_records(folder.path());
  REQUIRE(records);
  REQUIRE(records->size() == 3);
  CHECK((*records)[0].id == "20260101-030405000-0000");
  CHECK((*records)[2].id == "20260103-000000000-aaaa");
  CHECK_FALSE(std::filesystem::exists(folder / "20260104-000000000-bbbb"));
  CHECK(std::filesystem::exists(folder / "somebody-else"));
}

TEST_CASE("a damaged record is told with its file", "[job_record]") {
  const TempDir folder;
  const std::string id = make_job_id("2026-01-02T03:04:05.678Z", 1);
  std::filesystem::create_directory(folder / id);
  for (const char* text : {"{", "{}", R"({"state": "asleep"})"}) {
    REQUIRE(write_file(folder / id / "record.json", text));
    const auto records = load_job_records(folder.path());
    REQUIRE_FALSE(records);
    CHECK(records.error().code == ErrorCode::DataLoss);
    CHECK(records.error().path == (folder / id / "record.json").string());
  }
}
