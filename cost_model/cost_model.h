#pragma once
// What a piece of a plan takes: seconds and bytes of a block, a transfer, a collective, an update. A seam: roofline and
// profile in production, tables in tests. Called by planner/ (labels) and the simulator. Threads: pure, const, any
// thread. Source: DESIGN 3.4; every equation is numbered in docs/cost_model.md.
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cluster/profile.h"
#include "cluster/resource_graph.h"
#include "collective/algorithm.h"
#include "cost_model/collective_time.h"
#include "cost_model/model_facts.h"
#include "model/model_graph.h"
#include "plan/estimate.h"
#include "plan/plan.h"

namespace coxswain::cost_model {

/// One block on one device of a replica's mesh, for one micro-batch.
struct BlockWork {
  int block = 0;
  int device_class = 0;
  std::int64_t samples = 0;  // of this replica
  plan::Precision precision = plan::Precision::Float32;
  int tensor = 1, context = 1, expert = 1;
  plan::Recompute recompute = plan::Recompute::None;  // estimate_block answers for all of them
  /// C32: of all replicas that share the experts; 0: each has as many as this one.
  std::int64_t expert_samples = 0;
  int expert_index = 0;  // this replica's place among them
};

struct BlockTime {
  Seconds forward{0};
  Seconds backward{0};                                  // I + W, without recompute
  Seconds weight{0};                                    // W alone (C28)
  Bytes saved{0};                                       // kept from forward to backward without recompute
  Bytes inputs{0};                                      // of that: the model's, kept where the block recomputes, too
  Bytes transient{0};                                   // above that, while its backward runs
  Bytes forward_transient{0};                           // and its forward
  Bytes plain_transient{0};                             // above its inputs, in a forward without graph (recompute)
  Bytes owed{0};                                        // kept between I and W (C15)
  Bytes input_transient{0}, weight_transient{0};        // above saved while I runs, above owed while W does
  bool measured = false;                                // its times are from a profile
  bool counts_shared = false;                           // saved holds values that other blocks made, too
  Seconds attention_forward{0}, attention_backward{0};  // parts of forward and backward: what hides a ring (C29)
  Seconds replayed{0};                                  // what selective recompute runs again (C31)
  Bytes selective{0};                                   // kept from forward to backward where it does
  double expert_imbalance = 1;  // of an expert axis: load of the busiest device over the mean (C32)
};

class CostModel {
 public:
  CostModel() = default;
  /// `facts`: of model(), that others share; null: made at the first look.
  explicit CostModel(std::shared_ptr<const ModelFacts> facts) : facts_(std::move(facts)) {}
  virtual ~CostModel() = default;
  [[nodiscard]] virtual BlockTime estimate_block(const BlockWork& work) const = 0;
  /// C10: one message between two devices.
  [[nodiscard]] virtual Seconds estimate_transfer(Bytes bytes, plan::DeviceId from, plan::DeviceId to) const = 0;
  /// C6-C9: all ranks of `devices`, one buffer of `payload` each.
  [[nodiscard]] virtual Seconds estimate_collective(collective::CollectiveKind kind, Bytes payload,
                                                    const std::vector<plan::DeviceId>& devices) const = 0;
  /// The same for a group that is given by where it lives: for groups of many devices. Lists them unless overridden.
  [[nodiscard]] virtual Seconds estimate_shaped_collective(collective::CollectiveKind kind, Bytes payload,
                                                           const GroupShape& shape) const {
    return estimate_collective(kind, payload, devices_of(resources(), shape));
  }
  /// C13: clip and AdamW over `parameters` elements.
  [[nodiscard]] virtual Seconds estimate_optimizer(std::int64_t parameters, int device_class) const = 0;
  [[nodiscard]] virtual Seconds estimate_step_overhead(int device_class) const = 0;
  /// Added to every compute action.
  [[nodiscard]] virtual Seconds estimate_action_overhead(int) const { return Seconds(0); }
  /// What a rank holds before it holds a model.
  [[nodiscard]] virtual Bytes base_memory(int) const { return Bytes(0); }
  /// Blocks of equal signature take equal times and bytes (the last block aside, which holds the loss).
  [[nodiscard]] virtual bool costs_by_signature() const { return false; }
  /// C35: buffers of one communicator over `link`. A model that wraps another hands this on.
  [[nodiscard]] virtual Bytes communicator_memory(int /*device_class*/, const cluster::LinkClass& /*link*/) const {
    return Bytes(0);
  }
  [[nodiscard]] virtual const model::ModelGraph& model() const = 0;
  [[nodiscard]] virtual const cluster::ResourceGraph& resources() const = 0;

  /// Facts of model().
  [[nodiscard]] const ModelFacts& facts() const { return *shared_facts(); }
  /// For a cost model of the same model.
  [[nodiscard]] const std::shared_ptr<const ModelFacts>& shared_facts() const;

 private:
  mutable std::once_flag facts_once_;
  mutable std::shared_ptr<const ModelFacts> facts_;
};

/// The production model: a profile entry where there is one (interpolated in samples), else the roofline.
/// `graph`, `resources` and `profile` are borrowed; profile may be null.
[[nodiscard]] std::unique_ptr<CostModel> make_cost_model(const model::ModelGraph& graph,
                                                         const cluster::ResourceGraph& resources,
                                                         const cluster::Profile* profile);
/// The same with the facts of `model`, which it keeps.
[[nodiscard]] std::unique_ptr<CostModel> make_cost_model(const std::shared_ptr<const KnownModel>& model,
                                                         const cluster::ResourceGraph& resources,
                                                         const cluster::Profile* profile);

/// Memory of one device of `stage`/`replica` (C14-C17): persistent parts, activations live at the schedule's peak,
/// buffers.
[[nodiscard]] plan::MemoryParts estimate_memory(const CostModel& cost, const plan::Plan& plan, int stage, int replica);
/// Of a device's host: what C30 and C34 move there.
[[nodiscard]] Bytes estimate_host_memory(const CostModel& cost, const plan::Plan& plan, int stage, int replica);
/// Both in one look.
struct MemoryNeed {
  plan::MemoryParts parts;
  Bytes host{0};
};
[[nodiscard]] MemoryNeed estimate_memory_need(const CostModel& cost, const plan::Plan& plan, int stage, int replica);

/// Matmul peak that MFU (C21) is taken over: the 16-bit one where that is asked for and known, else float32's.
[[nodiscard]] FlopPerSecond matmul_peak(const cluster::DeviceClass& device, plan::Precision precision);

/// One action in virtual time.
struct SimulatedAction {
  int role = 0;
  int action = 0;  // index into the role's list
  double start = 0, end = 0;
  double transfer_start = 0;  // communication: when every side had come; before it the action waited for its peers
};
struct Simulation {
  plan::Estimate estimate;
  std::vector<SimulatedAction> actions;  // by (role, action)
};
/// Executes the plan's action lists in virtual time with executor::Executor, one executor per role.
/// Requires: validate(plan) is empty. Deterministic.
[[nodiscard]] Result<Simulation> simulate(const CostModel& cost, const plan::Plan& plan);

/// Chrome/Perfetto trace of a simulation.
[[nodiscard]] std::string to_chrome_trace(const plan::Plan& plan, const Simulation& simulation);

}  // namespace coxswain::cost_model
