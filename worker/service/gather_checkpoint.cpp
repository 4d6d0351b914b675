#include "worker/service/gather_checkpoint.h"

#include <algorithm>

#include "checkpoint/folder.h"
#include "checkpoint/spread.h"
#include "common/bytes_io.h"
#include "proto/file_exchange.h"

namespace coxswain::worker {
namespace {

namespace fs = std::filesystem;

Result<void> fetch(const Assignment& assignment, const checkpoint::Shard& shard, const std::string& job_key,
                   Deadline deadline) {
  const fs::path folder = assignment.checkpoint_from;
  const auto found = assignment.holders.find(shard.file);
  const std::vector<std::string> none;
  const std::vector<std::string>& holders = found == assignment.holders.end() ? none : found->second;
  if (std::find(holders.begin(), holders.end(), assignment.files_address) != holders.end()) return {};  // here
  Error last{ErrorCode::NotFound, "no node has this shard", (folder / shard.file).string(), "", "", ""};
  for (const std::string& address : holders) {
    const auto done = proto::get_file({address, folder, shard.file}, shard.size, shard.sha256, folder / shard.file,
                                      {job_key, false}, deadline);
    if (done) return {};
    last = done.error();
  }
  return last;
}

}  // namespace

Result<checkpoint::Manifest> gather_checkpoint(const Assignment& assignment,
                                               const std::vector<checkpoint::Piece>& pieces, const std::string& job_key,
                                               Deadline deadline) {
  COX_TRY(checkpoint::Manifest manifest, checkpoint::parse_manifest(assignment.from_manifest));
  const fs::path folder = assignment.checkpoint_from;
  std::error_code code;
  fs::create_directories(folder, code);
  // A node that had no part gets one, so that it can give what it fetched.
  if (const auto text = read_file(folder / checkpoint::kManifestFile); !text || *text != assignment.from_manifest)
    COX_TRY_VOID(write_file(folder / checkpoint::kManifestFile, assignment.from_manifest));
  manifest.shards = checkpoint::needed_shards(manifest, pieces);
  for (const checkpoint::Shard& shard : manifest.shards) COX_TRY_VOID(fetch(assignment, shard, job_key, deadline));
  return manifest;
}

}  // namespace coxswain::worker
