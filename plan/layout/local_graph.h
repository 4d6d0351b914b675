#pragma once
// The training step as one position of a replica's mesh runs it: the graph of the model rewritten by the sharding
// rules, with sizes of this position's parts and every change of a placement as an operator ("transition") of its own.
// So whatever works on a graph (lowering, costs, memory) works on a part of one. Value, parameter, buffer and input ids
// of the whole graph stay; transitions add values behind them.
// Called by the engine to lower and by the cost model to price. Threads: pure. Source: DESIGN 3.7, docs/layout.md,
// docs/adr/0009.
#include <cstdint>
#include <span>
#include <vector>

#include "common/result.h"
#include "model/model_graph.h"
#include "plan/experts.h"
#include "plan/plan.h"

namespace coxswain::plan {

/// One factor of the mesh. Positions that differ along it alone are `stride` apart.
enum class AxisKind { Context, Tensor };
struct MeshAxis {
  AxisKind kind = AxisKind::Tensor;
  int size = 1, stride = 1;
  friend bool operator==(const MeshAxis&, const MeshAxis&) = default;
};

/// Axes by index, as bits. The group of a position: all positions that agree with it on the other axes, ascending.
using AxisSet = std::uint32_t;

/// Not of a mesh: the replicas in a row that hold all experts together. Its group is the devices at one position of
/// their meshes, in replica order.
inline constexpr AxisSet kExpertAxis = AxisSet{1} << 31;

/// What a position holds of one dim, split over `axes`. The dim reads as (outer, extent, inner), outermost first; the
/// position has the rows `runs` of `extent`, ascending: one run, or two on each rank of a balanced causal context.
struct Cut {
  int dim = 0;
  std::int64_t outer = 1, extent = 1, inner = 1;
  AxisSet axes = 0;
  struct Run {
    std::int64_t first = 0, size = 0;
    friend bool operator==(const Run&, const Run&) = default;
  };
  std::vector<Run> runs;
  friend bool operator==(const Cut&, const Cut&) = default;
};

/// Transitions, by target. Arguments in this order, all named; `axes` is the AxisSet as an integer; a cut of a dim is
/// `dim, outer, inner, runs`, where `runs` lists first and size of every run, member after member of the group, the
/// same number of runs each (the extent is their sum).
///   coxswain::all_reduce(self, axes)                         Partial -> Replicate; backward the same
///   coxswain::to_partial(self, axes)                         Replicate -> Partial: zeros but on the first member
///   coxswain::all_gather(self, axes, dim, outer, inner, runs)      Shard -> Replicate; backward reduce_scatter
///   coxswain::reduce_scatter(self, axes, dim, outer, inner, runs)  Partial -> Shard; backward all_gather
///   coxswain::slice(self, axes, dim, outer, inner, runs)           Replicate -> Shard, local; backward pads with zeros
///   coxswain::all_to_all(self, axes, dim, outer, inner, runs, to_dim, to_outer, to_inner, to_runs)
/// Parts of operators:
///   coxswain::local_index(self, first, size)      indices minus first, clamped to [0, size)
///   coxswain::mask_rows(self, index, first, size) self where first <= index < first + size, else 0; dims of index lead
///   coxswain::cross_entropy(self, target, axes, runs, reduction, ignore_index, label_smoothing): as
///       aten::cross_entropy_loss over dim 1, classes split over `axes`; the result is Replicate; never gathers logits
///   coxswain::ring_attention(query, key, value, attn_mask, axes, runs, is_causal, scale, enable_gqa,
///       dropout_p): attention of this position's rows with the keys of the whole group, which go around; attn_mask:
///       own rows, all keys
/// Between replicas (docs/layout.md, "Experts"); rows are the first dim, `axes` is kExpertAxis:
///   coxswain::expert_route(indices, axes, runs)   what travels where, as numbers (int64): each row has an expert of
///   the
///       whole, `runs` are first and size of the experts that each member holds
///   coxswain::expert_indices(routing)             of each row that arrives, its place among the experts held here
///   coxswain::expert_dispatch(self, routing, axes)   own rows -> those for the experts here, by sender; backward
///   combine coxswain::expert_combine(self, routing, axes)    the way back; backward dispatch
/// A Replicate tensor has a Partial(sum) gradient, a Partial tensor a Replicate one (rules.h: the dual).

struct LocalGraph {
  model::ModelGraph graph;             // at a fixed number of samples: no batch symbol, static_batch = samples
  std::vector<MeshAxis> axes;          // mesh_axes of the replica
  std::vector<model::OpId> origin;     // by op of `graph`: the whole graph's op that it is a part of; -1: transition
  std::vector<std::vector<Cut>> cuts;  // by value of `graph`: applied one after another; none: it holds all of it
  /// By parameter: axes along which its gradient is still to be summed (those that do not cut it).
  std::vector<AxisSet> gradient_axes;
};

/// The axes of a replica's mesh: context, then the prime factors of tensor (so that a part of the tensor axis can split
/// what there is less of, key heads say), outermost first. None on a mesh of one device.
[[nodiscard]] std::vector<MeshAxis> mesh_axes(const Replica& replica);

/// Members of the group of `position` over `axes`, ascending.
[[nodiscard]] std::vector<int> members_of(std::span<const MeshAxis> axes, AxisSet set, int position);

/// What of a value crosses into or out of a stage, and lies between its chunks, at `position`: the same on both sides
/// of an edge, whatever their layouts inside. Empty: all of it.
[[nodiscard]] std::vector<Cut> edge_cuts(const model::ModelGraph& graph, model::ValueId value, std::int64_t samples,
                                         const Replica& replica, int position);

/// The graph of `stage` as `position` of `replica` runs it; blocks of other stages stay as they are and are not run.
/// Values between blocks have `edge_cuts`; loss numerators and denominators are Replicate. Positions of one mesh
/// have the same operators in the same order. A mesh of one device: the whole graph. `experts`: which of the tables'
/// experts it holds, and rows travel between replicas (all have the same operators); by default all.
/// Errors: InvalidArgument naming every block that no operator of which the mesh can split, with the reason;
/// Unimplemented: experts that cannot be spread over replicas, by operator.
[[nodiscard]] Result<LocalGraph> localise_stage(const model::ModelGraph& graph, const Stage& stage,
                                                const Replica& replica, int position, const ExpertPlace& experts = {});

}  // namespace coxswain::plan
