#pragma once
// How a rank reaches the other positions of its mesh, and what the kernels of the mesh's operators get: transitions
// here, attention, losses and products in files of their own. Called by op_call. Threads: the engine's one. Private to
// worker/engine. Source: DESIGN 3.7, docs/adr/0009, plan/layout/local_graph.h.
#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collective/communicator.h"
#include "common/clock.h"
#include "model/model_graph.h"
#include "plan/layout/local_graph.h"
#include "plan/plan.h"
#include "worker/engine/dropout.h"
#include "worker/engine/parallel_link.h"

namespace coxswain::worker {

/// Positions that agree on the other axes, ascending; the rank in the communicator is the place in `ranks`.
struct MeshGroup {
  std::vector<int> ranks;  // global
  int place = 0;           // of this rank in them
  collective::Communicator* communicator = nullptr;
  [[nodiscard]] int size() const { return static_cast<int>(ranks.size()); }
};

struct MeshLink {
  std::map<plan::AxisSet, MeshGroup> groups;
  int position = 0;                       // of this rank in its mesh
  Deadline deadline = Deadline::never();  // of the pass that runs
  /// Throws CommunicationError: no communicator was made for these axes.
  [[nodiscard]] const MeshGroup& group(std::int64_t axes) const;
};

/// What this rank runs of a model; none of it is copied. `part` is null on a mesh of one device, where `graph` is the
/// whole one.
struct LocalView {
  const model::ModelGraph* whole = nullptr;
  const plan::LocalGraph* part = nullptr;
  const MeshLink* link = nullptr;
  [[nodiscard]] const model::ModelGraph& graph() const { return part ? part->graph : *whole; }
  /// Of a value: none where this rank holds all of it.
  [[nodiscard]] std::span<const plan::Cut> cuts_of(model::ValueId value) const {
    if (!part) return {};
    return part->cuts[static_cast<std::size_t>(value)];
  }
};

struct RunMode;

/// One operator of the mesh as it runs.
class MeshCall {
 public:
  MeshCall(const model::Op& op, std::span<const at::Tensor> tensors, const MeshLink& link, const RunMode& mode,
           const std::string& where, model::OpId whole_op = -1, const DropoutPlace& place = {})
      : op_(op), tensors_(tensors), link_(link), mode_(mode), where_(where), whole_op_(whole_op), place_(place) {}

  /// Arguments by name. Undefined tensor, empty list or nothing: None. Requires: a number where one is asked for.
  [[nodiscard]] at::Tensor tensor(std::string_view name) const;
  [[nodiscard]] std::int64_t integer(std::string_view name) const;
  [[nodiscard]] std::optional<double> number(std::string_view name) const;
  [[nodiscard]] bool flag(std::string_view name) const;
  [[nodiscard]] std::vector<std::int64_t> integers(std::string_view name) const;

  [[nodiscard]] const MeshGroup& group(std::string_view name = "axes") const { return link_.group(integer(name)); }
  [[nodiscard]] const MeshLink& link() const { return link_; }
  [[nodiscard]] const RunMode& mode() const { return mode_; }
  /// Of the whole graph, for random numbers; -1: none.
  [[nodiscard]] model::OpId whole_op() const { return whole_op_; }
  /// Of attention's query, but the sample.
  [[nodiscard]] const DropoutPlace& place() const { return place_; }
  /// "block h.3: h.3.mlp: coxswain::all_reduce", for errors; lives as long as the engine.
  [[nodiscard]] const std::string& where() const { return where_; }

 private:
  [[nodiscard]] const model::Argument::Variant* find(std::string_view name) const;
  const model::Op& op_;
  std::span<const at::Tensor> tensors_;  // of op_'s tensor arguments, in order
  const MeshLink& link_;
  const RunMode& mode_;
  const std::string& where_;
  model::OpId whole_op_;
  DropoutPlace place_;
};

/// One output; throws what libtorch throws, or CommunicationError.
using MeshKernel = at::Tensor (*)(const MeshCall& call);
/// Null: no operator of the mesh.
[[nodiscard]] MeshKernel find_mesh_kernel(std::string_view target);

/// The group of a kernel's collectives, forward and backward.
[[nodiscard]] ParallelLink link_of(const MeshCall& call, std::string_view axes = "axes");

}  // namespace coxswain::worker
