#include "launcher/control/input_files.h"

#include <utility>

#include "common/bytes_io.h"
#include "common/log.h"

namespace coxswain::launcher {
namespace {

namespace fs = std::filesystem;

constexpr double kListSeconds = 600, kFileSeconds = 60;
constexpr double kLeastRate = 2e6;  // bytes a second
constexpr std::size_t kFolderDigits = 16;

bool is_here(const proto::SharedFile& file) {
  std::error_code code;
  const auto size = fs::file_size(file.path, code);
  if (code || size != static_cast<std::uintmax_t>(file.size.value)) return false;
  const auto sha256 = sha256_of_file(file.path);
  return sha256 && *sha256 == file.sha256;
}

}  // namespace

std::vector<fs::path> input_paths(const Job& job, bool trains) {
  std::vector<fs::path> paths{job.model.pt2};
  if (trains) paths.insert(paths.end(), {job.data.text, job.data.tensors});
  std::erase_if(paths, [](const fs::path& path) { return path.empty(); });
  for (fs::path& path : paths) path = fs::absolute(path);
  return paths;
}

Result<std::vector<proto::SharedFile>> InputFiles::list() {
  const std::lock_guard lock(mutex_);
  if (files_) return *files_;
  std::vector<proto::SharedFile> files;
  for (const fs::path& path : paths_) {
    COX_TRY(std::string sha256, sha256_of_file(path));
    std::error_code code;
    const auto size = fs::file_size(path, code);
    if (code) return Error{ErrorCode::NotFound, "cannot look at the file", path.string(), "", code.message(), ""};
    files.push_back({path, Bytes{static_cast<std::int64_t>(size)}, std::move(sha256)});
  }
  files_ = std::move(files);
  return *files_;
}

Result<std::map<std::string, std::string>> fetch_inputs(const std::string& coordinator, const proto::Secret& secret,
                                                        const fs::path& folder, const std::stop_token& stop) {
  // It may have to read them first.
  const auto within = [](double seconds, Bytes bytes) {
    return Deadline::after(steady_clock(), Seconds(seconds + static_cast<double>(bytes.value) / kLeastRate));
  };
  COX_TRY(const auto files, proto::list_inputs(coordinator, secret, within(kListSeconds, Bytes{0})));
  std::map<std::string, std::string> fetched;
  for (const proto::SharedFile& file : files) {
    if (stop.stop_requested()) break;
    if (is_here(file)) continue;
    // Under its own name, which a model goes by.
    const fs::path target = folder / file.sha256.substr(0, kFolderDigits) / file.path.filename();
    fetched[file.path.string()] = target.string();
    std::error_code code;
    if (fs::exists(target, code)) continue;
    fs::create_directories(target.parent_path(), code);
    if (code)
      return Error{
          ErrorCode::FailedPrecondition,     "cannot make a folder", target.parent_path().string(), "", code.message(),
          "check free space and permissions"};
    log(LogLevel::Info, "agent", "fetches " + file.path.string() + " from the coordinator");
    COX_TRY_VOID(proto::get_file({coordinator, file.path.parent_path(), file.path.filename().string()}, file.size,
                                 file.sha256, target, secret, within(kFileSeconds, file.size), stop));
  }
  return fetched;
}

}  // namespace coxswain::launcher
