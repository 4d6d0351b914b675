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
  [[nodiscard]] const plan::RankTable& ranks() const { return table_; }

 private:
  /// What a role sends and receives in one exchange: the same for many of them.
  struct Exchange {
    std::vector<collective::PointToPoint> transfers;
    std::vector<std::size_t> needed;  // members
    Ticks duration = 0, copies = 0;
  };
  struct Member {
    int operation = -1;  // none yet
    Ticks duration = 0, copies = 0;
    std::size_t exchange = 0;  // of a group of edges: of its role's
  };
  /// One operation of a group.
  struct Meeting {
    std::vector<Member> members;  // as roles_of_group_
    std::size_t num_issued = 0;
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
  [[nodiscard]] std::size_t member_of(int role, int group) const;
  Ticks exchange_duration(int role, int group, const std::vector<collective::PointToPoint>& transfers) const;
  std::size_t find_exchange(int role, int group, const std::vector<collective::PointToPoint>& transfers);
  std::pair<Ticks, Ticks> collective_duration(int group, collective::CollectiveKind kind, Bytes payload, int role);
  Meeting& next_meeting(int group, std::size_t member);
  int add(Meeting& meeting, std::size_t member, int role, int action);
  void start(const Member& member);

  const CostModel& cost_;
  const plan::Plan& plan_;
  plan::RankTable table_;
  const std::vector<plan::Group>& groups_;
  const VirtualClock& clock_;
  std::function<void(int)> on_start_;
  std::vector<int> role_of_rank_;
  std::vector<plan::DeviceId> device_of_rank_;
  std::vector<std::int64_t> node_of_rank_;
  std::vector<int> representative_;               // rank, by role
  std::vector<std::vector<int>> roles_of_group_;  // ascending
  std::vector<std::vector<plan::DeviceId>> devices_of_group_;
  std::vector<VirtualOperation> operations_;
  std::vector<std::vector<std::size_t>> num_issued_;           // by group and member
  std::vector<std::vector<Meeting>> meetings_;                 // by group, in their order
  std::vector<std::vector<std::vector<Exchange>>> exchanges_;  // by group and member
  std::map<std::tuple<int, int, std::int64_t>, std::pair<Ticks, Ticks>> collective_times_;
  std::map<std::pair<int, std::int64_t>, Flows> flows_;  // (group kind, node)
};

}  // namespace coxswain::cost_model
