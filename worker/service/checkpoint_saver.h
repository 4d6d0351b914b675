#pragma once
// A rank's part in checkpoints: ranks agree once on who writes what; after a step that is saved, each copies its pieces
// (that is all the step waits for), and a thread writes them to the disk beside the next steps and tells the agent.
// Called by train_mode. Threads: one caller. Source: DESIGN 3.9, docs/checkpoint.md.
#include <filesystem>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "collective/communicator.h"
#include "common/clock.h"
#include "worker/engine/engine.h"
#include "worker/service/agent_link.h"

namespace coxswain::worker {

/// Every rank's text, by rank. Errors: of the collective.
[[nodiscard]] Result<std::vector<std::string>> exchange_texts(collective::Communicator& world, const std::string& own,
                                                              Deadline deadline);

class CheckpointSaver {
 public:
  /// A collective call, which finds out whether all ranks see the same `directory`. Errors: of the collective.
  [[nodiscard]] static Result<CheckpointSaver> make(std::filesystem::path directory, const Engine& engine,
                                                    collective::Communicator& world, Deadline deadline);

  /// What a rank writes elsewhere nobody could publish, or tidy up: where not, nothing is saved.
  [[nodiscard]] bool shares_directory() const { return shares_directory_; }
  /// Tells the agent so, once.
  void report_unshared(AgentLink& link) const;

  /// Saves what the step that ended last left. Waits for the save before; that a shard cannot be written is told to the
  /// agent and no error. Errors: DeadlineExceeded (the save before hangs).
  [[nodiscard]] Result<void> save(const Engine& engine, AgentLink& link, Deadline deadline);
  /// Until the last save is told. Errors: as save.
  [[nodiscard]] Result<void> finish(Deadline deadline);

 private:
  std::filesystem::path directory_;
  bool shares_directory_ = false;
  std::string file_;                       // of this rank's shards
  std::vector<checkpoint::Piece> pieces_;  // that this rank writes
  std::future<void> written_;
  std::jthread writer_;
};

}  // namespace coxswain::worker
