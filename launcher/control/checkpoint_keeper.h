#pragma once
// A node's own part of checkpoints, where nodes share no disk: puts it in its place, tidies up, and tells what is
// there. A disk may take seconds, so it works in a thread of its own, one command after the other. Called by
// agent_process.cpp. Threads: take from one; reports come from its own. Source: docs/checkpoint.md.
#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include "launcher/control/event_queue.h"

namespace coxswain::launcher {

class CheckpointKeeper {
 public:
  using Report = std::function<void(std::string)>;  // a serialised AgentReport

  explicit CheckpointKeeper(Report report);
  ~CheckpointKeeper();
  CheckpointKeeper(const CheckpointKeeper&) = delete;
  CheckpointKeeper& operator=(const CheckpointKeeper&) = delete;

  /// A serialised AgentCommand. True: it is for the keeper, who will answer.
  bool take(std::string_view command);

 private:
  void work();
  EventQueue<std::string> commands_;
  Report report_;
  std::jthread thread_;  // last: it uses the others
};

/// What the keeper answers to StoreCheckpoint and ListCheckpoints; empty after PruneCheckpoints. Threads: pure but for
/// the files.
[[nodiscard]] std::string keep_checkpoints(std::string_view command);

}  // namespace coxswain::launcher
