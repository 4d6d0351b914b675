#pragma once
// What one device of a mesh (tensor, context) does and holds of a block, read off the graph that it will run
// (plan/layout): operators, what they keep, transitions and who takes part in them, parameters. Of the first position,
// which has no less than any other. Made once for each (signature, tensor, context) by ModelFacts::mesh. Threads:
// immutable, but for lookups that are guarded. Source: docs/cost_model.md, C54-C57.
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "collective/algorithm.h"
#include "cost_model/model_facts.h"
#include "plan/layout/local_block.h"

namespace coxswain::cost_model {

/// A collective of a block's forward; its backward is the dual.
struct MeshTransition {
  collective::CollectiveKind kind = collective::CollectiveKind::AllReduce;
  plan::AxisSet axes = 0;
  model::ValueId value = -1;  // whose bytes are the payload; -1: `numbers` of four bytes for each element of `rows`
  model::ValueId rows = -1;
  int numbers = 0;
  bool has_gradient = false;
};

/// Attention whose keys and values go around the context axis.
struct MeshRing {
  model::ValueId key = -1, value = -1;
  int op = 0;  // counted from the first of the local block
};

class MeshFacts {
 public:
  explicit MeshFacts(plan::LocalBlock local);
  ~MeshFacts();

  [[nodiscard]] const std::vector<plan::MeshAxis>& axes() const { return local_.axes; }
  [[nodiscard]] const std::vector<MeshTransition>& transitions() const { return transitions_; }
  [[nodiscard]] const std::vector<MeshRing>& rings() const { return rings_; }
  /// The local operator `op`, counted from the first of the local block, as one of the whole block; -1: a transition.
  [[nodiscard]] int origin(int op) const { return local_.origin[static_cast<std::size_t>(first_op_ + op)]; }
  /// Facts of the local graph, whose block plan::kBlock this is.
  [[nodiscard]] const ModelFacts& local() const { return *facts_; }
  /// Parameters of the block, in the graph's order, and what is held of each.
  [[nodiscard]] std::size_t num_parameters() const { return elements_.size(); }
  [[nodiscard]] std::int64_t elements(int index) const { return elements_[static_cast<std::size_t>(index)]; }
  /// Payload of one collective, as estimate_collective takes it.
  [[nodiscard]] Bytes payload(const MeshTransition& transition, std::int64_t samples, plan::Precision precision) const;
  /// Of keys and values that a device passes on.
  [[nodiscard]] Bytes ring_bytes(const MeshRing& ring, std::int64_t samples, plan::Precision precision) const;

 private:
  void add(const model::Op& op, int number);

  plan::LocalBlock local_;
  model::OpId first_op_ = 0;
  std::unique_ptr<ModelFacts> facts_;
  std::vector<MeshTransition> transitions_;
  std::vector<MeshRing> rings_;
  std::vector<std::int64_t> elements_;  // by parameter of the local graph
};

/// The collective that carries the gradient back.
[[nodiscard]] collective::CollectiveKind dual_of(collective::CollectiveKind kind);

}  // namespace coxswain::cost_model
