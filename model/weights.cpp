#include <sys/mman.h>

#include <utility>

#include "model/archive.h"
#include "model/load.h"

namespace coxswain::model {
namespace {

// Inputs of a recorded step are the largest entries read whole; weights are mapped.
constexpr std::int64_t kMaxEntryBytes = std::int64_t{4} << 30;

}  // namespace

Result<std::string> read_archive_entry(const std::filesystem::path& archive, std::string_view entry) {
  COX_TRY(const Archive opened, Archive::open(archive));
  return opened.read(std::string(entry), kMaxEntryBytes);
}

Result<WeightFile> WeightFile::open(const std::filesystem::path& path) {
  COX_TRY(MappedFile mapped, MappedFile::open(path));
  WeightFile file;
  file.size_ = mapped.bytes().size();
  file.mapping_ = mapped.release();
  return file;
}

WeightFile::WeightFile(WeightFile&& other) noexcept
    : mapping_(std::exchange(other.mapping_, nullptr)), size_(std::exchange(other.size_, 0)) {}

WeightFile& WeightFile::operator=(WeightFile&& other) noexcept {
  std::swap(mapping_, other.mapping_);
  std::swap(size_, other.size_);
  return *this;
}

WeightFile::~WeightFile() {
  if (mapping_ != nullptr) ::munmap(mapping_, size_);
}

Result<const std::byte*> WeightFile::at(const WeightLocation& location, Bytes needed) const {
  const auto size = static_cast<std::int64_t>(size_);
  if (location.file_offset < 0 || needed.value < 0 || location.file_offset > size ||
      needed.value > size - location.file_offset) {
    return Error{ErrorCode::DataLoss,
                 "the model file is shorter than its weights",
                 location.entry,
                 std::to_string(needed.value) + " bytes at " + std::to_string(location.file_offset),
                 "a file of " + std::to_string(size) + " bytes",
                 "the file was changed or cut after it was read; export it again"};
  }
  return static_cast<const std::byte*>(mapping_) + location.file_offset;
}

}  // namespace coxswain::model
