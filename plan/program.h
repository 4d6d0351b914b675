#pragma once
// From a plan to what each rank does: schedules, action lists, communication groups, transfers and what waits for what.
// Called by the planner (fill_roles), the validator, the simulator and the worker. Threads: pure. Source:
// DESIGN 3.3, 3.7.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "plan/capabilities.h"
#include "plan/plan.h"
#include "plan/schedule.h"

namespace coxswain::plan {

/// Which blocks use which trainable parameter: read off a model once for many plans, or, from a graph, for the call.
struct ParameterUses {
  ParameterUses(const model::ModelGraph& graph);  // NOLINT(google-explicit-constructor); borrowed
  const model::ModelGraph* graph = nullptr;
  std::vector<std::vector<int>> blocks;    // by parameter, ascending; empty for a frozen one, which has no gradient
  std::vector<Bytes> gradients;            // by parameter, in its dtype
  std::vector<std::vector<int>> first_in;  // by block: parameters that it is the first to use, ascending
};

/// A parameter used by several stages, each of which holds and updates a copy of its own; the stage of its first block
/// owns it: the norm counts that copy, and it is the one that is saved.
struct TiedParameter {
  int parameter = -1;       // index into graph.parameters
  std::vector<int> stages;  // in model order, which is ascending without chunks; stages[0] owns
};
[[nodiscard]] std::vector<TiedParameter> tied_parameters(const Plan& plan, const ParameterUses& uses);

/// Priced: without what ZeRO 2 and 3 communicate in every micro-batch, and blocks that are not run one by one for it.
/// The simulator prices that with the blocks that it runs beside (C26), so both lists take the same time; a worker
/// needs the complete one, which is many times longer (V23).
enum class ListDetail { Complete, Priced };

/// Writes bucket_starts and `roles` (complete action lists) from stages, batch and schedule.
/// A bucket closes once it holds `bucket_bytes` of gradients (parameter dtype); a parameter belongs to the bucket of
/// the lowest block of the stage that uses it, parameters tied across stages to none. Requires: contiguous stages, at
/// least one replica each.
void fill_roles(Plan& plan, const ParameterUses& uses, Bytes bucket_bytes, ListDetail detail = ListDetail::Complete);
/// The same with a compute order of one's own per stage (read_schedule_csv).
void fill_roles(Plan& plan, const ParameterUses& uses, Bytes bucket_bytes,
                const std::vector<std::vector<Action>>& schedules, ListDetail detail = ListDetail::Complete);

/// Where activations go from one stage to another, and gradients back: from s to s + 1 with index s; for interleaved
/// schedules also from the last stage to stage 0 (index = last stage); for zbv also from s + 1 back to s (index =
/// number of stages + s). Nothing is sent where a part follows on its own stage.
struct Edge {
  int index = 0, from = 0, to = 0;
  friend bool operator==(const Edge&, const Edge&) = default;
};
/// In the order of their indices.
[[nodiscard]] std::vector<Edge> pipeline_edges(const Plan& plan);
/// Free receive buffers of an edge: receive_credits, and extra_credits where it leads back. At least 1.
[[nodiscard]] int credits_of(const Plan& plan, const Edge& edge);
/// The edge of an edge action of `stage`; nothing where there is none.
[[nodiscard]] std::optional<Edge> edge_of(const Plan& plan, int stage, const Action& action);
/// The stream that an action of `stage` runs on.
[[nodiscard]] Stream stream_of(const Plan& plan, int stage, const Action& action);
/// True where a chunk of a stage receives activations from (sends them to) another stage.
[[nodiscard]] bool has_edge_in(const Plan& plan, int stage, int chunk);
[[nodiscard]] bool has_edge_out(const Plan& plan, int stage, int chunk);
/// Parts of the whole pipeline: stages x chunks. The last one ends in the loss.
[[nodiscard]] int num_parts(const Plan& plan);
[[nodiscard]] int part_of(const Plan& plan, int stage, int chunk);

/// Forward-only list for validation loss: F, edges, ReduceNorm at the end.
[[nodiscard]] std::vector<Action> evaluation_actions(const Plan& plan, int stage);

/// Communication groups, in the one global order in which every rank makes its communicators.
/// The last four are made by layout/mesh_groups.h.
enum class GroupKind {
  World,
  StageReplicas,
  ActivationEdge,
  GradientEdge,
  Tied,
  StageGather,
  Mesh,
  Stage,
  Experts,       // one position of the replicas in a row that hold all experts together
  ExpertHolders  // devices of one tensor position that hold the same experts
};
struct Group {
  GroupKind kind = GroupKind::World;
  int index = 0;           // stage; Edge::index; tied index
  std::vector<int> ranks;  // ascending; position here = rank in the communicator
  int position = 0;        // StageReplicas, StageGather: the mesh position whose shards are reduced
};
/// Groups of one rank only are left out (their collectives cost nothing), World never is.
[[nodiscard]] std::vector<Group> make_groups(const Plan& plan, const ParameterUses& uses);
/// Index into make_groups for the rank at `position` of its mesh, or -1 when the action needs no communication.
[[nodiscard]] int group_of(const Plan& plan, const std::vector<Group>& groups, int stage, const Action& action,
                           int position = 0);

/// Samples that this rank exchanges with `peer` across an edge; relative to this rank's own samples. Between meshes of
/// several devices it is one of `num_shards` equal shards of them (sequence parallel at the edges).
struct Transfer {
  int peer = -1;  // global rank
  std::int64_t first_sample = 0, num_samples = 0;
  int num_shards = 1;
  friend bool operator==(const Transfer&, const Transfer&) = default;
};
/// Peers of `rank` on the edge to the next stage (or from the previous one), by intersection of sample ranges.
[[nodiscard]] std::vector<Transfer> transfers_to_next(const Plan& plan, int rank);
[[nodiscard]] std::vector<Transfer> transfers_from_previous(const Plan& plan, int rank);
/// Peers of `rank` in `other_stage`, whatever lies between.
[[nodiscard]] std::vector<Transfer> transfers_with(const Plan& plan, int rank, int other_stage);
/// Peers of `rank` in an edge action of its list.
[[nodiscard]] std::vector<Transfer> transfers_of(const Plan& plan, int rank, const Action& action);

/// What one rank runs in a step: its role's list with streams and waits.
struct RankProgram {
  int rank = 0;
  RankPlace place;
  std::vector<Action> actions;
  std::vector<Stream> streams;              // of each action
  std::vector<std::vector<int>> waits_for;  // indices of earlier or later actions of this rank that must have finished
};
[[nodiscard]] RankProgram make_rank_program(const Plan& plan, const model::ModelGraph& graph, int rank,
                                            const std::vector<Action>& actions);
/// The step program: the list of the rank's role.
[[nodiscard]] RankProgram make_rank_program(const Plan& plan, const model::ModelGraph& graph, int rank);

/// What may start now: per stream the first action not started, if everything it waits for has finished.
/// The one rule of order, shared by the worker, the simulator and the deadlock check.
class StepState {
 public:
  explicit StepState(const RankProgram& program);
  /// Index of the action that may start on `stream`, or -1.
  [[nodiscard]] int startable(Stream stream) const;
  /// Index of the first action of `stream` that has not started, whatever it waits for, or -1.
  [[nodiscard]] int next(Stream stream) const;
  [[nodiscard]] bool has_finished(int action) const { return finished_[static_cast<std::size_t>(action)] != 0; }
  void started(int action);  // requires startable(stream_of it) == action
  void finished(int action);
  /// What could not start may start once this is another.
  [[nodiscard]] int num_finished() const { return num_finished_; }
  [[nodiscard]] bool done() const { return num_finished_ == static_cast<int>(program_->actions.size()); }
  void reset();

 private:
  const RankProgram* program_;
  std::vector<std::vector<int>> order_;  // per stream
  std::vector<int> next_;                // per stream, position in order_
  std::vector<int> running_;             // per stream: action in flight or -1 (a stream runs one at a time)
  std::vector<char> finished_;
  int num_finished_ = 0;
};

/// PyTorch's pipelining CSV: one line a stage, cells like "0F3", "1B0", empty where idle; the number before the letter
/// is the part.
[[nodiscard]] std::string to_schedule_csv(const Plan& plan);
/// What such a file says. `kind` is a schedule of ours where its order is the same, else custom or custom_v by where
/// the parts are.
struct CsvSchedule {
  ScheduleKind kind = ScheduleKind::Custom;
  int num_stages = 0, num_chunks = 1, num_micro_batches = 0;
  std::vector<std::vector<Action>> stages;  // compute orders, as fill_roles takes them
  friend bool operator==(const CsvSchedule&, const CsvSchedule&) = default;
};
/// Reads it; a cell of two actions, "(0F3;1B0)OVERLAP_F_B", counts as one after the other. Sends, receives, reductions
/// and shards ("0SEND_F3", "0REDUCE_GRAD") are passed over: ours are derived from the plan. Errors: InvalidArgument
/// with every problem by line and cell, down to cells that wait for each other whatever the buffers. Cost: O(cells).
[[nodiscard]] Result<CsvSchedule> read_schedule_csv(std::string_view csv);

/// Gives `plan`, which has stages of `schedule.num_chunks` runs and a batch of its count, the order of `schedule`:
/// kind, roles, and as few receive_credits as let every list end without buffering. Receives come in the order in which
/// their stage's neighbour sends. Errors: InvalidArgument as check_order has them where no number of buffers helps.
[[nodiscard]] Result<void> apply_schedule(Plan& plan, const model::ModelGraph& graph, Bytes bucket_bytes,
                                          const CsvSchedule& schedule);

/// Every rule that `plan` breaks, in document order; empty means that the worker can run it, or with kPlannable that it
/// can be costed. Numbered V1.. in docs/plan.md; send/receive matching and freedom from deadlock with zero buffering
/// included.
[[nodiscard]] std::vector<Error> validate(const Plan& plan, const model::ModelGraph& graph,
                                          const cluster::ResourceGraph& resources,
                                          const Capabilities& capabilities = kRunnable);
/// Only the check of order: runs every rank's program with rendezvous edges and collectives. Paths:
/// `roles[1].actions[17] (rank 3, SEND_F4)`. Requires: contiguous stages, every (stage, replica) in one role.
[[nodiscard]] std::vector<Error> check_order(const Plan& plan, const model::ModelGraph& graph);

}  // namespace coxswain::plan
