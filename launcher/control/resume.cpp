#include "launcher/control/resume.h"

#include "checkpoint/folder.h"

namespace coxswain::launcher {
namespace {

namespace fs = std::filesystem;

Error not_found(const fs::path& path) {
  return {ErrorCode::NotFound,
          "no checkpoint there",
          path.string(),
          "a folder step_N with a manifest.json, a folder of such, or a run's folder",
          fs::exists(path) ? "none" : "no such folder",
          "--resume auto, --resume never, or another path"};
}

/// The newest whole one under a path that the user gave.
Result<checkpoint::Search> search_at(const fs::path& path) {
  if (fs::exists(path / checkpoint::kManifestFile)) {
    COX_TRY(auto manifest, checkpoint::verify(path));
    return checkpoint::Search{checkpoint::Found{path, std::move(manifest)}, {}};
  }
  for (const fs::path& directory : {path, path / "checkpoints"}) {
    checkpoint::Search search = checkpoint::find_newest(directory);
    if (search.newest || !search.rejected.empty()) return search;
  }
  return not_found(path);
}

Result<void> check_fits(const checkpoint::Found& found, const ResumeRequest& request) {
  if (found.manifest.model_hash != request.model_hash)
    return Error{
        ErrorCode::InvalidArgument, "the checkpoint is of another model",
        found.folder.string(),      request.model_hash,
        found.manifest.model_hash,  "train the model that it was saved from, or start anew with --resume never"};
  const std::int64_t step = found.manifest.progress.step;
  if (step >= request.steps)
    return Error{ErrorCode::InvalidArgument,
                 "all steps are taken already",
                 found.folder.string(),
                 "fewer than train.steps = " + std::to_string(request.steps),
                 std::to_string(step),
                 "raise train.steps, or start anew with --resume never and another checkpoint.directory"};
  return {};
}

}  // namespace

Result<checkpoint::Found> find_checkpoint_at(const fs::path& path) {
  COX_TRY(checkpoint::Search search, search_at(path));
  if (search.newest) return std::move(*search.newest);
  return combine_errors(ErrorCode::DataLoss, "no checkpoint there is whole", std::move(search.rejected));
}

Result<ResumePoint> find_resume_point(const ResumeRequest& request) {
  checkpoint::Search search;
  ResumePoint point;
  if (request.resume == "auto") {
    if (!request.is_new) search = checkpoint::find_newest(request.directory);
    point.asks_nodes = request.num_nodes > 1 && !request.is_new;
    if (!search.newest && !search.rejected.empty() && !point.asks_nodes)
      return combine_errors(ErrorCode::DataLoss, "no checkpoint there is whole", std::move(search.rejected));
  } else if (request.resume != "never") {
    COX_TRY(search, search_at(request.resume));
    if (!search.newest)
      return combine_errors(ErrorCode::DataLoss, "no checkpoint there is whole", std::move(search.rejected));
  }
  point.rejected = std::move(search.rejected);
  if (search.newest) {
    COX_TRY_VOID(check_fits(*search.newest, request));
    point.folder = fs::absolute(search.newest->folder);
    point.step = search.newest->manifest.progress.step;
  }
  // What this run will save would stand below them, and be taken for old.
  if (request.resume != "auto" && !request.is_new) {
    const std::int64_t newest = checkpoint::newest_step(request.directory);
    if (newest > point.step)
      return Error{ErrorCode::AlreadyExists,
                   "the folder holds later checkpoints of another run",
                   request.directory.string(),
                   "none after step " + std::to_string(point.step),
                   "step " + std::to_string(newest),
                   "give another checkpoint.directory, go on from them with --resume auto, or move them away"};
  }
  return point;
}

}  // namespace coxswain::launcher
