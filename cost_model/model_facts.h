#pragma once
// What costs need of a graph again and again, computed once: totals of each distinct block, bytes live at each cut, who
// uses which parameter. Owned by a CostModel (facts()); read by memory, simulator and planner.
// Threads: any; lookups that are made on demand are guarded. Source: DESIGN 3.1 ("every later cost is computed once per
// signature").
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "common/units.h"
#include "model/model_graph.h"
#include "model/op_cost.h"
#include "model/shard.h"
#include "plan/plan.h"

namespace coxswain::cost_model {

struct ParameterFacts {
  std::int64_t elements = 0;
  DType dtype = DType::Float32;
  bool trainable = true;
  std::vector<int> blocks;  // that use it, ascending; empty when nothing does
  bool sharded = false;     // a tensor axis splits it
  /// Held by one device of a tensor axis of `tensor`.
  [[nodiscard]] std::int64_t elements_at(int tensor) const {
    return sharded ? (elements + tensor - 1) / tensor : elements;
  }
};

class ModelFacts {
 public:
  explicit ModelFacts(const model::ModelGraph& graph);

  [[nodiscard]] const model::ModelGraph& graph() const { return graph_; }
  [[nodiscard]] int num_blocks() const { return graph_.num_blocks(); }
  /// Blocks of equal signature have equal numbers, counted from 0 in order of first appearance.
  [[nodiscard]] int signature_of(int block) const { return signatures_[static_cast<std::size_t>(block)]; }
  [[nodiscard]] const std::vector<ParameterFacts>& parameters() const { return parameters_; }
  /// Samples that shapes may be asked for: 0 = any, else the static batch.
  [[nodiscard]] std::int64_t static_batch() const { return graph_.batch_symbol.empty() ? graph_.static_batch : 0; }
  [[nodiscard]] const model::BlockTotals& totals(int block, std::int64_t samples) const;
  /// C25: how the block splits over a tensor axis.
  [[nodiscard]] const model::BlockShard& shard(int block) const {
    return shards_[static_cast<std::size_t>(signature_of(block))];
  }
  /// True when every block can be split over `tensor` devices.
  [[nodiscard]] bool splits_over(int tensor) const;

  /// Bytes that cross the cut before block `cut` for `samples`: activations forward, gradients backward.
  /// C16: floating-point values are 2 bytes an element under bfloat16.
  [[nodiscard]] Bytes activation_bytes(int cut, std::int64_t samples, plan::Precision precision) const;
  [[nodiscard]] Bytes gradient_bytes(int cut, std::int64_t samples, plan::Precision precision) const;
  /// Bytes of every buffer and the ascending blocks that use it.
  [[nodiscard]] const std::vector<std::pair<Bytes, std::vector<int>>>& buffers() const { return buffers_; }
  /// Of buffers used by blocks [first, end).
  [[nodiscard]] Bytes buffer_bytes(int first_block, int end_block) const;
  /// C21: 3 x the matmul FLOPs of the forward pass (non-causal, no recompute) for `samples`.
  [[nodiscard]] Flop model_flop(std::int64_t samples) const;

 private:
  struct CutValue {
    model::ValueId value = -1;
    bool requires_grad = false;
  };
  [[nodiscard]] Bytes cut_bytes(int cut, std::int64_t samples, plan::Precision precision, bool gradients) const;

  const model::ModelGraph& graph_;
  std::vector<int> signatures_;
  std::vector<model::BlockShard> shards_;  // by signature
  std::vector<ParameterFacts> parameters_;
  std::vector<std::vector<CutValue>> cuts_;                  // by cut index
  std::vector<std::pair<Bytes, std::vector<int>>> buffers_;  // bytes, blocks that use it
  mutable std::mutex mutex_;
  mutable std::map<std::pair<int, std::int64_t>, model::BlockTotals>
      totals_;  // by (signature, samples); nodes stay put
};

}  // namespace coxswain::cost_model
