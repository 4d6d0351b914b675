#pragma once
// Checkpoints on disk: DIRECTORY/step_N/ is complete or does not exist. Ranks write their shards into
// DIRECTORY/step_N.partial/; whoever has all their records writes the manifest there, syncs and renames. Finding one
// reads every byte: what is torn, flipped or missing is left aside, by name, and an older one is taken.
// Called by launcher and worker. Threads: pure but for the files; one publisher for a directory, but of parts. Source:
// DESIGN 3.9.
#include <filesystem>
#include <optional>
#include <vector>

#include "checkpoint/manifest.h"

namespace coxswain::checkpoint {

inline constexpr const char* kManifestFile = "manifest.json";

[[nodiscard]] std::filesystem::path folder_of(const std::filesystem::path& directory, std::int64_t step);
/// Made with its parents where it is not there. Errors: FailedPrecondition.
[[nodiscard]] Result<std::filesystem::path> make_partial_folder(const std::filesystem::path& directory,
                                                                std::int64_t step);

/// The partial folder of manifest.progress.step becomes the checkpoint; one of that step that was there is replaced, at
/// one instant. Errors: FailedPrecondition (disk), DataLoss (a shard that is not there in its size, a parameter that no
/// shard holds whole); the partial folder stays then.
[[nodiscard]] Result<void> publish(const std::filesystem::path& directory, const Manifest& manifest);

/// The manifest and every shard are what was written. Errors: NotFound; DataLoss with every problem.
[[nodiscard]] Result<Manifest> verify(const std::filesystem::path& folder);

struct Found {
  std::filesystem::path folder;
  Manifest manifest;
};
struct Search {
  std::optional<Found> newest;  // that verifies
  std::vector<Error> rejected;  // newer ones that do not
};
/// An empty result where there is no directory.
[[nodiscard]] Search find_newest(const std::filesystem::path& directory);

/// A node's part of a checkpoint whose other shards lie on other nodes' disks (spread.h): as publish, but without the
/// shards that are not here. One of another size is not here either (it came torn, or is left from an attempt before):
/// it is removed. Where there is no partial folder, one without shards is made. Several nodes may do so at once, on
/// disks of their own or on one: who comes second finds it done. Returns the files of the shards that are here.
/// Errors: FailedPrecondition (disk), DataLoss (a parameter that no shard of the manifest holds whole).
[[nodiscard]] Result<std::vector<std::string>> publish_part(const std::filesystem::path& directory,
                                                            const Manifest& manifest);

/// What is here of a checkpoint.
struct Part {
  std::string manifest;            // its text
  std::vector<std::string> files;  // shards that are as they were written
};
/// Of all checkpoints, newest first; every byte is read. Folders without a whole manifest are left out.
[[nodiscard]] std::vector<Part> list_parts(const std::filesystem::path& directory);

/// By its name alone; -1 where there is none.
[[nodiscard]] std::int64_t newest_step(const std::filesystem::path& directory);

/// Of the checkpoints up to `step` removes all but the newest `keep`, and partial folders. Later ones, which a run that
/// went back past them found damaged, neither count nor go.
/// Errors: FailedPrecondition, naming what could not be removed.
[[nodiscard]] Result<void> prune(const std::filesystem::path& directory, std::int64_t keep, std::int64_t step);

}  // namespace coxswain::checkpoint
