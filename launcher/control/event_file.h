#pragma once
// TensorBoard's event file: what metrics.jsonl says of a step, as scalars. Called by run_output. Threads: one writer.
// Source: the record format of TFRecord files: length, its masked CRC-32C, data, its masked CRC-32C, little-endian.
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "common/result.h"

namespace coxswain::launcher {

class EventFile {
 public:
  /// A file of its own in `folder`, which is made: TensorBoard shows all files of a folder as one run, so that a
  /// coordinator that was restarted adds another. `utc`: now, as Clock::utc_text says it.
  explicit EventFile(std::filesystem::path folder, const std::string& utc);
  /// On the disk's way when it returns. Values that are not finite stay so. Errors: FailedPrecondition (disk).
  [[nodiscard]] Result<void> add(std::int64_t step, const std::string& utc,
                                 const std::map<std::string, double>& values);
  [[nodiscard]] const std::filesystem::path& file() const { return file_; }

 private:
  [[nodiscard]] Result<void> append(const std::string& event);
  std::filesystem::path file_;
  std::string first_;  // the event that a file begins with; empty once it is written
};

/// Of "2026-11-23T22:38:01.123Z". Requires: such a text.
[[nodiscard]] double seconds_since_1970(const std::string& utc);
/// One record of the file.
[[nodiscard]] std::string event_record(const std::string& data);

}  // namespace coxswain::launcher
