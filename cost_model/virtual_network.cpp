#include "cost_model/virtual_network.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "common/ensure.h"
#include "cost_model/collective_time.h"

namespace coxswain::cost_model {
namespace {

bool is_edge_group(plan::GroupKind kind) {
  return kind == plan::GroupKind::ActivationEdge || kind == plan::GroupKind::GradientEdge;
}

}  // namespace

VirtualNetwork::VirtualNetwork(const CostModel& cost, const plan::Plan& plan, const std::vector<plan::Group>& groups,
                               const VirtualClock& clock, std::function<void(int)> on_start)
    : cost_(cost), plan_(plan), table_(plan), groups_(groups), clock_(clock), on_start_(std::move(on_start)) {
  std::map<std::pair<int, int>, int> role_of;  // (stage, replica)
  for (std::size_t role = 0; role < plan.roles.size(); ++role) {
    for (const int replica : plan.roles[role].replicas)
      role_of[{plan.roles[role].stage, replica}] = static_cast<int>(role);
    representative_.push_back(table_.rank_of({plan.roles[role].stage, plan.roles[role].replicas.front(), 0}));
  }
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    for (std::size_t r = 0; r < plan.stages[s].replicas.size(); ++r) {
      for (const plan::DeviceId device : plan.stages[s].replicas[r].devices) {
        role_of_rank_.push_back(role_of.at({static_cast<int>(s), static_cast<int>(r)}));
        device_of_rank_.push_back(device);
        node_of_rank_.push_back(cluster::locate(cost.resources(), device).node);
      }
    }
  }
  for (const plan::Group& group : groups) {
    std::vector<int> roles;
    std::vector<plan::DeviceId> devices;
    for (const int rank : group.ranks) {
      roles.push_back(role_of_rank_[static_cast<std::size_t>(rank)]);
      devices.push_back(device_of_rank_[static_cast<std::size_t>(rank)]);
    }
    std::sort(roles.begin(), roles.end());
    roles.erase(std::unique(roles.begin(), roles.end()), roles.end());
    num_issued_.emplace_back(roles.size());
    exchanges_.emplace_back(roles.size());
    roles_of_group_.push_back(std::move(roles));
    devices_of_group_.push_back(std::move(devices));
  }
  meetings_.resize(groups.size());
  count_flows();
}

// C18: edges of one direction run at the same time, so their flows share a node's links.
void VirtualNetwork::count_flows() {
  const bool shared = [&] {
    const cluster::ResourceGraph& graph = cost_.resources();
    const auto limits = [](const auto& holder) { return holder.link.sharing > 0; };
    const auto group_limits = [&](const cluster::NodeGroup& group) {
      return std::any_of(group.tiers.begin(), group.tiers.end(), limits);
    };
    return std::any_of(graph.tiers.begin(), graph.tiers.end(), limits) ||
           std::any_of(graph.nodes.begin(), graph.nodes.end(), group_limits) ||
           std::any_of(graph.node_classes.begin(), graph.node_classes.end(), limits) ||
           std::any_of(graph.link_overrides.begin(), graph.link_overrides.end(), limits);
  }();
  if (!shared) return;
  const std::vector<plan::Edge> edges = plan::pipeline_edges(plan_);
  for (std::size_t rank = 0; rank < node_of_rank_.size(); ++rank) {
    const int stage = table_.place_of(static_cast<int>(rank)).stage;
    for (const plan::Edge& edge : edges) {
      if (edge.from == stage) count_flows_with(static_cast<int>(rank), edge.to, true);
      if (edge.to == stage) count_flows_with(static_cast<int>(rank), edge.from, false);
    }
  }
}

// A device's messages over one edge follow each other: at most so many cross a node's border at once as there are
// devices that send, and as there are devices that receive.
void VirtualNetwork::count_flows_with(int rank, int stage, bool sends) {
  const std::int64_t own = node_of_rank_[static_cast<std::size_t>(rank)];
  std::set<std::int64_t> others;
  for (const plan::Transfer& transfer : table_.transfers_with(rank, stage))
    others.insert(node_of_rank_[static_cast<std::size_t>(transfer.peer)]);
  for (const bool gradient : {false, true}) {
    const auto flows = [&](std::int64_t node) -> Flows& {
      return flows_[{static_cast<int>(gradient ? plan::GroupKind::GradientEdge : plan::GroupKind::ActivationEdge),
                     node}];
    };
    // What is sent forward comes back as a gradient.
    const bool out = sends != gradient;
    if (out && others.contains(own)) ++flows(own).inside;
    const bool crosses = others.size() > (others.contains(own) ? 1U : 0U);
    if (crosses) ++(out ? flows(own).leaving.own : flows(own).entering.own);
    for (const std::int64_t node : others) {
      if (node != own) ++(out ? flows(node).entering.others : flows(node).leaving.others);
    }
  }
}

std::size_t VirtualNetwork::member_of(int role, int group) const {
  const std::vector<int>& roles = roles_of_group_[static_cast<std::size_t>(group)];
  const auto found = std::lower_bound(roles.begin(), roles.end(), role);
  COX_ENSURE(found != roles.end() && *found == role, "a role of the group", role);
  return static_cast<std::size_t>(found - roles.begin());
}

VirtualNetwork::Meeting& VirtualNetwork::next_meeting(int group, std::size_t member) {
  const auto at = static_cast<std::size_t>(group);
  const std::size_t ordinal = num_issued_[at][member]++;
  std::vector<Meeting>& meetings = meetings_[at];
  if (ordinal == meetings.size()) meetings.push_back({std::vector<Member>(roles_of_group_[at].size()), 0});
  return meetings[ordinal];
}

int VirtualNetwork::add(Meeting& meeting, std::size_t member, int role, int action) {
  VirtualOperation operation;
  operation.role = role;
  operation.action = action;
  operation.issued = clock_.ticks();
  operations_.push_back(operation);
  const int index = static_cast<int>(operations_.size() - 1);
  COX_ENSURE(meeting.members[member].operation < 0, "a role takes part once", role);
  meeting.members[member].operation = index;
  ++meeting.num_issued;
  return index;
}

void VirtualNetwork::start(const Member& member) {
  VirtualOperation& operation = operations_[static_cast<std::size_t>(member.operation)];
  if (operation.start >= 0) return;
  operation.start = clock_.ticks();
  operation.end = operation.start + member.duration;
  operation.copies = member.copies;
  on_start_(member.operation);
}

std::pair<Ticks, Ticks> VirtualNetwork::collective_duration(int group, collective::CollectiveKind kind, Bytes payload,
                                                            int role) {
  const auto key = std::tuple{group, static_cast<int>(kind), payload.value};
  auto found = collective_times_.find(key);
  if (found == collective_times_.end()) {
    const auto& devices = devices_of_group_[static_cast<std::size_t>(group)];
    const plan::Group& members = groups_[static_cast<std::size_t>(group)];
    const int tensor = members.kind == plan::GroupKind::StageReplicas
                           ? plan_.stages[static_cast<std::size_t>(members.index)].replicas.front().tensor
                           : 1;
    Seconds seconds{0};
    if (tensor == 1) {
      seconds = cost_.estimate_collective(kind, payload, devices);
    } else {  // C36: the other positions of the tensor axis reduce at the same time
      GroupShape shape = shape_of(cost_.resources(), devices);
      shape.side_by_side = tensor;
      seconds = cost_.estimate_shaped_collective(kind, payload, shape);
    }
    const Ticks duration = to_ticks(seconds);
    // C19: through shared memory the operation is nothing but copies; between nodes the rank copies what it sends and
    // receives.
    Ticks copies = 0;
    const auto& ranks = groups_[static_cast<std::size_t>(group)].ranks;
    const std::int64_t first_node = node_of_rank_[static_cast<std::size_t>(ranks.front())];
    const bool one_node = std::all_of(ranks.begin(), ranks.end(), [&](int rank) {
      return node_of_rank_[static_cast<std::size_t>(rank)] == first_node;
    });
    if (one_node) {
      copies = duration;
    } else {
      const auto algorithm = collective::choose_algorithm(kind, payload, static_cast<int>(ranks.size()), false);
      const auto work = collective::cost_of(kind, algorithm, payload, static_cast<int>(ranks.size()));
      copies =
          std::min(duration, to_ticks(estimate_copy_time(cost_.resources(), work.sent_bytes * 2, devices.front())));
    }
    found = collective_times_.emplace(key, std::pair{duration, copies}).first;
  }
  const plan::DeviceId device =
      device_of_rank_[static_cast<std::size_t>(representative_[static_cast<std::size_t>(role)])];
  const bool cpu =
      cost_.resources().device_classes[static_cast<std::size_t>(device.device_class)].kind == cluster::DeviceKind::Cpu;
  return {found->second.first, cpu ? found->second.second : 0};
}

int VirtualNetwork::issue_collective(int role, int action, int group, collective::CollectiveKind kind, Bytes payload) {
  const std::size_t self = member_of(role, group);
  Meeting& meeting = next_meeting(group, self);
  std::tie(meeting.members[self].duration, meeting.members[self].copies) =
      collective_duration(group, kind, payload, role);
  const int index = add(meeting, self, role, action);
  if (meeting.num_issued == meeting.members.size()) {
    for (const Member& member : meeting.members) start(member);
  }
  return index;
}

Ticks VirtualNetwork::exchange_duration(int role, int group,
                                        const std::vector<collective::PointToPoint>& transfers) const {
  const plan::Group& members = groups_[static_cast<std::size_t>(group)];
  const int self = representative_[static_cast<std::size_t>(role)];
  const std::int64_t node = node_of_rank_[static_cast<std::size_t>(self)];
  const int kind = static_cast<int>(members.kind);
  const auto flows_of = [&](std::int64_t at) {
    const auto found = flows_.find({kind, at});
    return found == flows_.end() ? Flows{} : found->second;
  };
  // Messages over one link follow each other, messages over different links run side by side.
  std::map<const cluster::LinkClass*, Seconds> by_link;
  for (const collective::PointToPoint& transfer : transfers) {
    const int peer = members.ranks[static_cast<std::size_t>(transfer.peer)];
    const std::int64_t other = node_of_rank_[static_cast<std::size_t>(peer)];
    const cluster::LinkClass& link = cluster::link_between_nodes(cost_.resources(), node, other);
    const bool sends = transfer.kind == collective::PointToPoint::Kind::Send;
    const std::int64_t from = sends ? node : other, to = sends ? other : node;
    const std::int64_t flows =
        from == to ? flows_of(node).inside : std::max(flows_of(from).leaving.most(), flows_of(to).entering.most());
    const Seconds whole =
        cost_.estimate_transfer(transfer.buffer.bytes(), device_of_rank_[static_cast<std::size_t>(self)],
                                device_of_rank_[static_cast<std::size_t>(peer)]);
    const double slowdown = sharing_slowdown(link, flows);
    by_link[&link] +=
        slowdown > 1.0 ? whole + transfer.buffer.bytes() / link.bandwidth.value * (slowdown - 1.0) : whole;
  }
  Ticks longest = 0;
  for (const auto& [link, time] : by_link) longest = std::max(longest, to_ticks(time));
  return longest;
}

std::size_t VirtualNetwork::find_exchange(int role, int group, const std::vector<collective::PointToPoint>& transfers) {
  std::vector<Exchange>& known = exchanges_[static_cast<std::size_t>(group)][member_of(role, group)];
  const auto alike = [](const collective::PointToPoint& a, const collective::PointToPoint& b) {
    return a.kind == b.kind && a.peer == b.peer && a.buffer.bytes() == b.buffer.bytes();
  };
  const auto found = std::find_if(known.begin(), known.end(), [&](const Exchange& one) {
    return std::equal(one.transfers.begin(), one.transfers.end(), transfers.begin(), transfers.end(), alike);
  });
  if (found != known.end()) return static_cast<std::size_t>(found - known.begin());
  Exchange made{transfers, {}, exchange_duration(role, group, transfers), 0};
  Bytes bytes{0};
  for (const collective::PointToPoint& transfer : transfers) {
    const int peer = groups_[static_cast<std::size_t>(group)].ranks[static_cast<std::size_t>(transfer.peer)];
    made.needed.push_back(member_of(role_of_rank_[static_cast<std::size_t>(peer)], group));
    bytes += transfer.buffer.bytes();
  }
  const plan::DeviceId device =
      device_of_rank_[static_cast<std::size_t>(representative_[static_cast<std::size_t>(role)])];
  made.copies = std::min(made.duration, to_ticks(estimate_copy_time(cost_.resources(), bytes, device)));
  known.push_back(std::move(made));
  return known.size() - 1;
}

int VirtualNetwork::issue_exchange(int role, int action, int group,
                                   const std::vector<collective::PointToPoint>& transfers) {
  COX_ENSURE(is_edge_group(groups_[static_cast<std::size_t>(group)].kind), group);
  const std::size_t self = member_of(role, group);
  const std::vector<std::vector<Exchange>>& exchanges = exchanges_[static_cast<std::size_t>(group)];
  Meeting& meeting = next_meeting(group, self);
  Member& own = meeting.members[self];
  own.exchange = find_exchange(role, group, transfers);
  own.duration = exchanges[self][own.exchange].duration;
  own.copies = exchanges[self][own.exchange].copies;
  const int index = add(meeting, self, role, action);
  for (std::size_t at = 0; at < meeting.members.size(); ++at) {
    const Member& member = meeting.members[at];
    if (member.operation < 0) continue;
    const std::vector<std::size_t>& needed = exchanges[at][member.exchange].needed;
    if (std::all_of(needed.begin(), needed.end(),
                    [&](std::size_t peer) { return meeting.members[peer].operation >= 0; }))
      start(member);
  }
  return index;
}

}  // namespace coxswain::cost_model
