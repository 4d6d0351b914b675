// What waits for what on one rank, and the one rule of order over it.
#include <algorithm>
#include <array>
#include <map>

#include "common/ensure.h"
#include "plan/derive.h"

namespace coxswain::plan {
namespace {

bool is_backward(ActionKind kind) { return kind == ActionKind::Backward || kind == ActionKind::BackwardInput; }

/// Positions of a list's actions by what others look them up for.
struct Positions {
  std::map<int, int> forward, backward_first, backward_last;  // by micro-batch
  std::array<std::map<int, int>, kNumStreams> edge;           // by stream, then micro-batch
  std::vector<int> all_backward;                              // B, I and W parts in list order
  int last_compute_of_pipeline = -1;
  int count_loss = -1, reduce_loss_count = -1, reduce_norm = -1, optimizer = -1;
  std::vector<int> reductions;  // of gradients

  explicit Positions(const std::vector<Action>& actions) {
    for (std::size_t i = 0; i < actions.size(); ++i) place(actions[i], static_cast<int>(i));
  }

 private:
  void place(const Action& action, int i) {
    const ActionKind kind = action.kind;
    if (kind == ActionKind::Forward) {
      forward.emplace(action.micro_batch, i);
      last_compute_of_pipeline = i;
    } else if (is_backward(kind) || kind == ActionKind::BackwardWeight) {
      all_backward.push_back(i);
      last_compute_of_pipeline = i;
      if (is_backward(kind)) {
        backward_first.emplace(action.micro_batch, i);
        backward_last[action.micro_batch] = i;
      }
    } else if (is_edge(kind)) {
      edge[static_cast<std::size_t>(stream_of(kind))].emplace(action.micro_batch, i);
    } else if (kind == ActionKind::ReduceGradient || kind == ActionKind::ReduceTied) {
      reductions.push_back(i);
    } else if (kind == ActionKind::CountLoss) {
      count_loss = i;
    } else if (kind == ActionKind::ReduceLossCount) {
      reduce_loss_count = i;
    } else if (kind == ActionKind::ReduceNorm) {
      reduce_norm = i;
    } else if (kind == ActionKind::Optimizer) {
      optimizer = i;
    }
  }
};

int find(const std::map<int, int>& positions, int micro_batch) {
  const auto found = positions.find(micro_batch);
  return found == positions.end() ? -1 : found->second;
}

class WaitBuilder {
 public:
  WaitBuilder(const std::vector<Action>& actions, int credits, bool last_stage)
      : actions_(actions),
        at_(actions),
        credits_(static_cast<std::size_t>(credits)),
        last_stage_(last_stage),
        waits_(actions.size()) {}

  std::vector<std::vector<int>> build() {
    for (std::size_t i = 0; i < actions_.size(); ++i) visit(actions_[i], static_cast<int>(i));
    for (std::vector<int>& waits : waits_) {
      std::sort(waits.begin(), waits.end());
      waits.erase(std::unique(waits.begin(), waits.end()), waits.end());
    }
    return std::move(waits_);
  }

 private:
  // An action that the list lacks is nothing to wait for: the check of completeness reports it.
  void wait(int action, int on) {
    if (on >= 0 && on != action) waits_[static_cast<std::size_t>(action)].push_back(on);
  }

  const std::map<int, int>& edge(Stream stream) const { return at_.edge[static_cast<std::size_t>(stream)]; }

  /// Notes that `micro_batch` takes its turn in `order`; the micro-batch `credits` turns earlier, or -1.
  int take_turn(std::vector<int>& order, int micro_batch) const {
    order.push_back(micro_batch);
    return order.size() > credits_ ? order[order.size() - 1 - credits_] : -1;
  }

  void visit_backward(const Action& action, int i) {
    const int micro_batch = action.micro_batch;
    if (find(at_.backward_first, micro_batch) != i) {
      wait(i, previous_part_);
      previous_part_ = i;
      return;
    }
    previous_part_ = i;
    wait(i, find(at_.forward, micro_batch));
    wait(i, find(edge(Stream::GradientIn), micro_batch));
    if (last_stage_) wait(i, at_.reduce_loss_count >= 0 ? at_.reduce_loss_count : at_.count_loss);
    // The gradient that it makes needs a free send buffer.
    wait(i, find(edge(Stream::GradientOut), take_turn(backwards_, micro_batch)));
  }

  int last_backward_within(const Action& bucket) const {
    for (auto i = at_.all_backward.rbegin(); i != at_.all_backward.rend(); ++i) {
      const Action& part = actions_[static_cast<std::size_t>(*i)];
      if (part.first_block < bucket.end_block && bucket.first_block < part.end_block) return *i;
    }
    return -1;
  }

  void visit(const Action& action, int i) {
    const int micro_batch = action.micro_batch;
    switch (action.kind) {
      case ActionKind::Forward:
        wait(i, find(edge(Stream::ActivationIn), micro_batch));
        wait(i, find(edge(Stream::ActivationOut), take_turn(forwards_, micro_batch)));
        break;
      case ActionKind::Backward:
      case ActionKind::BackwardInput: visit_backward(action, i); break;
      case ActionKind::BackwardWeight: wait(i, find(at_.backward_last, micro_batch)); break;
      case ActionKind::ReceiveActivation: wait(i, find(at_.forward, take_turn(activations_in_, micro_batch))); break;
      case ActionKind::SendActivation: wait(i, find(at_.forward, micro_batch)); break;
      case ActionKind::ReceiveGradient: wait(i, find(at_.backward_last, take_turn(gradients_in_, micro_batch))); break;
      case ActionKind::SendGradient: wait(i, find(at_.backward_last, micro_batch)); break;
      case ActionKind::CountLoss: break;
      case ActionKind::ReduceLossCount: wait(i, at_.count_loss); break;
      case ActionKind::ReduceGradient: wait(i, last_backward_within(action)); break;
      case ActionKind::ReduceTied: wait(i, at_.all_backward.empty() ? -1 : at_.all_backward.back()); break;
      case ActionKind::ReduceNorm:
        for (const int reduction : at_.reductions) wait(i, reduction);
        wait(i, at_.last_compute_of_pipeline);
        break;
      case ActionKind::Optimizer: wait(i, at_.reduce_norm); break;
      case ActionKind::BroadcastTied: wait(i, at_.optimizer); break;
    }
  }

  const std::vector<Action>& actions_;
  Positions at_;
  std::size_t credits_;
  bool last_stage_;
  std::vector<std::vector<int>> waits_;
  std::vector<int> forwards_, backwards_, activations_in_, gradients_in_;  // micro-batches in list order
  int previous_part_ = -1;
};

}  // namespace

RankProgram make_role_program(const Plan& plan, int stage, const std::vector<Action>& actions) {
  RankProgram program;
  program.place.stage = stage;
  program.actions = actions;
  program.streams.reserve(actions.size());
  for (const Action& action : actions) program.streams.push_back(stream_of(action.kind));
  const bool last_stage = stage + 1 == static_cast<int>(plan.stages.size());
  program.waits_for = WaitBuilder(actions, std::max(plan.receive_credits, 1), last_stage).build();
  return program;
}

RankProgram make_rank_program(const Plan& plan, const model::ModelGraph&, int rank,
                              const std::vector<Action>& actions) {
  const RankPlace place = place_of(plan, rank);
  RankProgram program = make_role_program(plan, place.stage, actions);
  program.rank = rank;
  program.place = place;
  return program;
}

RankProgram make_rank_program(const Plan& plan, const model::ModelGraph& graph, int rank) {
  const RankPlace place = place_of(plan, rank);
  for (const Role& role : plan.roles) {
    if (role.stage != place.stage) continue;
    if (std::find(role.replicas.begin(), role.replicas.end(), place.replica) == role.replicas.end()) continue;
    return make_rank_program(plan, graph, rank, role.actions);
  }
  COX_ENSURE(false, rank, place.stage, place.replica);
  return {};
}

StepState::StepState(const RankProgram& program)
    : program_(&program),
      order_(kNumStreams),
      next_(kNumStreams, 0),
      running_(kNumStreams, -1),
      finished_(program.actions.size(), 0) {
  for (std::size_t i = 0; i < program.streams.size(); ++i) {
    order_[static_cast<std::size_t>(program.streams[i])].push_back(static_cast<int>(i));
  }
}

int StepState::startable(Stream stream) const {
  const auto s = static_cast<std::size_t>(stream);
  if (running_[s] >= 0 || next_[s] == static_cast<int>(order_[s].size())) return -1;
  const int action = order_[s][static_cast<std::size_t>(next_[s])];
  for (const int on : program_->waits_for[static_cast<std::size_t>(action)]) {
    if (!finished_[static_cast<std::size_t>(on)]) return -1;
  }
  return action;
}

int StepState::next(Stream stream) const {
  const auto s = static_cast<std::size_t>(stream);
  return next_[s] == static_cast<int>(order_[s].size()) ? -1 : order_[s][static_cast<std::size_t>(next_[s])];
}

void StepState::started(int action) {
  const Stream stream = program_->streams[static_cast<std::size_t>(action)];
  COX_ENSURE(startable(stream) == action, action);
  running_[static_cast<std::size_t>(stream)] = action;
  ++next_[static_cast<std::size_t>(stream)];
}

void StepState::finished(int action) {
  int& running = running_[static_cast<std::size_t>(program_->streams[static_cast<std::size_t>(action)])];
  COX_ENSURE(running == action, action, running);
  running = -1;
  finished_[static_cast<std::size_t>(action)] = 1;
  ++num_finished_;
}

void StepState::reset() {
  std::fill(next_.begin(), next_.end(), 0);
  std::fill(running_.begin(), running_.end(), -1);
  std::fill(finished_.begin(), finished_.end(), 0);
  num_finished_ = 0;
}

}  // namespace coxswain::plan
