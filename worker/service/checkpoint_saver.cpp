#include "worker/service/checkpoint_saver.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "checkpoint/folder.h"
#include "common/bytes_io.h"
#include "common/hash.h"
#include "common/thread_name.h"
#include "proto/control.pb.h"
#include "proto/error_json.h"
#include "proto/file_exchange.h"
#include "proto/time_limits.h"
#include "worker/service/exchange.h"
#include "worker/service/progress_message.h"

namespace coxswain::worker {
namespace {

double seconds_since(TimePoint begin) { return std::chrono::duration<double>(steady_clock().now() - begin).count(); }

Result<checkpoint::Shard> write_to(const std::filesystem::path& folder, const std::string& file,
                                   const std::vector<checkpoint::PieceState>& states, const std::stop_token& stop) {
  // One of an attempt before this one.
  std::error_code ignored;
  std::filesystem::remove(folder / file, ignored);
  return checkpoint::write_shard(folder, file, states, stop);
}

/// All nodes of the run see the same files. The first rank of each node leaves one there, and all look for all of them;
/// of a node without ranks nothing is known. `nodes`: of every rank.
Result<bool> is_shared(const std::filesystem::path& directory, const std::vector<std::string>& nodes, int num_nodes,
                       collective::Communicator& world, Deadline deadline) {
  const auto rank = static_cast<std::size_t>(world.rank());
  const bool is_first = std::find(nodes.begin(), nodes.end(), nodes[rank]) - nodes.begin() == world.rank();
  std::error_code ignored;
  std::filesystem::create_directories(directory, ignored);
  const std::string own = ".probe_" + random_hex(8);
  if (is_first) static_cast<void>(write_file(directory / own, ""));  // one that cannot write sees nothing either
  COX_TRY(const auto names, exchange_texts(world, is_first ? own : "-", deadline));
  std::int64_t seen = 0;
  for (const std::string& name : names)
    seen += name != "-" && std::filesystem::exists(directory / name, ignored) ? 1 : 0;
  COX_TRY(const auto counts, exchange_texts(world, std::to_string(seen), deadline));
  if (is_first) std::filesystem::remove(directory / own, ignored);
  return std::count(counts.begin(), counts.end(), std::to_string(num_nodes)) == world.size();
}

}  // namespace

Result<CheckpointSaver> CheckpointSaver::make(const Assignment& assignment, std::string job_key,
                                              const std::vector<std::vector<checkpoint::Piece>>& pieces,
                                              collective::Communicator& world, Deadline deadline) {
  CheckpointSaver saver;
  saver.directory_ = assignment.checkpoint_directory;
  saver.copy_to_ = assignment.copy_to;
  saver.job_key_ = std::move(job_key);
  saver.file_ = "rank_" + std::to_string(world.rank()) + ".safetensors";
  if (assignment.shares_checkpoints) {
    saver.shared_ = *assignment.shares_checkpoints;
  } else {
    COX_TRY(saver.shared_, is_shared(saver.directory_, assignment.nodes, assignment.num_nodes, world, deadline));
  }
  saver.pieces_ = checkpoint::share_out(pieces)[static_cast<std::size_t>(world.rank())];
  return saver;
}

Result<void> CheckpointSaver::save(const Engine& engine, AgentLink& link, Deadline deadline) {
  COX_TRY_VOID(finish(deadline));
  const TimePoint begin = steady_clock().now();
  auto states = engine.copy_state(pieces_);
  control::ShardSaved saved;
  set_progress(engine.progress(), saved);
  saved.set_copy_seconds(seconds_since(begin));
  std::packaged_task<void(std::stop_token)> task(
      [this, &link, saved, states = std::move(states)](const std::stop_token& stop) mutable {
        name_thread("checkpoint");
        const TimePoint start = steady_clock().now();
        write(saved, states, stop);
        if (stop.stop_requested()) return;
        saved.set_write_seconds(seconds_since(start));
        control::WorkerReport report;
        *report.mutable_saved() = saved;
        link.report(report);
      });
  written_ = task.get_future();
  writer_ = std::jthread(std::move(task));
  return {};
}

/// On the writer's thread.
void CheckpointSaver::write(control::ShardSaved& saved, const std::vector<checkpoint::PieceState>& states,
                            const std::stop_token& stop) const {
  const auto folder = checkpoint::make_partial_folder(directory_, saved.step());
  const auto shard = folder ? write_to(*folder, file_, states, stop) : Result<checkpoint::Shard>(folder.error());
  if (shard)
    saved.set_shard_json(to_text(checkpoint::to_json(*shard)));
  else
    saved.set_error_json(proto::error_to_text(shard.error()));
  if (shared_) return;
  saved.set_spread(true);
  if (!shard || copy_to_.empty()) return;
  const auto copied = proto::put_file(*folder / file_, {copy_to_, *folder, file_}, {job_key_, false},
                                      Deadline::after(steady_clock(), Seconds(limits::kFileCopy)), stop);
  if (!copied) saved.set_copy_error_json(proto::error_to_text(copied.error()));
}

Result<void> CheckpointSaver::finish(Deadline deadline) {
  if (!written_.valid()) return {};
  if (written_.wait_until(deadline.at) != std::future_status::ready)
    return Error{ErrorCode::DeadlineExceeded,
                 "the disk does not take a checkpoint",
                 directory_.string(),
                 "",
                 "",
                 "look at the file system that checkpoint.directory is on"};
  written_ = {};
  writer_.join();
  return {};
}

}  // namespace coxswain::worker
