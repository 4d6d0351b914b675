#pragma once
// What costs need of a graph again and again, computed once: totals of each distinct block, bytes live at each cut, who
// uses which parameter. Owned by a CostModel (facts()); read by memory, simulator and planner.
// Threads: any; lookups that are made on demand are guarded. Source: DESIGN 3.1 ("every later cost is computed once per
// signature").
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "common/units.h"
#include "model/model_graph.h"
#include "model/op_cost.h"
#include "model/shard.h"
#include "plan/plan.h"
#include "plan/program.h"

namespace coxswain::cost_model {

class MeshFacts;
class ModelFacts;

struct ParameterFacts {
  std::int64_t elements = 0;
  DType dtype = DType::Float32;
  bool trainable = true;
  std::vector<int> blocks;   // that use it, ascending; empty when nothing does
  bool sharded = false;      // a tensor axis splits it
  std::int64_t experts = 0;  // whose matrices it holds: an expert axis splits it; 0: none
  /// Under bfloat16, bytes an element of what is computed with beyond the copy's 2: a table that is looked up in is
  /// read in float32 (2 more), and as a copy too where other operators read it (4 more).
  int wide_bytes = 0;
  const ModelFacts* facts = nullptr;
  int index = 0;  // in ModelFacts::parameters
  /// C57: held by one device of a tensor axis of `tensor` and an expert axis of `expert`.
  [[nodiscard]] std::int64_t elements_at(int tensor, int expert = 1, int expert_index = 0) const;
};

/// C33: of so many experts those that one of `expert` devices holds; the first ones hold one more where it is uneven.
[[nodiscard]] std::int64_t num_experts_at(std::int64_t experts, int expert, int expert_index);

class ModelFacts {
 public:
  explicit ModelFacts(const model::ModelGraph& graph);
  ~ModelFacts();
  ModelFacts(const ModelFacts&) = delete;
  ModelFacts& operator=(const ModelFacts&) = delete;

  [[nodiscard]] const model::ModelGraph& graph() const { return graph_; }
  [[nodiscard]] int num_blocks() const { return graph_.num_blocks(); }
  /// Blocks of equal signature have equal numbers, counted from 0 in order of first appearance.
  [[nodiscard]] int signature_of(int block) const { return signatures_[static_cast<std::size_t>(block)]; }
  [[nodiscard]] const std::vector<ParameterFacts>& parameters() const { return parameters_; }
  /// Indices into parameters() of those that the block uses, ascending.
  [[nodiscard]] const std::vector<int>& parameters_of(int block) const {
    return parameters_of_[static_cast<std::size_t>(block)];
  }
  /// The same for plans.
  [[nodiscard]] const plan::ParameterUses& uses() const { return uses_; }
  /// Samples that shapes may be asked for: 0 = any, else the static batch.
  [[nodiscard]] std::int64_t static_batch() const { return graph_.batch_symbol.empty() ? graph_.static_batch : 0; }
  [[nodiscard]] const model::BlockTotals& totals(int block, std::int64_t samples,
                                                 model::ExpertForm experts = model::ExpertForm::Gathered,
                                                 model::Width width = model::Width::Stored) const;
  /// C1 and C2 of each operator of the block.
  [[nodiscard]] const std::vector<model::OpCost>& op_costs(int block, std::int64_t samples,
                                                           model::ExpertForm experts) const;
  /// C54: what the first device of a mesh does of the block; null for a mesh of one device, and where no operator of
  /// the block can be split so (C25 and C29 then say what it would take). The first look at a signature lays it out.
  [[nodiscard]] const MeshFacts* mesh(int block, int tensor, int context) const;
  /// Elements of parameter `index` that such a device holds in the first block that uses it.
  [[nodiscard]] std::int64_t held_elements(int index, int tensor) const;
  /// C16: floating-point values are 2 bytes an element under bfloat16.
  [[nodiscard]] Bytes value_bytes(model::ValueId value, std::int64_t samples, plan::Precision precision) const;

  /// C25: how the block splits over a tensor axis.
  [[nodiscard]] const model::BlockShard& shard(int block) const {
    return shards_[static_cast<std::size_t>(signature_of(block))];
  }
  /// True when every block can be split over `tensor` devices.
  [[nodiscard]] bool splits_over(int tensor) const;
  /// C29: attention of the block, as a context axis sees it. Operators and values are those of the first block alike.
  [[nodiscard]] const model::BlockAttention& attention(int block) const {
    return attentions_[static_cast<std::size_t>(signature_of(block))];
  }
  /// C32: experts of the block, likewise.
  [[nodiscard]] const model::BlockExperts& experts(int block) const {
    return experts_[static_cast<std::size_t>(signature_of(block))];
  }
  /// True when the sequence splits over `context` devices: into 2 x context equal pieces, of which each device takes
  /// one from the front and one from the back, so that causal attention is equal work.
  [[nodiscard]] bool context_splits(int context) const;
  /// True when every table of experts splits over `expert` devices.
  [[nodiscard]] bool expert_splits(int expert) const;
  /// Keys and values of the block's attention, before heads are repeated.
  [[nodiscard]] Bytes key_value_bytes(int block, std::int64_t samples, plan::Precision precision) const;
  /// What travels to the block's experts, and back: (tokens x chosen, width).
  [[nodiscard]] Bytes dispatch_bytes(int block, std::int64_t samples, plan::Precision precision) const;

  /// Bytes that cross the cut before block `cut` for `samples`: activations forward, gradients backward.
  /// C16: floating-point values are 2 bytes an element in mixed precision.
  [[nodiscard]] Bytes activation_bytes(int cut, std::int64_t samples, plan::Precision precision) const;
  [[nodiscard]] Bytes gradient_bytes(int cut, std::int64_t samples, plan::Precision precision) const;
  /// Bytes of every buffer and the ascending blocks that use it.
  [[nodiscard]] const std::vector<std::pair<Bytes, std::vector<int>>>& buffers() const { return buffers_; }
  /// Of buffers used by blocks [first, end).
  [[nodiscard]] Bytes buffer_bytes(int first_block, int end_block) const;
  /// About what was looked up takes: it grows with numbers of samples and meshes.
  [[nodiscard]] Bytes kept_bytes() const;
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
  using Key = std::tuple<int, std::int64_t, model::ExpertForm, model::Width>;  // signature, samples
  template <class Made, class Make>
  const Made& look_up(std::map<Key, Made>& made, int block, std::int64_t samples, model::ExpertForm experts,
                      model::Width width, Make make) const;

  std::vector<model::BlockShard> shards_;  // by signature, as are the next two
  std::vector<model::BlockAttention> attentions_;
  std::vector<model::BlockExperts> experts_;
  std::vector<ParameterFacts> parameters_;
  plan::ParameterUses uses_;
  std::vector<std::vector<CutValue>> cuts_;                  // by cut index
  std::vector<std::pair<Bytes, std::vector<int>>> buffers_;  // bytes, blocks that use it
  mutable std::mutex mutex_;
  mutable Bytes made_bytes_{0};                       // of the next two
  mutable std::map<Key, model::BlockTotals> totals_;  // nodes stay put
  mutable std::map<Key, std::vector<model::OpCost>> op_costs_;
  mutable std::map<std::tuple<int, int, int>, std::unique_ptr<MeshFacts>> meshes_;  // signature, tensor, context
  std::vector<std::vector<int>> parameters_of_;                                     // by block, in the graph's order
};

/// A model and what is known of it, for cost models that share it. Threads: any.
struct KnownModel {
  explicit KnownModel(model::ModelGraph read) : graph(std::move(read)), facts(graph) {}
  const model::ModelGraph graph;
  const ModelFacts facts;
  /// About what it takes.
  [[nodiscard]] Bytes kept_bytes() const;
};

}  // namespace coxswain::cost_model
