#include "launcher/control/run_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "common/bytes_io.h"

namespace coxswain::launcher {

std::filesystem::path default_run_directory(const std::string& name, const Clock& clock) {
  // "2026-11-23T22:38:01.123Z" -> "20261123-223801"
  const std::string now = clock.utc_text();
  std::string stamp;
  for (char c : now.substr(0, 19)) {
    if (c == 'T') stamp += '-';
    if (c >= '0' && c <= '9') stamp += c;
  }
  return std::filesystem::path("runs") / (name + "-" + stamp);
}

Result<void> make_run_directory(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return Error{ErrorCode::FailedPrecondition,
                 "cannot make the run directory",
                 folder.string(),
                 "a folder that can be made and written",
                 error.message(),
                 "name another with --run-dir"};
  }
  if (!std::filesystem::is_empty(folder, error) || error) {
    return Error{ErrorCode::AlreadyExists, "the run directory holds another run",
                 folder.string(),          "an empty or new folder",
                 "a folder with files",    "name another with --run-dir, or remove it"};
  }
  if (::chmod(folder.c_str(), 0700) != 0 || ::access(folder.c_str(), W_OK | X_OK) != 0) {
    return Error{
        ErrorCode::FailedPrecondition, "cannot write the run directory", folder.string(), "a folder of this user",
        std::strerror(errno),          "name another with --run-dir"};
  }
  return {};
}

Result<void> RunDirectory::write(const std::string& name, std::string_view content) const {
  const std::filesystem::path file = folder_ / name;
  std::error_code ignored;  // told by the write that follows
  std::filesystem::create_directories(file.parent_path(), ignored);
  return write_file(file, content);
}

Result<void> RunDirectory::append(const std::string& name, const Json& object) const {
  const std::filesystem::path file = folder_ / name;
  const int descriptor = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const std::string line = to_text(object) + "\n";
  const bool written =
      descriptor >= 0 && ::write(descriptor, line.data(), line.size()) == static_cast<ssize_t>(line.size());
  const int number = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (!written)
    return Error{
        ErrorCode::FailedPrecondition, "cannot write a file of the run", file.string(), "", std::strerror(number), ""};
  return {};
}

Result<FileEnd> RunDirectory::find_end(const std::string& name, const FileEnd& known) const {
  constexpr std::size_t kBlock = 1 << 20;
  const std::filesystem::path file = folder_ / name;
  const std::int64_t size = this->size(name);
  if (size < known.bytes)
    return Error{ErrorCode::DataLoss,  "a file of the run is shorter than it was",
                 file.string(),        "at least " + std::to_string(known.bytes) + " bytes",
                 std::to_string(size), "start the run again with --resume: checkpoints do not depend on it"};
  FileEnd end = known;
  std::ifstream in(file, std::ios::binary);
  in.seekg(known.bytes);
  std::string block(kBlock, '\0');
  for (std::int64_t at = known.bytes; at < size && in;) {
    in.read(block.data(), static_cast<std::streamsize>(kBlock));
    const std::string_view read(block.data(), static_cast<std::size_t>(in.gcount()));
    end.lines += std::count(read.begin(), read.end(), '\n');
    if (const auto last = read.rfind('\n'); last != std::string_view::npos)
      end.bytes = at + static_cast<std::int64_t>(last) + 1;
    at += static_cast<std::int64_t>(read.size());
  }
  std::error_code error;
  if (end.bytes < size) std::filesystem::resize_file(file, static_cast<std::uintmax_t>(end.bytes), error);
  if (error)
    return Error{
        ErrorCode::FailedPrecondition, "cannot write a file of the run", file.string(), "", error.message(), ""};
  return end;
}

std::int64_t RunDirectory::size(const std::string& name) const {
  std::error_code none;
  const std::uintmax_t bytes = std::filesystem::file_size(folder_ / name, none);
  return none ? 0 : static_cast<std::int64_t>(bytes);
}

Result<void> RunDirectory::append_event(Json event) const {
  if (event["time"].is_null()) event["time"] = clock_.utc_text();
  return append("events.jsonl", event);
}

}  // namespace coxswain::launcher
