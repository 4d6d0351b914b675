#include "checkpoint/folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <map>
#include <system_error>

#include "common/bytes_io.h"

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE (1 << 1)
#endif

namespace coxswain::checkpoint {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kPrefix = "step_", kPartial = ".partial";

Error disk_error(std::string message, const fs::path& path, const std::error_code& code) {
  return Error{ErrorCode::FailedPrecondition,
               std::move(message),
               path.string(),
               "",
               code.message(),
               "check free space and the permissions of the folder"};
}

fs::path partial_folder(const fs::path& directory, std::int64_t step) {
  return folder_of(directory, step).string() + std::string(kPartial);
}

/// The step that a folder of checkpoints is named after; -1: another folder.
std::int64_t step_of(std::string_view name) {
  if (!name.starts_with(kPrefix)) return -1;
  name.remove_prefix(kPrefix.size());
  std::int64_t step = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  return error == std::errc() && end == name.data() + name.size() ? step : -1;
}

struct Listing {
  std::map<std::int64_t, fs::path> complete, partial;  // by step
};

Listing list(const fs::path& directory) {
  Listing listing;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    std::string name = entry.path().filename().string();
    const bool is_partial = name.ends_with(kPartial);
    if (is_partial) name.resize(name.size() - kPartial.size());
    if (const std::int64_t step = step_of(name); step >= 0)
      (is_partial ? listing.partial : listing.complete).emplace(step, entry.path());
  }
  return listing;
}

std::error_code last_error() { return {errno, std::generic_category()}; }

/// At one instant; `to` may exist, and then takes the place of `from`.
Result<void> put_in_place(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return {};
  if ((errno == ENOTEMPTY || errno == EEXIST) &&
      ::syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    std::error_code ignored;
    fs::remove_all(from, ignored);
    return {};
  }
  return disk_error("cannot put the checkpoint in its place", to, last_error());
}

Result<void> check_sizes(const fs::path& folder, const std::vector<Shard>& shards) {
  std::vector<Error> problems;
  for (const Shard& shard : shards) {
    std::error_code code;
    const auto size = fs::file_size(folder / shard.file, code);
    if (!code && static_cast<std::int64_t>(size) == shard.size.value) continue;
    problems.push_back({ErrorCode::DataLoss, code ? "a shard of the checkpoint is missing" : "a shard is not whole",
                        (folder / shard.file).string(), std::to_string(shard.size.value) + " bytes",
                        code ? code.message() : std::to_string(size) + " bytes", ""});
  }
  if (problems.empty()) return {};
  return combine_errors(ErrorCode::DataLoss, "the checkpoint is not complete", std::move(problems));
}

/// Those of `shards` that are there in their size.
std::vector<Shard> present_shards(const fs::path& folder, const std::vector<Shard>& shards) {
  std::vector<Shard> present;
  std::error_code code;
  for (const Shard& shard : shards) {
    const auto size = fs::file_size(folder / shard.file, code);
    if (!code && static_cast<std::int64_t>(size) == shard.size.value) present.push_back(shard);
  }
  return present;
}

Result<void> remove_others(const fs::path& folder, const std::vector<Shard>& kept) {
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(folder, code)) {
    const std::string name = entry.path().filename().string();
    if (std::any_of(kept.begin(), kept.end(), [&](const Shard& shard) { return shard.file == name; })) continue;
    fs::remove_all(entry.path(), code);
    if (code) break;
  }
  if (code) return disk_error("cannot remove what is left of an older attempt", folder, code);
  return {};
}

std::vector<std::string> files_of(const std::vector<Shard>& shards) {
  std::vector<std::string> files;
  for (const Shard& shard : shards) files.push_back(shard.file);
  return files;
}

Result<void> check_content(const fs::path& folder, const std::vector<Shard>& shards) {
  std::vector<Error> problems;
  for (const Shard& shard : shards) {
    auto found = sha256_of_file(folder / shard.file);
    if (!found)
      problems.push_back(found.error());
    else if (*found != shard.sha256)
      problems.push_back({ErrorCode::DataLoss, "a shard is not as it was written", (folder / shard.file).string(),
                          "SHA-256 " + shard.sha256, *found, ""});
  }
  if (problems.empty()) return {};
  return combine_errors(ErrorCode::DataLoss, "the checkpoint is damaged", std::move(problems));
}

/// Held by one process at a time, for the moment of a publication. Without the folder, or on a file system without
/// locks, by everybody.
class FolderLock {
 public:
  explicit FolderLock(const fs::path& folder)
      : descriptor_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    while (descriptor_ >= 0 && ::flock(descriptor_, LOCK_EX) != 0 && errno == EINTR) {}
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  ~FolderLock() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

 private:
  int descriptor_;
};

/// Whoever was killed while it published does it again, perhaps when all but its last line was done.
bool is_published(const fs::path& directory, const Manifest& manifest) {
  if (std::error_code none; fs::exists(partial_folder(directory, manifest.progress.step), none)) return false;
  const auto text = read_file(folder_of(directory, manifest.progress.step) / kManifestFile);
  return text && *text == to_text(manifest);
}

/// `shards`: those of the manifest that have to be here.
Result<void> publish_shards(const fs::path& directory, const Manifest& manifest, const std::vector<Shard>& shards) {
  if (is_published(directory, manifest)) return sync_folder(directory);
  const fs::path partial = partial_folder(directory, manifest.progress.step);
  COX_TRY_VOID(check_sizes(partial, shards));
  COX_TRY_VOID(check_complete(manifest.shards));
  COX_TRY_VOID(write_file(partial / kManifestFile, to_text(manifest)));
  COX_TRY_VOID(sync_folder(partial));
  COX_TRY_VOID(put_in_place(partial, folder_of(directory, manifest.progress.step)));
  return sync_folder(directory);
}

}  // namespace

fs::path folder_of(const fs::path& directory, std::int64_t step) {
  return directory / (std::string(kPrefix) + std::to_string(step));
}

Result<fs::path> make_partial_folder(const fs::path& directory, std::int64_t step) {
  fs::path folder = partial_folder(directory, step);
  std::error_code code;
  fs::create_directories(folder, code);
  if (code) return disk_error("cannot make the checkpoint's folder", folder, code);
  return folder;
}

Result<void> publish(const fs::path& directory, const Manifest& manifest) {
  return publish_shards(directory, manifest, manifest.shards);
}

Result<std::vector<std::string>> publish_part(const fs::path& directory, const Manifest& manifest) {
  const FolderLock lock(directory);
  const std::int64_t step = manifest.progress.step;
  if (!is_published(directory, manifest)) {
    COX_TRY(const fs::path partial, make_partial_folder(directory, step));
    const std::vector<Shard> present = present_shards(partial, manifest.shards);
    COX_TRY_VOID(remove_others(partial, present));
    COX_TRY_VOID(publish_shards(directory, manifest, present));
  } else {
    COX_TRY_VOID(sync_folder(directory));
  }
  return files_of(present_shards(folder_of(directory, step), manifest.shards));
}

std::vector<Part> list_parts(const fs::path& directory) {
  std::vector<Part> parts;
  const Listing listing = list(directory);
  for (auto entry = listing.complete.rbegin(); entry != listing.complete.rend(); ++entry) {
    const auto text = read_file(entry->second / kManifestFile);
    if (!text) continue;
    const auto manifest = parse_manifest(*text);
    if (!manifest || manifest->progress.step != entry->first) continue;
    Part part{*text, {}};
    for (const Shard& shard : present_shards(entry->second, manifest->shards))
      if (check_content(entry->second, {shard})) part.files.push_back(shard.file);
    parts.push_back(std::move(part));
  }
  return parts;
}

Result<Manifest> verify(const fs::path& folder) {
  COX_TRY(const std::string text, read_file(folder / kManifestFile));
  auto manifest = parse_manifest(text);
  if (!manifest) return with_path_prefix(manifest.error(), (folder / kManifestFile).string());
  COX_TRY_VOID(check_sizes(folder, manifest->shards));
  COX_TRY_VOID(check_content(folder, manifest->shards));
  COX_TRY_VOID(check_complete(manifest->shards));
  return manifest;
}

Search find_newest(const fs::path& directory) {
  Search search;
  const Listing listing = list(directory);
  for (auto entry = listing.complete.rbegin(); entry != listing.complete.rend() && !search.newest; ++entry) {
    auto manifest = verify(entry->second);
    if (manifest && manifest->progress.step != entry->first)
      manifest = Error{ErrorCode::DataLoss,          "the manifest is another step's",        entry->second.string(),
                       std::to_string(entry->first), std::to_string(manifest->progress.step), ""};
    if (manifest)
      search.newest = Found{entry->second, std::move(*manifest)};
    else
      search.rejected.push_back(manifest.error());
  }
  return search;
}

std::int64_t newest_step(const fs::path& directory) {
  const Listing listing = list(directory);
  return listing.complete.empty() ? -1 : listing.complete.rbegin()->first;
}

Result<void> prune(const fs::path& directory, std::int64_t keep, std::int64_t step) {
  const Listing listing = list(directory);
  std::vector<fs::path> removed;
  std::int64_t kept = 0;
  for (auto entry = listing.complete.rbegin(); entry != listing.complete.rend(); ++entry)
    if (entry->first <= step && ++kept > keep) removed.push_back(entry->second);
  for (const auto& [begun, folder] : listing.partial)
    if (begun <= step) removed.push_back(folder);
  for (const fs::path& folder : removed) {
    std::error_code code;
    fs::remove_all(folder, code);
    if (code) return disk_error("cannot remove an old checkpoint", folder, code);
  }
  return {};
}

}  // namespace coxswain::checkpoint
