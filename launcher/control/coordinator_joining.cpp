// Nodes that come to a run for the first time: those that it begins with, and more, up to the most that it takes, when
// it is under way. Those that come later are taken as if they had been lost from the beginning and were back: the run
// moves to a plan with them if that does more work (coordinator_growth.cpp).
#include <algorithm>

#include "launcher/control/coordinator_state.h"
#include "launcher/control/liveness.h"
#include "launcher/control/measurement.h"
#include "proto/control.pb.h"
#include "proto/error_json.h"

namespace coxswain::launcher {
namespace {

// With enough nodes to begin, but fewer than the most, a run waits for so long after the last one that came.
constexpr double kLastCallSeconds = 3;
// From the last time at which a lost node may be seen to be, to the refusal of who says to be it.
constexpr double kSeenSeconds = 3 * limits::kTick;

}  // namespace

control::AgentHello parse_hello(std::string_view bytes) {
  control::AgentHello hello;
  hello.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  return hello;
}

void Coordinator::join(int agent, std::string_view hello, TimePoint now) {
  const auto there = static_cast<int>(nodes_.size() - lost_nodes_.size() + newcomers_.size());
  if (const auto node = returning_node(hello); node && there < most_nodes()) return take_back(*node, agent, hello);
  if (const auto why = refusal_of(hello)) {
    if (!returning_node(hello, false)) return refuse(agent, *why);
    doubtful_.push_back({{agent, std::string(hello)}, refusal_time(now)});
    return;
  }
  if (phase_ == Phase::Joining) {
    add_node(agent, hello);
    if (static_cast<int>(nodes_.size()) == most_nodes()) return begin_with_nodes(now);
    if (static_cast<int>(nodes_.size()) >= settings_.num_nodes) begin_at_ = after(now, kLastCallSeconds);
  } else if (generation_ == 0) {
    newcomers_.push_back({agent, std::string(hello)});
  } else {
    take_in({agent, std::string(hello)});
  }
}

/// A node may be started again sooner than its loss is seen: by then it is.
TimePoint Coordinator::refusal_time(TimePoint now) const {
  return after(std::max(after(now, limits::kHungUpBack), all_back_by_), kSeenSeconds);
}

/// Call when a node was lost, and when one of them may be refused.
void Coordinator::look_at_doubtful(TimePoint now) {
  for (const Doubtful& one : std::exchange(doubtful_, {})) {
    const auto& [agent, hello] = one.newcomer;
    const auto why = refusal_of(hello);
    if (returning_node(hello) || !why)
      join(agent, hello, now);
    else if (now >= one.refuse_at || !returning_node(hello, false))
      refuse(agent, *why);
    else
      doubtful_.push_back(one);
  }
}

std::optional<Error> Coordinator::refusal_of(std::string_view hello_bytes) const {
  const int wanted = parse_hello(hello_bytes).node_rank();
  bool taken = false;
  for (std::size_t node = 0; node < nodes_.size(); ++node) taken = taken || rank_of_node(node) == wanted;
  for (const Newcomer& newcomer : newcomers_) taken = taken || parse_hello(newcomer.hello).node_rank() == wanted;
  taken = taken && wanted >= 0;
  const auto there = static_cast<int>(nodes_.size() - lost_nodes_.size() + newcomers_.size());
  const bool ends = phase_ == Phase::Ending || phase_ == Phase::Ended;
  const bool takes = phase_ == Phase::Joining || (settings_.mode == RunMode::Train && !ends);
  if (takes && !taken && there < most_nodes() && wanted < most_nodes()) return std::nullopt;
  return Error{
      ErrorCode::AlreadyExists,
      "this run has all its nodes",
      "--node-rank",
      taken ? "a rank that no other node has" : std::to_string(most_nodes()) + " nodes",
      std::to_string(wanted),
      taken ? "give each node its own --node-rank" : "start the run with --nnodes MIN:MAX to let more nodes in"};
}

/// Its number, where it named none; -1 before it has one.
int Coordinator::rank_of_node(std::size_t node) const {
  if (nodes_[node].node_rank >= 0) return nodes_[node].node_rank;
  return phase_ == Phase::Joining ? -1 : static_cast<int>(node);
}

void Coordinator::refuse(int agent, const Error& why) {
  control::AgentCommand command;
  command.mutable_over()->set_exit_code(static_cast<int>(exit_code_for(why.code)));
  command.mutable_over()->set_text(to_text(why));
  decisions_.emplace_back(SendCommand{agent, command.SerializeAsString()});
}

/// Its number.
int Coordinator::add_node(int agent, std::string_view hello_bytes) {
  const control::AgentHello hello = parse_hello(hello_bytes);
  Node node;
  node.agent = agent;
  node.node_rank = hello.node_rank();
  node.host = hello.host();
  node.files_address = hello.files_address();
  node.hello = std::string(hello_bytes);
  nodes_.push_back(std::move(node));
  const int place = static_cast<int>(nodes_.size()) - 1;
  places_[agent] = place;
  return place;
}

/// Nodes are numbered by the ranks that they asked for; those that named none fill the gaps in the order in which they
/// came.
void Coordinator::begin_with_nodes(TimePoint now) {
  begin_at_.reset();
  std::set<int> used;
  for (const Node& node : nodes_) used.insert(node.node_rank);
  std::map<int, Node> by_rank;
  int gap = 0;
  for (Node& node : nodes_) {
    while (used.contains(gap)) ++gap;
    const int rank = node.node_rank >= 0 ? node.node_rank : gap++;
    by_rank.emplace(rank, std::move(node));
  }
  nodes_.clear();
  for (auto& [rank, node] : by_rank) nodes_.push_back(std::move(node));
  number_places();
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    record(JsonObject{{"type", "node_joined"}, {"node", static_cast<int>(i)}, {"host", nodes_[i].host}});
    measurements_.nodes.push_back(view_of(static_cast<int>(i)));
  }
  start_measuring(now);
}

NodeView Coordinator::view_of(int number) const {
  const Node& node = nodes_[static_cast<std::size_t>(number)];
  return {node.agent, node.host, "node " + std::to_string(number) + " (" + node.host + ")", node.hello};
}

void Coordinator::take_in(const Newcomer& newcomer) {
  if (!settings_.takes_newcomers || backend_ == "mpi")
    return refuse(newcomer.agent,
                  {ErrorCode::Unimplemented, "this run takes no node while it trains",
                   parse_hello(newcomer.hello).host(), "a run that measured its devices, over host or nccl",
                   backend_ == "mpi" ? "--backend mpi" : "devices by a cluster file or a plan's measurements",
                   "start the run again with this node"});
  const bool has_devices = parse_hello(newcomer.hello).devices_size() > 0;
  const auto like = std::find_if(nodes_.begin(), nodes_.end(), [&](const Node& node) {
    return has_devices && has_same_devices(newcomer.hello, node.hello);
  });
  if (like == nodes_.end())
    return refuse(newcomer.agent, {ErrorCode::Unimplemented, "its devices are not like those of a node of this run",
                                   parse_hello(newcomer.hello).host(), "devices that were measured when it began", "",
                                   "start the run again with this node"});
  const auto like_number = static_cast<int>(like - nodes_.begin());
  const int number = add_node(newcomer.agent, newcomer.hello);
  const Node& node = nodes_.back();
  record(JsonObject{{"type", "node_joined"}, {"node", number}, {"host", node.host}});
  asks_newcomers_ = true;
  planned_without_.push_back(number);
  if (add_like_node(measurements_, view_of(number), like_number)) {
    if (growth_ == Growth::None) growth_ = Growth::Wanted;
    return;
  }
  unlinked_.insert(number);
  measure_link_of(number);
}

void Coordinator::measure_link_of(int number) {
  for (std::size_t other = 0; other < nodes_.size(); ++other) {
    if (nodes_[other].gone || static_cast<int>(other) == number) continue;
    control::AgentCommand command;
    command.mutable_measure_link()->set_files_address(nodes_[other].files_address);
    decisions_.emplace_back(SendCommand{nodes_[static_cast<std::size_t>(number)].agent, command.SerializeAsString()});
    return;
  }
}

std::vector<int> Coordinator::lost_nodes() const {
  std::vector<int> lost = lost_nodes_;
  for (const int node : unlinked_)
    if (std::find(lost.begin(), lost.end(), node) == lost.end()) lost.push_back(node);
  return lost;
}

/// It was asked for where no link between nodes was known.
void Coordinator::on_link(int node, std::string_view bytes) {
  control::LinkMeasured link;
  link.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  if (!link.error_json().empty()) {
    record(JsonObject{
        {"type", "node_not_used"}, {"node", node}, {"cause", proto::error_from_text(link.error_json()).message}});
    return;
  }
  if (unlinked_.erase(node) == 0) return;
  add_link(measurements_, node, 0, Seconds(link.latency_seconds()), BytesPerSecond(link.bytes_per_second()));
  if (growth_ == Growth::None) growth_ = Growth::Wanted;
}

void Coordinator::number_places() {
  places_.clear();
  for (std::size_t i = 0; i < nodes_.size(); ++i) places_[nodes_[i].agent] = static_cast<int>(i);
}

int Coordinator::node_of(int agent) const {
  const auto found = places_.find(agent);
  return found == places_.end() ? -1 : found->second;
}

}  // namespace coxswain::launcher
