#pragma once
// Time and memory of runs of blocks on a device class with a number of samples, in constant time after the first look:
// prefix sums over blocks, made once per (class, samples). Called by the search. Threads: any.
// Source: docs/cost_model.md, C11-C17; equal to what the simulator and estimate_memory say of the same stage.
#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "cost_model/cost_model.h"
#include "cost_model/event_queue.h"
#include "cost_model/memory.h"
#include "cost_model/mesh_times.h"
#include "planner/pools.h"

namespace coxswain::planner {

using cost_model::Ticks;

/// Blocks of one kind of unit with one number of samples.
struct SampleTable {
  UnitKind kind;
  std::int64_t samples = 0;
  std::vector<Ticks> forward, backward;                      // of a block
  std::vector<Ticks> weight;                                 // of the backward, what zero-bubble schedules put off
  std::vector<Ticks> forward_sum, backward_sum, weight_sum;  // of the blocks before
  std::vector<Ticks> replay;                                 // of selective recompute
  std::vector<std::int64_t> shared;
  std::vector<int> alike;                                  // by block: which of `held` it is
  std::vector<int> alike_end;                              // by block: behind it and those like it that follow
  std::vector<std::array<cost_model::HeldBytes, 3>> held;  // of blocks that differ, by recompute choice
  std::vector<std::int64_t> activation_cut, gradient_cut;  // bytes across the cut before a block
  /// A block that recomputes more than before; ordered by bytes saved per second, best first.
  struct RecomputeStep {
    int block = 0;
    plan::Recompute to = plan::Recompute::None;
  };
  std::vector<RecomputeStep> recompute_steps;
  std::vector<plan::Recompute> most_recompute;  // by block, after all of them

  [[nodiscard]] std::int64_t kept(std::size_t block, plan::Recompute recompute) const {
    return holds(block, recompute).kept;
  }
  [[nodiscard]] const cost_model::HeldBytes& holds(std::size_t block, plan::Recompute recompute) const {
    return held[static_cast<std::size_t>(alike[block])][static_cast<std::size_t>(recompute)];
  }
};

/// What the user or the model fixes about recompute.
enum class RecomputeRule { Free, None, Full, Selective, Listed };

/// How a stage fits into a device.
struct Fit {
  bool fits = false;
  std::int64_t bytes = 0;                  // with margin
  std::vector<plan::Recompute> recompute;  // per block of the span
};

/// A span on one device class.
struct SpanQuery {
  int first = 0, end = 0;
  int in_flight = 1, credits = 2;  // where `moments` does not say: a stage of 1F1B that many from the end
  int zero_stage = 0;
  std::int64_t replicas = 1;
  plan::Offload offload = plan::Offload::None;
  const std::vector<cost_model::Moment>* moments = nullptr;
};

/// Memory of a span as far as its recompute does not change it.
struct Room {
  std::int64_t fixed = 0, host_fixed = 0;
  std::int64_t capacity = 0, host_capacity = 0;
  const std::vector<cost_model::Moment>* moments = nullptr;
  cost_model::EdgeBytes edges;
  bool moves = false;          // activations to the host
  std::int64_t most_kept = 1;  // micro-batches between F and B at once

  /// With margin.
  [[nodiscard]] std::int64_t bytes(const cost_model::HeldRun& held) const;
  [[nodiscard]] bool holds(const cost_model::HeldRun& held) const { return holds(held, bytes(held)); }
  /// The same where bytes(held) is known.
  [[nodiscard]] bool holds(const cost_model::HeldRun& held, std::int64_t bytes) const {
    return bytes <= capacity && host_holds(held.all.kept);
  }
  /// False: nothing that keeps that much fits, whatever its peaks are.
  [[nodiscard]] bool may_hold(std::int64_t kept, std::int64_t owed) const;

 private:
  [[nodiscard]] bool host_holds(std::int64_t kept) const {
    const std::int64_t host = host_fixed + (moves ? kept * most_kept : 0);
    return host == 0 || host <= host_capacity;
  }
};

class SpanCosts {
 public:
  SpanCosts(const cost_model::CostModel& cost, plan::Precision precision, RecomputeRule rule, std::vector<char> listed,
            bool selective = false);

  /// Requires: a node holds such a unit.
  [[nodiscard]] const SampleTable& table(UnitKind kind, std::int64_t samples) const;
  /// Of one device of a tensor and an expert axis; equal to cost_model::count_persistent.
  [[nodiscard]] cost_model::PersistentElements persistent(int first, int end, int tensor, int expert = 1) const;
  [[nodiscard]] Ticks overhead(int device_class) const { return overhead_[static_cast<std::size_t>(device_class)]; }
  /// Forward and backward actions of one micro-batch; without recompute.
  [[nodiscard]] Ticks forward(const SampleTable& table, int first, int end) const;
  [[nodiscard]] Ticks backward(const SampleTable& table, int first, int end) const;
  /// The fewest blocks to recompute, by bytes saved per second spent, so that the stage fits; `chosen` are recomputed
  /// anyway (empty: none).
  [[nodiscard]] Fit fit(const SampleTable& table, const SpanQuery& query,
                        const std::vector<plan::Recompute>& chosen = {}) const;
  [[nodiscard]] Room room(const SampleTable& table, const SpanQuery& query) const;
  /// C15: of `stage` of `num_stages` under `schedule`; one with chunks counts as a 1F1B that holds as many.
  [[nodiscard]] const std::vector<cost_model::Moment>& moments(plan::ScheduleKind schedule, int stage, int num_stages,
                                                               std::int64_t count, int credits) const;
  /// What a block may recompute, least first; one where the rule leaves no choice.
  [[nodiscard]] std::vector<plan::Recompute> recompute_kinds(int block) const;
  /// Gradient bytes of each bucket of the span on one device of a tensor axis, in the order of reduction.
  /// Elements of experts count as C33 says.
  [[nodiscard]] std::vector<std::int64_t> buckets(int first, int end, Bytes bucket_bytes, int tensor = 1,
                                                  int expert = 1, std::int64_t replicas = 1) const;
  /// Of all devices of a replica.
  [[nodiscard]] std::int64_t edge_bytes(int cut, std::int64_t samples, bool gradient) const {
    return cut_bytes(cut, samples, gradient);
  }
  [[nodiscard]] const cost_model::CostModel& cost() const { return cost_; }
  [[nodiscard]] plan::Precision precision() const { return precision_; }
  [[nodiscard]] int num_blocks() const { return num_blocks_; }
  [[nodiscard]] bool has_work(int first, int end) const {
    return ops_sum_[static_cast<std::size_t>(end)] > ops_sum_[static_cast<std::size_t>(first)];
  }

 private:
  [[nodiscard]] std::unique_ptr<SampleTable> make_table(UnitKind kind, std::int64_t samples) const;
  void add_block(SampleTable& table, int block, const cost_model::Mesh& mesh) const;
  void order_recompute(SampleTable& table) const;

  /// Bytes across a cut: `fixed` + samples x `each`, where shapes are so; else asked anew.
  struct CutLine {
    bool affine = false;
    std::int64_t fixed = 0, each = 0;
  };
  [[nodiscard]] CutLine make_line(int cut, bool gradient) const;
  [[nodiscard]] std::int64_t cut_bytes(int cut, std::int64_t samples, bool gradient) const;

  const cost_model::CostModel& cost_;
  plan::Precision precision_;
  std::vector<CutLine> activation_lines_, gradient_lines_;
  RecomputeRule rule_;
  std::vector<char> listed_;  // blocks that are recomputed under Listed
  bool selective_ = false;    // may recompute parts of blocks
  int num_blocks_ = 0;
  std::vector<Ticks> overhead_;
  std::vector<std::int64_t> ops_sum_;
  /// Sums over the blocks before, by tensor degree, of parameters that one block alone uses; and the others.
  struct Sums {
    std::vector<std::int64_t> held, experts, frozen;
    std::vector<std::int64_t> of_block, experts_of_block, wide_of_block;
    std::vector<std::int64_t> whole_of_block;  // whatever the axes
  };
  [[nodiscard]] Sums make_sums(int tensor, int expert) const;
  [[nodiscard]] const Sums& sums(int tensor, int expert) const;
  mutable std::map<std::pair<int, int>, Sums> sums_;
  std::vector<const cost_model::ParameterFacts*> tied_;  // used by several blocks
  mutable std::shared_mutex mutex_;
  mutable std::map<std::pair<UnitKind, std::int64_t>, std::unique_ptr<SampleTable>> tables_;
  mutable std::map<std::tuple<plan::ScheduleKind, int, int, std::int64_t, int>, std::vector<cost_model::Moment>>
      moments_;
};

}  // namespace coxswain::planner
