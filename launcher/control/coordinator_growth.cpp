// A run that goes on moves to another plan, at a step boundary: to one that uses nodes that are back, or to one that
// does more on what its devices and links proved to be.
#include <algorithm>

#include "launcher/control/coordinator_state.h"
#include "launcher/control/measurement.h"
#include "proto/control.pb.h"

namespace coxswain::launcher {
namespace {

// One move, one more where the first look was wrong, one for what changes later: a machine whose pace wanders shall not
// make the run wander.
constexpr int kMostMoves = 3;

}  // namespace

/// The node of this run, lost or (not `gone`) there, that says hello: by its number, or where it names none by its
/// host, and with its devices.
std::optional<std::size_t> Coordinator::returning_node(std::string_view hello_bytes, bool gone) const {
  if (generation_ == 0 || phase_ == Phase::Ending || phase_ == Phase::Ended) return std::nullopt;
  const control::AgentHello hello = parse_hello(hello_bytes);
  for (std::size_t node = 0; node < nodes_.size(); ++node) {
    const bool named =
        hello.node_rank() < 0 ? hello.host() == nodes_[node].host : hello.node_rank() == rank_of_node(node);
    if (nodes_[node].gone == gone && named && has_same_devices(hello_bytes, nodes_[node].hello)) return node;
  }
  return std::nullopt;
}

void Coordinator::take_back(std::size_t number, int agent, std::string_view hello) {
  Node& node = nodes_[number];
  node.agent = agent;
  node.hello = std::string(hello);
  node.files_address = parse_hello(hello).files_address();
  node.gone = false;
  number_places();
  measurements_.nodes[number].agent = agent;
  measurements_.nodes[number].hello = node.hello;
  std::erase(lost_nodes_, static_cast<int>(number));
  record(JsonObject{{"type", "node_joined"}, {"node", static_cast<int>(number)}, {"host", node.host}});
  if (unlinked_.contains(static_cast<int>(number))) return measure_link_of(static_cast<int>(number));
  if (growth_ == Growth::None) growth_ = Growth::Wanted;
}

/// One of `without`, which were lost when a plan was asked for, is here again.
bool Coordinator::came_back(const std::vector<int>& without) const {
  const std::vector<int> lost = lost_nodes();
  return std::any_of(without.begin(), without.end(),
                     [&lost](int node) { return std::find(lost.begin(), lost.end(), node) == lost.end(); });
}

/// Nodes that could not be in it: lost when it was looked for, or not yet come.
std::vector<int> Coordinator::missing_from(const ChosenPlan& plan) const {
  std::vector<int> missing = plan.without;
  const int known = plan.known_nodes > 0 ? plan.known_nodes : static_cast<int>(nodes_.size());
  for (int node = known; node < static_cast<int>(nodes_.size()); ++node) missing.push_back(node);
  return missing;
}

/// The generation can be ended without loss: what it has done so far is known to be saved when it is asked for.
bool Coordinator::may_grow() const {
  return growth_ == Growth::Wanted && steps_well() && settings_.saves && last_saved_ >= 0 &&
         last_step_ > recovery_.step && last_step_ < total_steps_;
}

/// Nothing is saved yet: who knows whether it can be.
bool Coordinator::needs_first_save() const {
  return growth_ == Growth::Wanted && steps_well() && settings_.saves && last_saved_ < 0 && !first_save_asked_ &&
         last_step_ > recovery_.step && last_step_ < total_steps_;
}

/// A plan with the nodes that are back. Where the search stays with what runs, or without them, nothing changes.
void Coordinator::consider(const ChosenPlan& plan) {
  // Who came back since it was asked for belongs into it too; a run that is disturbed asks when it no longer is.
  growth_ = came_back(missing_from(plan)) || !steps_well() ? Growth::Wanted : Growth::None;
  if (growth_ != Growth::None) return;
  const bool uses_them = std::any_of(plan.ranks.begin(), plan.ranks.end(), [this](const RankBinding& rank) {
    return std::find(planned_without_.begin(), planned_without_.end(), rank.node) != planned_without_.end();
  });
  if (uses_them && !needs_lost(plan)) move_to(plan);
}

/// A node without ranks may go while a plan with it is looked for.
bool Coordinator::needs_lost(const ChosenPlan& plan) const {
  return std::any_of(plan.ranks.begin(), plan.ranks.end(),
                     [this](const RankBinding& rank) { return nodes_[static_cast<std::size_t>(rank.node)].gone; });
}

void Coordinator::move_to(const ChosenPlan& plan) {
  next_plan_ = plan;
  const bool can_save = last_saved_ >= 0;
  growth_ = can_save ? Growth::Moving : Growth::Proving;
  ask_save(can_save);
}

/// Without a checkpoint the run stays as it is: a generation that ends would take all it has done with it.
void Coordinator::first_save_ended(bool saved) {
  if (growth_ != Growth::Proving) return;
  if (saved && steps_well() && last_step_ < total_steps_ && !needs_lost(*next_plan_)) {
    growth_ = Growth::Moving;
    return ask_save(true);
  }
  growth_ = came_back(planned_without_) ? Growth::Wanted : Growth::None;
  next_plan_.reset();
  --moves_;  // it stays
}

bool Coordinator::may_move() const {
  return steps_well() && growth_ == Growth::None && settings_.saves && settings_.max_restarts > 0 &&
         moves_ < kMostMoves && last_step_ < total_steps_;
}

std::vector<Decision> Coordinator::calibrated(int generation, const JsonArray& findings,
                                              const std::optional<ChosenPlan>& plan, TimePoint) {
  for (const Json& finding : findings) {
    JsonObject event = finding.object();
    event["type"] = "calibrated";
    event["generation"] = generation;
    record(std::move(event));
  }
  if (!plan || generation != generation_ || !may_move() || needs_lost(*plan)) return take();
  ++moves_;
  move_to(*plan);
  return take();
}

/// The generation has saved its last step and ended.
void Coordinator::move_on(TimePoint now) {
  end_by_.reset();
  take_plan(*std::exchange(next_plan_, std::nullopt));
  growth_ = came_back(planned_without_) ? Growth::Wanted : Growth::None;
  open_steps_.clear();
  find_checkpoint(now);
}

}  // namespace coxswain::launcher
