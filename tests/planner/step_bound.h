#pragma once
// A plan's step without what only the simulator knows: the plan's actions in the order of its schedule, each as soon as
// what it waits for is done, for a few stages and micro-batches. It leaves out that links are shared, that a CPU copies
// with the core that it computes with and sees nothing while it computes, and tied parameters. Each of these only makes
// an action longer or start later, and on every stream the order is fixed: so no simulated step is shorter. It knows
// nothing of planner/.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "cost_model/event_queue.h"
#include "plan/schedule.h"

namespace coxswain::test_support {

using cost_model::Ticks;

/// Ticks of a replica's actions of one micro-batch.
struct ReplicaTimes {
  Ticks overhead = 0, forward = 0, backward = 0, weight = 0;  // backward: I where it is split
  std::vector<Ticks> last_parts;                              // of the last B or W: one a bucket, and what remains
  Ticks optimizer = 0;
};
struct StageTimes {
  std::vector<ReplicaTimes> replicas;
  std::vector<Ticks> reductions;  // of the buckets
  Ticks loss_count = 0;           // reduction of the loss count, where it is the last stage
};
/// Messages between the replicas of two neighbouring stages: of one micro-batch, on each side.
struct EdgeTimes {
  struct Side {
    std::vector<Ticks> activation, gradient;      // by replica
    std::vector<std::vector<std::size_t>> peers;  // by replica, in the other stage
  };
  Side from, to;
};

class StepBound {
 public:
  /// To the end of the reductions of all replicas; `optimizer`: of the slowest update. Lists: a stage's schedule.
  Ticks run(const std::vector<const StageTimes*>& stages, const std::vector<const EdgeTimes*>& edges,
            const std::vector<std::vector<plan::Action>>& lists, int count, int credits) {
    stages_ = &stages;
    edges_ = &edges;
    lists_ = &lists;
    count_ = count;
    credits_ = credits;
    begin();
    bool moved = true;
    while (moved) {
      moved = false;
      for (std::size_t s = 0; s < stages.size(); ++s) {
        for (Replica& replica : state_[s]) moved = advance(s, replica) || moved;
        if (s + 1 < stages.size()) moved = pass_on(s) || moved;
      }
    }
    Ticks end = 0;
    for (std::size_t s = 0; s < stages.size(); ++s) end = std::max(end, reduce(s));
    return end;
  }

 private:
  static constexpr Ticks kUnknown = -1;
  struct Replica {
    std::size_t index = 0, next = 0;                               // action of the list
    Ticks now = 0, counted = 0;                                    // compute stream; count of the loss
    std::vector<Ticks> forward, backward, parts;                   // ends of actions
    std::vector<Ticks> received, sent, gradient_in, gradient_out;  // ends of messages
  };

  void begin() {
    state_.resize(stages_->size());
    done_.assign(stages_->size(), {0, 0});
    const auto count = static_cast<std::size_t>(count_);
    for (std::size_t s = 0; s < state_.size(); ++s) {
      const StageTimes& times = *(*stages_)[s];
      state_[s].resize(times.replicas.size());
      Ticks counted = 0;
      for (std::size_t r = 0; r < times.replicas.size(); ++r) {
        Replica& replica = state_[s][r];
        replica.index = r;
        replica.next = 0;
        for (auto* ends : {&replica.forward, &replica.backward, &replica.received, &replica.sent, &replica.gradient_in,
                           &replica.gradient_out})
          ends->assign(count, kUnknown);
        replica.parts.clear();
        const bool last = s + 1 == state_.size();
        replica.now = last ? times.replicas[r].overhead : 0;
        counted = std::max(counted, replica.now);
      }
      for (Replica& replica : state_[s]) replica.counted = counted + times.loss_count;
    }
  }

  /// Runs what `replica` can run; false where that is nothing.
  bool advance(std::size_t s, Replica& replica) {
    const std::vector<plan::Action>& list = (*lists_)[s];
    const ReplicaTimes& times = (*stages_)[s]->replicas[replica.index];
    const bool first = s == 0, last = s + 1 == state_.size();
    bool moved = false;
    for (; replica.next < list.size(); ++replica.next, moved = true) {
      const plan::Action& action = list[replica.next];
      const auto m = static_cast<std::size_t>(action.micro_batch);
      const bool waits_for_buffer = action.micro_batch >= credits_;
      const std::size_t buffer = waits_for_buffer ? m - static_cast<std::size_t>(credits_) : 0;
      Ticks start = replica.now;
      const auto wait = [&](Ticks end) {
        start = std::max(start, end);
        return end != kUnknown;
      };
      if (action.kind == plan::ActionKind::Forward) {
        if (!first && !wait(replica.received[m])) break;
        if (!last && waits_for_buffer && !wait(replica.sent[buffer])) break;
        replica.now = replica.forward[m] = start + times.forward;
        continue;
      }
      if (action.kind != plan::ActionKind::BackwardWeight) {
        if (!wait(last ? replica.counted : replica.gradient_in[m])) break;
        if (!first && waits_for_buffer && !wait(replica.gradient_out[buffer])) break;
      }
      const bool is_last = replica.next + 1 == list.size();
      if (is_last) {
        replica.now = start;
        for (const Ticks part : times.last_parts) replica.parts.push_back(replica.now += part);
      } else {
        replica.now = start + (action.kind == plan::ActionKind::BackwardWeight ? times.weight : times.backward);
      }
      if (action.kind != plan::ActionKind::BackwardWeight) replica.backward[m] = replica.now;
    }
    return moved;
  }

  /// Messages of the edge behind stage `s` that both sides have come to.
  bool pass_on(std::size_t s) {
    const EdgeTimes& edge = *(*edges_)[s];
    std::vector<Replica>&from = state_[s], &to = state_[s + 1];
    bool moved = false;
    for (std::size_t& m = done_[s].activations; m < static_cast<std::size_t>(count_); ++m, moved = true) {
      if (!meet(from, to, edge.from, edge.to, m, &Replica::forward, &Replica::sent, &Replica::received,
                &EdgeTimes::Side::activation))
        break;
    }
    for (std::size_t& m = done_[s].gradients; m < static_cast<std::size_t>(count_); ++m, moved = true) {
      if (!meet(to, from, edge.to, edge.from, m, &Replica::backward, &Replica::gradient_out, &Replica::gradient_in,
                &EdgeTimes::Side::gradient))
        break;
    }
    return moved;
  }

  using Ends = std::vector<Ticks> Replica::*;
  /// Message `m` from `senders`, once they have computed it, to `receivers`, once one of their buffers is free.
  bool meet(std::vector<Replica>& senders, std::vector<Replica>& receivers, const EdgeTimes::Side& sending,
            const EdgeTimes::Side& receiving, std::size_t m, Ends computed, Ends sent, Ends received,
            std::vector<Ticks> EdgeTimes::Side::* duration) {
    const auto issue = [&](Replica& replica, Ends own, std::ptrdiff_t needs) {
      Ticks ready = m > 0 ? (replica.*own)[m - 1] : 0;
      if (needs < 0) return ready;
      const Ticks end = (replica.*computed)[static_cast<std::size_t>(needs)];
      return end == kUnknown ? kUnknown : std::max(ready, end);
    };
    send_at_.clear();
    receive_at_.clear();
    const auto message = static_cast<std::ptrdiff_t>(m);
    for (Replica& replica : senders) send_at_.push_back(issue(replica, sent, message));
    for (Replica& replica : receivers) receive_at_.push_back(issue(replica, received, message - credits_));
    for (const auto* at : {&send_at_, &receive_at_}) {
      if (std::find(at->begin(), at->end(), kUnknown) != at->end()) return false;
    }
    const auto end = [&](std::vector<Replica>& side, const EdgeTimes::Side& times, Ends own,
                         const std::vector<Ticks>& at, const std::vector<Ticks>& other) {
      for (std::size_t r = 0; r < side.size(); ++r) {
        Ticks start = at[r];
        for (const std::size_t peer : times.peers[r]) start = std::max(start, other[peer]);
        (side[r].*own)[m] = start + (times.*duration)[r];
      }
    };
    end(senders, sending, sent, send_at_, receive_at_);
    end(receivers, receiving, received, receive_at_, send_at_);
    return true;
  }

  /// The end of the stage's last reduction.
  [[nodiscard]] Ticks reduce(std::size_t s) const {
    Ticks end = 0, reduced = 0;
    for (const Replica& replica : state_[s]) {
      end = std::max(end, replica.now);
      reduced = std::max(reduced, replica.counted);
    }
    const std::vector<Ticks>& reductions = (*stages_)[s]->reductions;
    for (std::size_t bucket = 0; bucket < reductions.size(); ++bucket) {
      for (const Replica& replica : state_[s]) reduced = std::max(reduced, replica.parts[bucket]);
      reduced += reductions[bucket];
    }
    return std::max(end, reduced);
  }

  struct Done {
    std::size_t activations = 0, gradients = 0;
  };
  const std::vector<const StageTimes*>* stages_ = nullptr;
  const std::vector<const EdgeTimes*>* edges_ = nullptr;
  const std::vector<std::vector<plan::Action>>* lists_ = nullptr;
  int count_ = 0, credits_ = 0;
  std::vector<std::vector<Replica>> state_;  // by stage
  std::vector<Done> done_;                   // by edge
  std::vector<Ticks> send_at_, receive_at_;
};

}  // namespace coxswain::test_support
