#pragma once
// The files that a run leaves (INTERFACE section 3): one folder, 0700, files 0600; one that holds another run is
// refused. Called by run_train (makes it) and the coordinator (writes). Threads: one writer.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "common/clock.h"
#include "common/json.h"
#include "common/result.h"

namespace coxswain::launcher {

/// "runs/NAME-20260102-030405", beneath the current folder.
[[nodiscard]] std::filesystem::path default_run_directory(const std::string& name, const Clock& clock);

/// Errors: AlreadyExists (the folder is not empty), FailedPrecondition (cannot be made or written).
[[nodiscard]] Result<void> make_run_directory(const std::filesystem::path& folder);

/// So many whole lines, in so many bytes.
struct FileEnd {
  std::int64_t lines = 0, bytes = 0;
};

class RunDirectory {
 public:
  /// Requires: made by make_run_directory.
  explicit RunDirectory(std::filesystem::path folder, const Clock& clock) : folder_(std::move(folder)), clock_(clock) {}
  [[nodiscard]] const std::filesystem::path& path() const { return folder_; }
  /// Atomic; makes the folder that `name` says. Errors: FailedPrecondition (disk).
  [[nodiscard]] Result<void> write(const std::string& name, std::string_view content) const;
  /// One line at the end of `name`; whole lines only.
  [[nodiscard]] Result<void> append(const std::string& name, const Json& object) const;
  /// Where a file that append wrote ends; a last line that was cut short (its writer was killed) is cut off. Reads only
  /// what comes after `known`, an end that it had before. Errors: FailedPrecondition (disk), DataLoss (it is shorter).
  [[nodiscard]] Result<FileEnd> find_end(const std::string& name, const FileEnd& known) const;
  /// Its size in bytes; 0 where there is no such file.
  [[nodiscard]] std::int64_t size(const std::string& name) const;
  /// events.jsonl: `event` with its `time` (now, when it has none).
  [[nodiscard]] Result<void> append_event(Json event) const;

 private:
  std::filesystem::path folder_;
  const Clock& clock_;
};

}  // namespace coxswain::launcher
