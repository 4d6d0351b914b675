// Gives a plan the order of a schedule file: roles, the order of receives, and the buffers that the order needs.
#include <algorithm>
#include <map>

#include "common/ensure.h"
#include "plan/derive.h"

namespace coxswain::plan {
namespace {

using Key = std::pair<int, int>;  // part that sends, micro-batch

/// An edge carries what its sender sends, in the order in which it computes; the receiver may compute in another one. A
/// list's order of receives is free of its order of computing, so receives take the order of the sends.
void match_receives(Plan& plan, ActionKind send, ActionKind receive) {
  const auto sender_of = [&](int stage, const Action& action) {
    // Of the part whose output, or gradient, the action moves.
    const int part = part_of(plan, stage, action.chunk);
    if (action.kind == send) return part;
    return receive == ActionKind::ReceiveActivation ? part - 1 : part + 1;
  };
  std::map<int, std::map<Key, int>> turn;  // by edge
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const int stage = static_cast<int>(s);
    for (const Action& action : role_of_stage(plan, stage).actions) {
      if (action.kind != send) continue;
      auto& turns = turn[edge_of(plan, stage, action)->index];
      turns.emplace(Key{sender_of(stage, action), action.micro_batch}, static_cast<int>(turns.size()));
    }
  }
  for (Role& role : plan.roles) {
    std::map<int, std::vector<std::size_t>> places;  // by edge
    for (std::size_t i = 0; i < role.actions.size(); ++i)
      if (role.actions[i].kind == receive) places[edge_of(plan, role.stage, role.actions[i])->index].push_back(i);
    for (const auto& [edge, positions] : places) {
      std::vector<Action> receives;
      for (const std::size_t i : positions) receives.push_back(role.actions[i]);
      std::stable_sort(receives.begin(), receives.end(), [&](const Action& a, const Action& b) {
        return turn[edge].at({sender_of(role.stage, a), a.micro_batch}) <
               turn[edge].at({sender_of(role.stage, b), b.micro_batch});
      });
      for (std::size_t i = 0; i < positions.size(); ++i) role.actions[positions[i]] = receives[i];
    }
  }
}

}  // namespace

Result<void> apply_schedule(Plan& plan, const model::ModelGraph& graph, Bytes bucket_bytes,
                            const CsvSchedule& schedule) {
  COX_ENSURE(
      static_cast<int>(plan.stages.size()) == schedule.num_stages && plan.batch.count == schedule.num_micro_batches,
      plan.stages.size(), plan.batch.count);
  plan.schedule = schedule.kind;
  fill_roles(plan, graph, bucket_bytes, schedule.stages);
  match_receives(plan, ActionKind::SendActivation, ActionKind::ReceiveActivation);
  match_receives(plan, ActionKind::SendGradient, ActionKind::ReceiveGradient);
  const int most = std::max(plan.receive_credits, schedule.num_micro_batches * schedule.num_chunks);
  std::vector<Error> problems = check_order(plan, graph);
  while (!problems.empty() && plan.receive_credits < most) {
    ++plan.receive_credits;
    problems = check_order(plan, graph);
  }
  if (problems.empty()) return {};
  return combine_errors(ErrorCode::InvalidArgument, "the schedule's lists wait for each other", std::move(problems));
}

}  // namespace coxswain::plan
