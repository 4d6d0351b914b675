#include "common/bytes_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "common/hash.h"

namespace coxswain {
namespace {

/// Closes on every way out.
class OpenFile {
 public:
  explicit OpenFile(int descriptor) : descriptor_(descriptor) {}
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  ~OpenFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  [[nodiscard]] int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

Error errno_error(ErrorCode code, std::string message, const std::filesystem::path& path, int number,
                  std::string hint) {
  return Error{code, std::move(message), path.string(), "", std::strerror(number), std::move(hint)};
}

ErrorCode code_of_read(int number) {
  if (number == ENOENT || number == ENOTDIR) return ErrorCode::NotFound;
  if (number == EACCES || number == EPERM) return ErrorCode::PermissionDenied;
  return ErrorCode::FailedPrecondition;
}

bool write_all(int descriptor, std::string_view content) {
  while (!content.empty()) {
    const ssize_t written = ::write(descriptor, content.data(), content.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return false;
    }
    content.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace

Result<std::string> read_file(const std::filesystem::path& path) {
  const OpenFile file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.descriptor() < 0) return errno_error(code_of_read(errno), "cannot open the file", path, errno, "");
  struct stat status{};
  if (::fstat(file.descriptor(), &status) != 0) {
    return errno_error(code_of_read(errno), "cannot look at the file", path, errno, "");
  }
  if (S_ISDIR(status.st_mode)) {
    return Error{ErrorCode::NotFound, "cannot read the file", path.string(), "a file", "a directory", ""};
  }
  // The size is a first guess only: files under /proc and /sys report 0 or a page.
  std::string content(static_cast<std::size_t>(status.st_size) + 1, '\0');
  std::size_t filled = 0;
  while (true) {
    const ssize_t got = ::read(file.descriptor(), content.data() + filled, content.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno_error(code_of_read(errno), "cannot read the file", path, errno, "");
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
    if (filled == content.size()) content.resize(2 * content.size() + 4096);
  }
  content.resize(filled);
  return content;
}

Result<void> write_file(const std::filesystem::path& path, std::string_view content) {
  const std::filesystem::path partial = path.string() + "." + random_hex(6) + ".partial";
  const auto fail = [&](const char* message) -> Error {
    const int number = errno;
    ::unlink(partial.c_str());
    return errno_error(ErrorCode::FailedPrecondition, message, path, number,
                       "check free space and the permissions of the folder");
  };
  {
    const OpenFile file(::open(partial.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (file.descriptor() < 0) return fail("cannot create the file");
    if (!write_all(file.descriptor(), content)) return fail("cannot write the file");
    // Before the rename: after a power cut the new name must not show an empty file.
    if (::fsync(file.descriptor()) != 0) return fail("cannot write the file");
  }
  if (::rename(partial.c_str(), path.c_str()) != 0) return fail("cannot put the file in its place");
  return {};
}

namespace {

Result<std::string> sha256_of(const OpenFile& file, const std::filesystem::path& path) {
  if (file.descriptor() < 0) return errno_error(code_of_read(errno), "cannot open the file", path, errno, "");
  Sha256 hash;
  std::string part(std::size_t{1} << 20, '\0');
  while (true) {
    const ssize_t got = ::read(file.descriptor(), part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno_error(code_of_read(errno), "cannot read the file", path, errno, "");
    if (got == 0) return hash.hex();
    hash.add(std::string_view(part).substr(0, static_cast<std::size_t>(got)));
  }
}

}  // namespace

Result<std::string> sha256_of_file(const std::filesystem::path& path) {
  return sha256_of(OpenFile(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), path);
}

Result<void> check_on_disk(const std::filesystem::path& path, const std::string& sha256) {
  const OpenFile file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  static_cast<void>(::posix_fadvise(file.descriptor(), 0, 0, POSIX_FADV_DONTNEED));
  COX_TRY(const std::string found, sha256_of(file, path));
  if (found == sha256) return {};
  return Error{ErrorCode::DataLoss,
               "the disk gives back something else than was written",
               path.string(),
               "SHA-256 " + sha256,
               found,
               "look at the disk, and at the memory of this machine"};
}

Result<void> sync_folder(const std::filesystem::path& folder) {
  const OpenFile file(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (file.descriptor() >= 0 && ::fsync(file.descriptor()) == 0) return {};
  return errno_error(ErrorCode::FailedPrecondition, "cannot write the folder to the disk", folder, errno, "");
}

Result<NewFile> NewFile::create(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0) return errno_error(ErrorCode::FailedPrecondition, "cannot create the file", path, errno, "");
  return NewFile(path, descriptor);
}

NewFile::NewFile(NewFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_),
      hash_(std::move(other.hash_)) {}

NewFile::~NewFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(path_.c_str());
}

Result<void> NewFile::write(std::string_view content) {
  if (!write_all(descriptor_, content))
    return errno_error(ErrorCode::FailedPrecondition, "cannot write the file", path_, errno, "check free space");
  hash_.add(content);
  size_ += Bytes(static_cast<std::int64_t>(content.size()));
  return {};
}

Result<void> NewFile::finish() {
  if (::fsync(descriptor_) != 0)
    return errno_error(ErrorCode::FailedPrecondition, "cannot write the file", path_, errno, "check free space");
  ::close(std::exchange(descriptor_, -1));
  return {};
}

}  // namespace coxswain
