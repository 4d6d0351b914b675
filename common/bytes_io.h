#pragma once
// Whole files in, whole files out, atomically; large ones in parts. Threads: pure apart from the file system.
#include <filesystem>
#include <string>
#include <string_view>

#include "common/hash.h"
#include "common/result.h"
#include "common/units.h"

namespace coxswain {

/// Errors: NotFound, PermissionDenied; path = the file.
[[nodiscard]] Result<std::string> read_file(const std::filesystem::path& path);

/// Writes beside `path` and renames, so that a reader sees the old or the new content, never a part. Mode 0600.
/// Errors: FailedPrecondition (disk, permission).
[[nodiscard]] Result<void> write_file(const std::filesystem::path& path, std::string_view content);

/// SHA-256 of a file of any size, read in parts. Errors: as read_file.
[[nodiscard]] Result<std::string> sha256_of_file(const std::filesystem::path& path);

/// The disk gives back what was written: the file is read past what the system keeps of it in memory, where the file
/// system can do that. Errors: DataLoss (another SHA-256), as read_file.
[[nodiscard]] Result<void> check_on_disk(const std::filesystem::path& path, const std::string& sha256);

/// What was created, renamed or removed in the folder is on the disk. Errors: FailedPrecondition.
[[nodiscard]] Result<void> sync_folder(const std::filesystem::path& folder);

/// A file written from front to back. One that `finish` has not ended well is removed.
class NewFile {
 public:
  /// Mode 0600. Errors: FailedPrecondition (it exists, permission).
  [[nodiscard]] static Result<NewFile> create(const std::filesystem::path& path);
  NewFile(NewFile&& other) noexcept;
  NewFile& operator=(NewFile&&) = delete;
  ~NewFile();

  /// Errors, here and from finish: FailedPrecondition (no space, a limit on the file's size).
  [[nodiscard]] Result<void> write(std::string_view content);
  /// On the disk when it returns.
  [[nodiscard]] Result<void> finish();
  [[nodiscard]] Bytes size() const { return size_; }
  /// Of what was written. Call once, after finish.
  [[nodiscard]] std::string sha256() { return hash_.hex(); }

 private:
  NewFile(std::filesystem::path path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  std::filesystem::path path_;
  int descriptor_ = -1;  // -1: closed
  Bytes size_{0};
  Sha256 hash_;
};

}  // namespace coxswain
