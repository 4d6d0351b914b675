#pragma once
// Communication in virtual time: an operation starts when every role that takes part has issued it (rendezvous) and
// lasts what alpha-beta says, with links shared statically. One member stands for all ranks of its role. Used by the
// simulator only. Threads: one. Source: docs/cost_model.md, C6-C10, C18, C19.
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "collective/communicator.h"
#include "cost_model/cost_model.h"
#include "cost_model/event_queue.h"
#include "plan/program.h"
#include "plan/rank_table.h"

namespace coxswain::cost_model {

/// One operation as one role sees it.
struct VirtualOperation {
  int role = 0, action = 0;
  Ticks issued = 0, start = -1, end = -1;
  Ticks copies = 0;  // compute time that a CPU rank loses while it lasts
  bool done = false;
};

class VirtualNetwork {
 public:
  /// `on_start` is called when an operation starts, with its index; all arguments are borrowed.
  VirtualNetwork(const CostModel& cost, const plan::Plan& plan, const std::vector<plan::Group>& groups,
                 const VirtualClock& clock, std::function<void(int)> on_start);

  /// Index of the new operation of `role`. The k-th call of each role on a group belongs together.
  int issue_collective(int role, int action, int group, collective::CollectiveKind kind, Bytes payload);
  int issue_exchange(int role, int action, int group, const std::vector<collective::PointToPoint>& transfers);

  [[nodiscard]] VirtualOperation& operation(int index) { return operations_[static_cast<std::size_t>(index)]; }
  [[nodiscard]] const std::vector<VirtualOperation>& operations() const { return operations_; }

 private:
  struct Meeting {                          // one operation of a group, over all its roles
    std::map<int, int> issued;              // role -> operation
    std::map<int, std::vector<int>> peers;  // exchange: role -> roles that it needs
    std::map<int, Ticks> duration, copies;  // by role
  };
  /// Devices of a node, and devices elsewhere that they meet.
  struct Border {
    std::int64_t own = 0, others = 0;
    [[nodiscard]] std::int64_t most() const { return std::max<std::int64_t>(1, std::min(own, others)); }
  };
  /// Of one kind of edge at one node.
  struct Flows {
    Border leaving, entering;
    std::int64_t inside = 0;
  };

  void count_flows();
  void count_flows_with(int rank, int stage, bool sends);
  Ticks exchange_duration(int role, int group, const std::vector<collective::PointToPoint>& transfers) const;
  std::pair<Ticks, Ticks> collective_duration(int group, collective::CollectiveKind kind, Bytes payload, int role);
  Meeting& next_meeting(int role, int group);
  int add(Meeting& meeting, int role, int action);
  void start(Meeting& meeting, int role);

  const CostModel& cost_;
  const plan::Plan& plan_;
  plan::RankTable table_;
  const std::vector<plan::Group>& groups_;
  const VirtualClock& clock_;
  std::function<void(int)> on_start_;
  std::vector<int> role_of_rank_;
  std::vector<plan::DeviceId> device_of_rank_;
  std::vector<std::int64_t> node_of_rank_;
  std::vector<int> representative_;  // rank, by role
  std::vector<std::vector<int>> roles_of_group_;
  std::vector<std::vector<plan::DeviceId>> devices_of_group_;
  std::vector<VirtualOperation> operations_;
  std::map<std::pair<int, int>, int> num_issued_;    // (group, role)
  std::map<std::pair<int, int>, Meeting> meetings_;  // (group, ordinal)
  std::map<std::tuple<int, int, std::int64_t>, std::pair<Ticks, Ticks>> collective_times_;
  std::map<std::pair<int, std::int64_t>, Flows> flows_;  // (group kind, node)
};

}  // namespace coxswain::cost_model
