#pragma once
// The worker's end of its stream to the agent: reports up; assignment, addresses and abort down. When the agent says
// that a peer died, or is gone itself, every registered communicator is aborted at once, so that no rank waits for a
// dead one. Threads: report from any; the waits from one.
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "collective/communicator.h"
#include "common/clock.h"
#include "common/result.h"
#include "proto/channel.h"

namespace coxswain::control {
class WorkerReport;
}

namespace coxswain::worker {

class AgentLink {
 public:
  /// Errors: of proto::connect.
  [[nodiscard]] static Result<std::unique_ptr<AgentLink>> connect(const std::string& target, const std::string& key,
                                                                  int rank, Deadline deadline);
  ~AgentLink();

  void report(const control::WorkerReport& report);
  /// Serialised WorkerCommand with the assignment. Errors: DeadlineExceeded, Unavailable (the agent is gone).
  [[nodiscard]] Result<std::string> wait_assignment(Deadline deadline);
  /// Addresses of every rank. Errors: as above, Aborted.
  [[nodiscard]] Result<std::vector<std::string>> wait_addresses(Deadline deadline);

  /// Aborted at once when a peer or the agent dies (and now, when that has happened). `communicator` is borrowed until
  /// `forget`.
  void watch(collective::Communicator* communicator);
  void forget(collective::Communicator* communicator);
  /// A peer or the agent died.
  [[nodiscard]] bool aborted() const;
  /// The agent says by then that this rank's generation is given up, and is still there.
  [[nodiscard]] bool wait_abort(Deadline deadline);
  /// The assignment is given up, with all that was said of it: another one may come, and what is said before it does
  /// counts for nothing. No communicator may be watched.
  void park();
  /// What the agent has asked for so far; `take_save` forgets it.
  [[nodiscard]] bool take_save() { return save_asked_.exchange(false); }
  [[nodiscard]] bool stop_asked() const { return stop_asked_; }

  /// Sends what is queued and waits until the agent has it.
  void finish();

 private:
  explicit AgentLink(std::unique_ptr<proto::Stream> stream);
  void read_commands();
  void abort_locked(const std::string& reason);

  std::unique_ptr<proto::Stream> stream_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<std::string> assignment_;
  std::optional<std::vector<std::string>> addresses_;
  std::optional<std::string> abort_reason_;
  bool finishing_ = false, closed_ = false, parked_ = false;
  std::atomic<bool> save_asked_ = false, stop_asked_ = false;
  std::vector<collective::Communicator*> watched_;
  std::jthread reader_;
};

}  // namespace coxswain::worker
