#pragma once
// The communicators of one rank: the world, and one for each group of the plan that it belongs to, made in the one
// global order. Aborted through the AgentLink when a peer dies. Threads: one.
#include <memory>
#include <vector>

#include "collective/backend.h"
#include "plan/program.h"
#include "worker/service/agent_link.h"
#include "worker/service/assignment.h"

namespace coxswain::worker {

class World {
 public:
  /// Opens an endpoint, reports its address, waits for everybody's, connects.
  /// Errors: of the backend; Aborted (a peer died meanwhile).
  [[nodiscard]] static Result<std::unique_ptr<World>> connect(AgentLink& link, const Assignment& assignment,
                                                              const std::string& job_key);
  ~World();

  [[nodiscard]] collective::Communicator& all() { return *all_; }
  [[nodiscard]] collective::CompletionSignal& signal() { return signal_; }
  /// `groups` of plan::rank_groups. `communicators()[g]` belongs to groups[g]; null where this rank is no member.
  [[nodiscard]] Result<void> make_groups(const std::vector<plan::Group>& groups, Deadline deadline);
  [[nodiscard]] const std::vector<collective::Communicator*>& communicators() const { return communicators_; }

 private:
  explicit World(AgentLink& link) : link_(link) {}

  AgentLink& link_;
  collective::CompletionSignal signal_;
  std::unique_ptr<collective::Communicator> all_;
  std::vector<std::unique_ptr<collective::Communicator>> owned_;
  std::vector<collective::Communicator*> communicators_;
};

}  // namespace coxswain::worker
