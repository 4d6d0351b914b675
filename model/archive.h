#pragma once
// A zip file read with suspicion: our own bounded walk of the central directory gives names, sizes and the file offset
// of stored entries (libzip 1.7 has no call for it); libzip reads content and checks CRCs. Private to this folder.
// Threads: one at a time. Source: PKWARE APPNOTE 6.3.9, sections 4.3 and 4.5.3 (zip64).
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace coxswain::model {

/// A file mapped read-only. The file must not shrink while mapped.
class MappedFile {
 public:
  /// Errors: NotFound, PermissionDenied, DataLoss (empty).
  [[nodiscard]] static Result<MappedFile> open(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  [[nodiscard]] std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }
  /// Gives the mapping up to the caller.
  void* release();

 private:
  MappedFile(void* data, std::size_t size) : data_(data), size_(size) {}
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

struct ArchiveEntry {
  std::int64_t size = 0;  // uncompressed
  std::int64_t compressed_size = 0;
  std::int64_t header_offset = 0;  // of the local header
  bool stored = false;             // not compressed
};

class Archive {
 public:
  /// Reads the directory. Errors: NotFound, DataLoss (no zip file, truncated, an entry beyond the end).
  [[nodiscard]] static Result<Archive> open(const std::filesystem::path& path);

  [[nodiscard]] const std::map<std::string, ArchiveEntry>& entries() const { return entries_; }
  [[nodiscard]] bool contains(const std::string& name) const { return entries_.contains(name); }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  /// Content, CRC checked. Errors: NotFound; DataLoss (bad CRC, longer than `max_size`).
  [[nodiscard]] Result<std::string> read(const std::string& name, std::int64_t max_size) const;
  /// Offset in the file of a stored entry's first byte. Errors: NotFound; DataLoss (compressed, local header
  /// disagrees).
  [[nodiscard]] Result<std::int64_t> data_offset(const std::string& name) const;

 private:
  Archive(std::filesystem::path path, MappedFile file) : path_(std::move(path)), file_(std::move(file)) {}
  Result<void> read_directory();
  [[nodiscard]] Error damaged(std::string what, std::string where = "") const;

  std::filesystem::path path_;
  MappedFile file_;
  std::map<std::string, ArchiveEntry> entries_;
};

}  // namespace coxswain::model
