#pragma once
// Whole files in, whole files out, atomically. Threads: pure apart from the file system.
#include <filesystem>
#include <string>
#include <string_view>

#include "common/result.h"

namespace coxswain {

/// Errors: NotFound, PermissionDenied; path = the file.
[[nodiscard]] Result<std::string> read_file(const std::filesystem::path& path);

/// Writes beside `path` and renames, so that a reader sees the old or the new content, never a part. Mode 0600.
/// Errors: FailedPrecondition (disk, permission).
[[nodiscard]] Result<void> write_file(const std::filesystem::path& path, std::string_view content);

}  // namespace coxswain
