// What waits for what on one rank, and the one rule of order over it.
#include <algorithm>
#include <array>
#include <map>

#include "common/ensure.h"
#include "plan/derive.h"

namespace coxswain::plan {
namespace {

bool is_backward(ActionKind kind) { return kind == ActionKind::Backward || kind == ActionKind::BackwardInput; }

using Key = std::pair<int, int>;  // chunk, micro-batch
Key key_of(const Action& action) { return {action.chunk, action.micro_batch}; }

/// Numbers for the pairs of chunk and micro-batch that a list has: where they are few, as they are, by counting.
class Slots {
 public:
  explicit Slots(const std::vector<Action>& actions) {
    constexpr std::size_t kSparse = 8;
    for (const Action& action : actions) {
      num_chunks_ = std::max<std::int64_t>(num_chunks_, std::int64_t{action.chunk} + 1);
      num_micro_batches_ = std::max<std::int64_t>(num_micro_batches_, std::int64_t{action.micro_batch} + 1);
    }
    if (num_chunks_ * num_micro_batches_ <= static_cast<std::int64_t>(kSparse * actions.size())) return;
    for (const Action& action : actions) keys_.push_back(key_of(action));
    std::sort(keys_.begin(), keys_.end());
    keys_.erase(std::unique(keys_.begin(), keys_.end()), keys_.end());
  }
  [[nodiscard]] std::size_t size() const {
    return keys_.empty() ? static_cast<std::size_t>(num_chunks_ * num_micro_batches_) : keys_.size();
  }
  /// -1: the list has none such.
  [[nodiscard]] std::ptrdiff_t of(const Key& key) const {
    if (keys_.empty()) {
      const auto [chunk, micro_batch] = key;
      if (chunk < 0 || chunk >= num_chunks_ || micro_batch < 0 || micro_batch >= num_micro_batches_) return -1;
      return chunk * num_micro_batches_ + micro_batch;
    }
    const auto found = std::lower_bound(keys_.begin(), keys_.end(), key);
    return found == keys_.end() || *found != key ? -1 : found - keys_.begin();
  }

 private:
  std::int64_t num_chunks_ = 0, num_micro_batches_ = 0;
  std::vector<Key> keys_;  // ascending; empty: all pairs
};

/// Actions by chunk and micro-batch.
class Places {
 public:
  void resize(std::size_t size) { at_.resize(size, -1); }
  [[nodiscard]] int at(std::ptrdiff_t slot) const { return slot < 0 ? -1 : at_[static_cast<std::size_t>(slot)]; }
  void first(std::ptrdiff_t slot, int action) {
    if (slot >= 0 && at_[static_cast<std::size_t>(slot)] < 0) at_[static_cast<std::size_t>(slot)] = action;
  }
  void last(std::ptrdiff_t slot, int action) {
    if (slot >= 0) at_[static_cast<std::size_t>(slot)] = action;
  }

 private:
  std::vector<int> at_;
};

/// Positions of a list's actions by what others look them up for.
struct Positions {
  Slots slots;
  Places forward_first, forward, backward_first, backward_last;  // `forward`: the last part
  std::map<std::pair<int, int>, int> reduction;  // of one micro-batch, by it and first block: ZeRO 2 and 3
  std::array<Places, kNumStreams> edge;          // by stream
  std::vector<int> all_backward;                 // B, I and W parts in list order
  int last_compute_of_pipeline = -1;
  int count_loss = -1, reduce_loss_count = -1, reduce_norm = -1, optimizer = -1;
  std::vector<int> reductions;  // of gradients

  explicit Positions(const std::vector<Action>& actions) : slots(actions) {
    for (Places* places : {&forward_first, &forward, &backward_first, &backward_last}) places->resize(slots.size());
    for (const Stream stream : {Stream::ActivationIn, Stream::ActivationOut, Stream::GradientIn, Stream::GradientOut})
      edge[static_cast<std::size_t>(stream)].resize(slots.size());
    for (std::size_t i = 0; i < actions.size(); ++i) place(actions[i], static_cast<int>(i));
  }

 private:
  void place(const Action& action, int i) {
    const ActionKind kind = action.kind;
    if (kind == ActionKind::Forward) {
      forward_first.first(slots.of(key_of(action)), i);
      forward.last(slots.of(key_of(action)), i);
      last_compute_of_pipeline = i;
    } else if (is_backward(kind) || kind == ActionKind::BackwardWeight) {
      all_backward.push_back(i);
      last_compute_of_pipeline = i;
      if (is_backward(kind)) {
        backward_first.first(slots.of(key_of(action)), i);
        backward_last.last(slots.of(key_of(action)), i);
      }
    } else if (is_edge(kind)) {
      edge[static_cast<std::size_t>(stream_of(kind))].first(slots.of(key_of(action)), i);
    } else if (kind == ActionKind::ReduceGradient || kind == ActionKind::ReduceTied ||
               kind == ActionKind::ReduceReused || kind == ActionKind::ReduceShared ||
               kind == ActionKind::ReduceExperts) {
      reductions.push_back(i);
      if (action.micro_batch >= 0) reduction.emplace(std::pair(action.micro_batch, action.first_block), i);
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

class WaitBuilder {
 public:
  WaitBuilder(const Plan& plan, int stage, const std::vector<Action>& actions)
      : plan_(plan), stage_(stage), actions_(actions), at_(actions), waits_(actions.size()) {}

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
    if (on < 0 || on == action) return;
    std::vector<int>& waits = waits_[static_cast<std::size_t>(action)];
    if (waits.empty()) waits.reserve(kFewWaits);
    waits.push_back(on);
  }

  const Places& edge(Stream stream) const { return at_.edge[static_cast<std::size_t>(stream)]; }
  int find(const Places& places, const std::optional<Key>& key) const {
    return key ? places.at(at_.slots.of(*key)) : -1;
  }

  /// Who took its turn on an edge, in list order.
  using Turns = std::map<int, std::vector<Key>>;

  /// Notes that an action takes its turn on the edge of `kind`; who did so as many turns earlier as there are credits.
  std::optional<Key> take_turn(Turns& turns, ActionKind kind, const Action& action) const {
    Action on_edge = action;
    on_edge.kind = kind;
    const std::optional<Edge> edge = edge_of(plan_, stage_, on_edge);
    if (!edge) return std::nullopt;
    std::vector<Key>& order = turns[edge->index];
    order.push_back(key_of(action));
    const auto credits = static_cast<std::size_t>(credits_of(plan_, *edge));
    return order.size() > credits ? std::optional(order[order.size() - 1 - credits]) : std::nullopt;
  }

  void visit_backward(const Action& action, int i) {
    const Key key = key_of(action);
    if (find(at_.backward_first, key) != i) {
      wait(i, previous_part_);
      previous_part_ = i;
      return;
    }
    previous_part_ = i;
    wait(i, find(at_.forward, key));
    wait(i, find(edge(Stream::GradientIn), key));
    if (part_of(plan_, stage_, action.chunk) == num_parts(plan_) - 1) {
      wait(i, at_.reduce_loss_count >= 0 ? at_.reduce_loss_count : at_.count_loss);
    } else if (!has_edge_out(plan_, stage_, action.chunk)) {
      // The part after it lies on this stage: its gradient comes by no edge.
      const int after = part_of(plan_, stage_, action.chunk) + 1;
      const int chunk = place_of_part(plan_.schedule, after, static_cast<int>(plan_.stages.size())).chunk;
      wait(i, find(at_.backward_last, Key{chunk, action.micro_batch}));
    }
    // The gradient that it makes needs a free send buffer.
    wait(i, find(edge(Stream::GradientOut), take_turn(backwards_, ActionKind::SendGradient, action)));
  }

  /// The last backward that touches the bucket's blocks or later ones: a parameter counts at the lowest of its blocks.
  int last_backward_within(const Action& bucket) const {
    for (auto i = at_.all_backward.rbegin(); i != at_.all_backward.rend(); ++i) {
      if (bucket.first_block < actions_[static_cast<std::size_t>(*i)].end_block) return *i;
    }
    return -1;
  }

  void visit_forward(const Action& action, int i) {
    if (find(at_.forward_first, key_of(action)) != i) return;  // a later part, behind the first on its stream
    const int part = part_of(plan_, stage_, action.chunk);
    wait(i, find(edge(Stream::ActivationIn), key_of(action)));
    if (part > 0 && !has_edge_in(plan_, stage_, action.chunk)) {
      const int chunk = place_of_part(plan_.schedule, part - 1, static_cast<int>(plan_.stages.size())).chunk;
      wait(i, find(at_.forward, Key{chunk, action.micro_batch}));
    }
    wait(i, find(edge(Stream::ActivationOut), take_turn(forwards_, ActionKind::SendActivation, action)));
  }

  /// ZeRO 3: parameters are there once the gather before this action in the list has ended.
  void wait_for_parameters(const Action& action, int i) {
    const auto gather = gathers_.find(action.first_block);
    if (gather == gathers_.end()) return;
    wait(i, gather->second);
    users_.push_back(i);
  }

  /// ZeRO 3: one bucket is at work, one is gathered ahead: the one before has been freed.
  void visit_gather(const Action& action, int i) {
    if (action.micro_batch < 0) return wait(i, at_.optimizer);
    gathers_[action.first_block] = i;
    if (users_.size() >= 2) wait(i, users_[users_.size() - 2]);
  }

  /// ZeRO 2 and 3: one whole gradient is made while another is reduced; there is no room for a third.
  void wait_for_room(const Action& action, int i) {
    const auto reduction = at_.reduction.find({action.micro_batch, action.first_block});
    if (reduction == at_.reduction.end()) return;
    completed_.push_back(reduction->second);
    if (completed_.size() > 2) wait(i, completed_[completed_.size() - 3]);
    last_completing_[{action.micro_batch, action.first_block}] = i;
  }

  void visit_reduction(const Action& action, int i) {
    if (action.micro_batch < 0) return wait(i, last_backward_within(action));
    const auto completing = last_completing_.find({action.micro_batch, action.first_block});
    wait(i, completing == last_completing_.end() ? last_backward_within(action) : completing->second);
  }

  void visit(const Action& action, int i) {
    const Key key = key_of(action);
    if (is_compute(action.kind) && action.micro_batch >= 0) wait_for_parameters(action, i);
    if (action.kind == ActionKind::Backward || action.kind == ActionKind::BackwardWeight) wait_for_room(action, i);
    switch (action.kind) {
      case ActionKind::Forward: visit_forward(action, i); break;
      case ActionKind::Backward:
      case ActionKind::BackwardInput: visit_backward(action, i); break;
      case ActionKind::BackwardWeight: wait(i, find(at_.backward_last, key)); break;
      case ActionKind::ReceiveActivation:
        wait(i, find(at_.forward, take_turn(activations_in_, action.kind, action)));
        break;
      case ActionKind::SendActivation: wait(i, find(at_.forward, key)); break;
      case ActionKind::ReceiveGradient:
        wait(i, find(at_.backward_last, take_turn(gradients_in_, action.kind, action)));
        break;
      case ActionKind::SendGradient: wait(i, find(at_.backward_last, key)); break;
      case ActionKind::CountLoss: break;
      case ActionKind::ReduceLossCount: wait(i, at_.count_loss); break;
      case ActionKind::ReduceExperts:
      case ActionKind::ReduceGradient: visit_reduction(action, i); break;
      case ActionKind::GatherParameter: visit_gather(action, i); break;
      case ActionKind::GatherReused: wait(i, at_.optimizer); break;
      case ActionKind::ReduceReused:
      case ActionKind::ReduceTied:
      case ActionKind::ReduceShared: wait(i, at_.all_backward.empty() ? -1 : at_.all_backward.back()); break;
      case ActionKind::ReduceNorm:
        for (const int reduction : at_.reductions) wait(i, reduction);
        wait(i, at_.last_compute_of_pipeline);
        break;
      case ActionKind::Optimizer: wait(i, at_.reduce_norm); break;
    }
  }

  static constexpr std::size_t kFewWaits = 4;

  const Plan& plan_;
  int stage_;
  const std::vector<Action>& actions_;
  Positions at_;
  std::vector<std::vector<int>> waits_;
  Turns forwards_, backwards_, activations_in_, gradients_in_;  // by edge
  int previous_part_ = -1;
  std::map<int, int> gathers_;  // the last one, by first block
  std::vector<int> users_;      // compute actions on gathered parameters, in list order
  std::vector<int> completed_;  // reductions of one micro-batch, in the order of their backwards
  std::map<std::pair<int, int>, int> last_completing_;  // backward, by micro-batch and first block
};

}  // namespace

RankProgram make_role_program(const Plan& plan, int stage, const std::vector<Action>& actions) {
  RankProgram program;
  program.place.stage = stage;
  program.actions = actions;
  program.streams.reserve(actions.size());
  for (const Action& action : actions) program.streams.push_back(stream_of(plan, stage, action));
  program.waits_for = WaitBuilder(plan, stage, actions).build();
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
  COX_ENSURE(running_[static_cast<std::size_t>(stream)] < 0 && next(stream) == action, action);
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
