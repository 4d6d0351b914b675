#pragma once
// Time and memory of runs of blocks on a device class with a number of samples, in constant time after the first look:
// prefix sums over blocks, made once per (class, samples). Called by the search. Threads: any.
// Source: docs/cost_model.md, C11-C17; equal to what the simulator and estimate_memory say of the same stage.
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
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
  std::vector<std::int64_t> saved, selective, kept_input;  // bytes kept of a block: without recompute, selective, full
  std::vector<std::int64_t> transient, shared;
  std::vector<std::int64_t> activation_cut, gradient_cut;  // bytes across the cut before a block
  /// A block that recomputes more than before; ordered by bytes saved per second, best first.
  struct RecomputeStep {
    int block = 0;
    plan::Recompute to = plan::Recompute::None;
  };
  std::vector<RecomputeStep> recompute_steps;

  [[nodiscard]] std::int64_t kept(std::size_t block, plan::Recompute recompute) const {
    return recompute == plan::Recompute::None   ? saved[block]
           : recompute == plan::Recompute::Full ? kept_input[block]
                                                : selective[block];
  }
  /// Bytes that are there once more while the block is recomputed.
  [[nodiscard]] std::int64_t replayed(std::size_t block, plan::Recompute recompute) const {
    return recompute == plan::Recompute::None   ? 0
           : recompute == plan::Recompute::Full ? saved[block]
                                                : saved[block] - selective[block];
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
  int in_flight = 1, credits = 2;
  int zero_stage = 0;
  std::int64_t replicas = 1;
  plan::Offload offload = plan::Offload::None;
};

/// Memory of a span as far as its recompute does not change it.
struct Room {
  std::int64_t fixed = 0, host_fixed = 0;
  std::int64_t capacity = 0, host_capacity = 0;
  int in_flight = 1;
  bool moves = false;  // activations to the host

  /// With margin. For `kept` bytes of a micro-batch, `largest` of them of one block, and `replayed` once more.
  [[nodiscard]] std::int64_t bytes(std::int64_t kept, std::int64_t largest, std::int64_t replayed) const {
    return bytes_of(kept * in_flight, largest, replayed);
  }
  /// The same for `live` bytes of all micro-batches.
  [[nodiscard]] std::int64_t bytes_of(std::int64_t live, std::int64_t largest, std::int64_t replayed) const {
    // C34: of what goes to the host, two blocks' are here.
    if (moves) live = std::min(live, 2 * largest);
    const Bytes sum(fixed + live + replayed);
    return (sum + cost_model::margin_of(sum)).value;
  }
  [[nodiscard]] bool holds(std::int64_t kept, std::int64_t largest, std::int64_t replayed) const {
    const std::int64_t host = host_fixed + (moves ? kept * in_flight : 0);
    return bytes(kept, largest, replayed) <= capacity && (host == 0 || host <= host_capacity);
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
};

}  // namespace coxswain::planner
