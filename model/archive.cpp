#include "model/archive.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

namespace coxswain::model {
namespace {

constexpr std::uint32_t kEndSignature = 0x06054b50, kEnd64Signature = 0x06064b50, kLocator64Signature = 0x07064b50;
constexpr std::uint32_t kDirectorySignature = 0x02014b50, kLocalSignature = 0x04034b50;
constexpr std::size_t kEndSize = 22, kEnd64Size = 56, kLocator64Size = 20, kDirectoryHeaderSize = 46,
                      kLocalHeaderSize = 30;
constexpr std::size_t kMaxComment = 65535;
constexpr std::uint64_t kMaxEntries = 1'000'000;
constexpr std::uint32_t kInZip64 = 0xffffffff;
constexpr std::int64_t kAlwaysUnpacked = std::int64_t{16} << 20, kMostUnpacked = 200;  // bytes; times

/// Little-endian integers at checked positions; a position beyond the end reads as nothing.
class View {
 public:
  explicit View(std::span<const std::byte> bytes) : bytes_(bytes) {}
  [[nodiscard]] std::size_t size() const { return bytes_.size(); }
  [[nodiscard]] bool holds(std::uint64_t offset, std::uint64_t length) const {
    return offset <= bytes_.size() && length <= bytes_.size() - offset;
  }
  template <class Integer>
  [[nodiscard]] Integer at(std::uint64_t offset) const {  // requires holds(offset, sizeof)
    Integer value = 0;
    for (std::size_t i = 0; i < sizeof(Integer); ++i) {
      value = static_cast<Integer>(value |
                                   static_cast<Integer>(std::to_integer<std::uint64_t>(bytes_[offset + i]) << (8 * i)));
    }
    return value;
  }
  [[nodiscard]] std::uint16_t u16(std::uint64_t offset) const { return at<std::uint16_t>(offset); }
  [[nodiscard]] std::uint32_t u32(std::uint64_t offset) const { return at<std::uint32_t>(offset); }
  [[nodiscard]] std::uint64_t u64(std::uint64_t offset) const { return at<std::uint64_t>(offset); }
  [[nodiscard]] std::string text(std::uint64_t offset, std::size_t length) const {
    return {reinterpret_cast<const char*>(bytes_.data()) + offset, length};
  }

 private:
  std::span<const std::byte> bytes_;
};

struct Directory {
  std::uint64_t offset = 0, size = 0, num_entries = 0;
};

// The end record stands at most a comment's length before the end of the file.
std::optional<std::uint64_t> find_end(const View& view) {
  if (view.size() < kEndSize) return std::nullopt;
  const std::uint64_t last = view.size() - kEndSize;
  const std::uint64_t first = last > kMaxComment ? last - kMaxComment : 0;
  for (std::uint64_t offset = last + 1; offset-- > first;) {
    if (view.u32(offset) == kEndSignature && view.u16(offset + 20) == view.size() - offset - kEndSize) return offset;
  }
  return std::nullopt;
}

std::optional<Directory> find_directory(const View& view) {
  const auto end = find_end(view);
  if (!end) return std::nullopt;
  Directory directory{view.u32(*end + 16), view.u32(*end + 12), view.u16(*end + 10)};
  // PyTorch writes both records always; the 64-bit one holds where the 32-bit one overflows.
  if (*end >= kLocator64Size && view.u32(*end - kLocator64Size) == kLocator64Signature) {
    const std::uint64_t end64 = view.u64(*end - kLocator64Size + 8);
    if (!view.holds(end64, kEnd64Size) || view.u32(end64) != kEnd64Signature) return std::nullopt;
    directory = Directory{view.u64(end64 + 48), view.u64(end64 + 40), view.u64(end64 + 32)};
  }
  if (!view.holds(directory.offset, directory.size) || directory.num_entries > kMaxEntries) return std::nullopt;
  return directory;
}

// Fields of 0xffffffff stand in the zip64 extra field, in this order, each only if it overflowed.
bool read_zip64(const View& view, std::uint64_t extra, std::uint64_t extra_end, std::uint64_t& size,
                std::uint64_t& compressed, std::uint64_t& offset) {
  while (extra + 4 <= extra_end) {
    const std::uint64_t next = extra + 4 + view.u16(extra + 2);
    if (next > extra_end) return false;
    if (view.u16(extra) == 1) {
      std::uint64_t field = extra + 4;
      for (std::uint64_t* value : {&size, &compressed, &offset}) {
        if (*value != kInZip64) continue;
        if (field + 8 > next) return false;
        *value = view.u64(field);
        field += 8;
      }
      return true;
    }
    extra = next;
  }
  return false;
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const auto failed = [&](const char* what) {
    const int number = errno;
    const auto code = number == ENOENT   ? ErrorCode::NotFound
                      : number == EACCES ? ErrorCode::PermissionDenied
                                         : ErrorCode::InvalidArgument;
    return Error{code, std::string(what) + ": " + std::strerror(number), path.string(), "a readable file", "", ""};
  };
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return failed("cannot open the file");
  struct stat status{};
  if (::fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(file);
    return Error{ErrorCode::InvalidArgument, "not a regular file", path.string(), "a file", "", ""};
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0) {
    ::close(file);
    return Error{ErrorCode::DataLoss, "the file is empty", path.string(), "", "0 bytes", ""};
  }
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
  const Error error = data == MAP_FAILED ? failed("cannot map the file") : Error{};
  ::close(file);
  if (data == MAP_FAILED) return error;
  return MappedFile(data, size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

void* MappedFile::release() {
  size_ = 0;
  return std::exchange(data_, nullptr);
}

Error Archive::damaged(std::string what, std::string where) const {
  return Error{ErrorCode::DataLoss,
               std::move(what),
               path_.string() + (where.empty() ? "" : ": " + where),
               "",
               "",
               "the file is truncated or damaged; copy or export it again"};
}

Result<Archive> Archive::open(const std::filesystem::path& path) {
  COX_TRY(MappedFile file, MappedFile::open(path));
  Archive archive(path, std::move(file));
  COX_TRY_VOID(archive.read_directory());
  return archive;
}

Result<void> Archive::read_directory() {
  const View view(file_.bytes());
  const auto directory = find_directory(view);
  if (!directory) return damaged("no zip archive: its directory is missing");
  const std::uint64_t end = directory->offset + directory->size;
  std::uint64_t at = directory->offset;
  for (std::uint64_t i = 0; i < directory->num_entries; ++i) {
    if (at + kDirectoryHeaderSize > end || view.u32(at) != kDirectorySignature)
      return damaged("the archive's directory is cut off");
    const std::uint16_t flags = view.u16(at + 8), method = view.u16(at + 10);
    std::uint64_t compressed = view.u32(at + 20), size = view.u32(at + 24), offset = view.u32(at + 42);
    const std::uint64_t name_size = view.u16(at + 28), extra_size = view.u16(at + 30), comment_size = view.u16(at + 32);
    const std::uint64_t extra = at + kDirectoryHeaderSize + name_size, next = extra + extra_size + comment_size;
    if (next > end) return damaged("the archive's directory is cut off");
    const std::string name = view.text(at + kDirectoryHeaderSize, name_size);
    const bool overflowed = size == kInZip64 || compressed == kInZip64 || offset == kInZip64;
    if (overflowed && !read_zip64(view, extra, extra + extra_size, size, compressed, offset)) {
      return damaged("a 64-bit size is missing", name);
    }
    if ((flags & 1) != 0) return damaged("the entry is encrypted", name);
    if (!view.holds(offset, kLocalHeaderSize) || !view.holds(offset + kLocalHeaderSize, compressed)) {
      return damaged("the entry lies beyond the end of the file", name);
    }
    const ArchiveEntry entry{static_cast<std::int64_t>(size), static_cast<std::int64_t>(compressed),
                             static_cast<std::int64_t>(offset), method == 0};
    if (size > static_cast<std::uint64_t>(INT64_MAX) || (entry.stored && size != compressed)) {
      return damaged("the entry's sizes disagree", name);
    }
    if (!entries_.emplace(name, entry).second) return damaged("the entry occurs twice", name);
    at = next;
  }
  return {};
}

Result<std::int64_t> Archive::data_offset(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end())
    return Error{ErrorCode::NotFound, "no such entry in the archive", path_.string() + ": " + name, "", "", ""};
  const ArchiveEntry& entry = found->second;
  if (!entry.stored) return damaged("the entry is compressed; weights must be stored", name);
  const View view(file_.bytes());
  const auto header = static_cast<std::uint64_t>(entry.header_offset);
  if (view.u32(header) != kLocalSignature) return damaged("the entry's own header is missing", name);
  const std::uint64_t name_size = view.u16(header + 26);
  const std::uint64_t first = header + kLocalHeaderSize + name_size + view.u16(header + 28);
  if (!view.holds(first, static_cast<std::uint64_t>(entry.size)) ||
      view.text(header + kLocalHeaderSize, name_size) != name) {
    return damaged("the entry's own header disagrees with the directory", name);
  }
  return static_cast<std::int64_t>(first);
}

Result<std::string> Archive::read(const std::string& name, std::int64_t max_size) const {
  const auto found = entries_.find(name);
  if (found == entries_.end())
    return Error{ErrorCode::NotFound, "no such entry in the archive", path_.string() + ": " + name, "", "", ""};
  if (found->second.size > max_size) {
    Error error = damaged("the entry is larger than it can be", name);
    error.expected = "at most " + std::to_string(max_size) + " bytes";
    error.got = std::to_string(found->second.size) + " bytes";
    return error;
  }
  // An honest graph of JSON unpacks to some twenty times its size.
  if (found->second.size > kAlwaysUnpacked && found->second.size / kMostUnpacked > found->second.compressed_size) {
    Error error = damaged("the entry unpacks to far more than a model does", name);
    error.expected = "at most " + std::to_string(kMostUnpacked) + " times its size in the archive";
    error.got =
        std::to_string(found->second.compressed_size) + " bytes that unpack to " + std::to_string(found->second.size);
    return error;
  }
  int code = 0;
  const std::unique_ptr<zip_t, decltype(&zip_discard)> zip(zip_open(path_.c_str(), ZIP_RDONLY, &code), &zip_discard);
  if (!zip) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    std::string text = zip_error_strerror(&error);
    zip_error_fini(&error);
    return damaged("libzip cannot open the archive: " + text);
  }
  const std::unique_ptr<zip_file_t, decltype(&zip_fclose)> file(zip_fopen(zip.get(), name.c_str(), 0), &zip_fclose);
  if (!file) return damaged(std::string("libzip cannot open the entry: ") + zip_strerror(zip.get()), name);
  std::string content(static_cast<std::size_t>(found->second.size), '\0');
  std::size_t done = 0;
  // One byte more than expected: libzip compares the CRC when it meets the end.
  for (char beyond = 0;;) {
    const bool full = done == content.size();
    const zip_int64_t got =
        zip_fread(file.get(), full ? &beyond : content.data() + done, full ? 1 : content.size() - done);
    if (got < 0) return damaged(std::string("the entry cannot be read: ") + zip_file_strerror(file.get()), name);
    if (got == 0) break;
    if (full) return damaged("the entry is longer than its directory says", name);
    done += static_cast<std::size_t>(got);
  }
  if (done != content.size()) return damaged("the entry is shorter than its directory says", name);
  return content;
}

}  // namespace coxswain::model
