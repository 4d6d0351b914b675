#pragma once
// A rank's part in checkpoints: ranks agree once on who writes what; after a step that is saved, each copies its pieces
// (that is all the step waits for), and a thread writes them to the disk beside the next steps and tells the agent.
// Where nodes share no disk, that thread also puts a copy on another node's. Called by train_mode. Threads: one caller.
// Source: DESIGN 3.9, docs/checkpoint.md.
#include <filesystem>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/shard.h"
#include "collective/communicator.h"
#include "common/clock.h"
#include "worker/engine/engine.h"
#include "worker/service/agent_link.h"
#include "worker/service/assignment.h"

namespace coxswain::control {
class ShardSaved;
}

namespace coxswain::worker {

class CheckpointSaver {
 public:
  /// A collective call, which finds out who shares `assignment.checkpoint_directory`, where that is not known.
  /// `pieces`: what each rank updates. Errors: of the collective.
  [[nodiscard]] static Result<CheckpointSaver> make(const Assignment& assignment, std::string job_key,
                                                    const std::vector<std::vector<checkpoint::Piece>>& pieces,
                                                    collective::Communicator& world, Deadline deadline);

  /// Saves what the step that ended last left. Waits for the save before; that a shard cannot be written is told to the
  /// agent and no error. Errors: DeadlineExceeded (the save before hangs).
  [[nodiscard]] Result<void> save(const Engine& engine, AgentLink& link, Deadline deadline);
  /// Until the last save is told. Errors: as save. A saver that ends without gives up what it writes: nobody would
  /// publish it.
  [[nodiscard]] Result<void> finish(Deadline deadline);

 private:
  void write(control::ShardSaved& saved, const std::vector<checkpoint::PieceState>& states,
             const std::stop_token& stop) const;

  std::filesystem::path directory_;
  bool shared_ = false;                    // all nodes of the run see what this rank writes
  std::string copy_to_, job_key_;          // where they do not
  std::string file_;                       // of this rank's shards
  std::vector<checkpoint::Piece> pieces_;  // that this rank writes
  std::future<void> written_;
  std::jthread writer_;
};

}  // namespace coxswain::worker
