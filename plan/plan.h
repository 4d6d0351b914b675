#pragma once
// The contract between planner and worker: stages, replicas on canonical devices, micro-batches, recompute, schedule
// and the action list of every role. A plain value with canonical JSON. Threads: pure values. Source: DESIGN 3.3,
// docs/plan.md.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/resource_graph.h"
#include "common/dtype.h"
#include "common/json.h"
#include "common/result.h"
#include "model/model_graph.h"
#include "plan/action.h"

namespace coxswain::plan {

using cluster::DeviceId;

enum class ScheduleKind {
  GPipe,
  OneForwardOneBackward,
  Interleaved,
  ZeroBubbleH1,
  ZeroBubbleH2,
  ZeroBubbleV,
  // An order of the user's own, chunks placed as interleaved ones or as those of zbv.
  Custom,
  CustomV
};
enum class Recompute { None, Full, Selective };
enum class Offload { None, Optimizer, Activations };
enum class Precision { Float32, BFloat16, Float16 };
[[nodiscard]] std::string_view to_text(ScheduleKind kind);    // "gpipe", "1f1b", "interleaved", "zbh1", "zbh2", "zbv",
                                                              // "custom", "custom_v"
[[nodiscard]] std::string_view to_text(Recompute recompute);  // "none", "full", "selective"
[[nodiscard]] std::string_view to_text(Precision precision);  // "float32", "bfloat16", "float16"
[[nodiscard]] std::string_view to_text(Offload offload);      // "none", "optimizer", "activations"
[[nodiscard]] std::optional<ScheduleKind> parse_schedule_kind(std::string_view text);
[[nodiscard]] std::optional<Recompute> parse_recompute(std::string_view text);
[[nodiscard]] std::optional<Precision> parse_precision(std::string_view text);
[[nodiscard]] std::optional<Offload> parse_offload(std::string_view text);

/// Whether products are computed in 16 bits beside float32 masters (docs/plan.md#mixed-precision).
[[nodiscard]] constexpr bool is_mixed(Precision precision) { return precision != Precision::Float32; }
/// What products are computed in, and activations kept and sent.
[[nodiscard]] constexpr DType computed_dtype(Precision precision) {
  switch (precision) {
    case Precision::BFloat16: return DType::BFloat16;
    case Precision::Float16: return DType::Float16;
    case Precision::Float32: break;
  }
  return DType::Float32;
}

/// One data-parallel copy of a stage on a mesh of its own; position in the mesh = position in `devices`.
struct Replica {
  std::vector<DeviceId> devices;            // position in the mesh = context position x tensor + tensor position
  int tensor = 1, context = 1, expert = 1;  // tensor x context = devices.size(); `expert` replicas in a row hold all
                                            // experts together (expert lies inside data)
  std::int64_t samples = 0;                 // of every micro-batch, contiguous, in replica order
  friend bool operator==(const Replica&, const Replica&) = default;
};

/// Blocks [first_block, end_block).
struct BlockRun {
  int first_block = 0, end_block = 0;
  friend bool operator==(const BlockRun&, const BlockRun&) = default;
};

struct Stage {
  int first_block = 0, end_block = 0;
  std::vector<Replica> replicas;
  std::vector<Recompute> recompute;  // per block of the stage, over all chunks in order
  int zero_stage = 0;
  Offload offload = Offload::None;
  /// Gradient buckets in the order in which they are reduced: ends going down from end_block, e.g. blocks [2,7):
  /// {5, 2} = buckets [5,7) and [2,5). Empty where there is one replica. A bucket lies inside one chunk; the last chunk
  /// comes first.
  std::vector<int> bucket_starts;
  /// Chunks after the first, [first_block, end_block), in model order; only where has_chunks(schedule).
  std::vector<BlockRun> chunks;
  friend bool operator==(const Stage&, const Stage&) = default;
};

[[nodiscard]] inline int num_chunks(const Stage& stage) { return 1 + static_cast<int>(stage.chunks.size()); }
[[nodiscard]] inline BlockRun run_of(const Stage& stage, int chunk) {
  if (chunk == 0) return {stage.first_block, stage.end_block};
  return stage.chunks[static_cast<std::size_t>(chunk) - 1];
}
/// All runs of the stage, in model order.
[[nodiscard]] std::vector<BlockRun> runs_of(const Stage& stage);
/// Over all chunks.
[[nodiscard]] int num_blocks(const Stage& stage);
/// Where `block` stands among the stage's blocks (its place in `recompute`), or -1.
[[nodiscard]] int position_of(const Stage& stage, int block);

struct Batch {
  std::int64_t global = 0;  // = micro x count
  std::int64_t micro = 0;   // samples of one micro-batch over all replicas of a stage
  std::int64_t count = 0;
  friend bool operator==(const Batch&, const Batch&) = default;
};

/// Replicas of one stage with equal device class, mesh and samples share one action list.
struct Role {
  int stage = 0;
  std::vector<int> replicas;
  std::vector<Action> actions;
  friend bool operator==(const Role&, const Role&) = default;
};

inline constexpr int kPlanFormatVersion = 1;

struct Plan {
  int format_version = kPlanFormatVersion;
  std::string model_hash, cluster_hash;
  std::string backend = "host";
  Batch batch;
  Precision precision = Precision::Float32;
  ScheduleKind schedule = ScheduleKind::OneForwardOneBackward;
  int receive_credits = 2;  // free receive buffers per edge: how far a receive may be posted ahead of its use
  std::vector<Stage> stages;
  std::vector<Role> roles;  // ordered by (stage, first replica); written by fill_roles
  friend bool operator==(const Plan&, const Plan&) = default;
};

[[nodiscard]] Json to_json(const Plan& plan);
/// Errors: InvalidArgument with every problem of form.
[[nodiscard]] Result<Plan> plan_from_json(const Json& json);
[[nodiscard]] std::string plan_hash(const Plan& plan);

// Ranks: one per used device, counted by stage, replica, position.
struct RankPlace {
  int stage = 0, replica = 0, position = 0;
  friend bool operator==(const RankPlace&, const RankPlace&) = default;
};
[[nodiscard]] int num_ranks(const Plan& plan);
[[nodiscard]] int rank_of(const Plan& plan, RankPlace place);
[[nodiscard]] RankPlace place_of(const Plan& plan, int rank);
[[nodiscard]] DeviceId device_of(const Plan& plan, int rank);
/// First sample of `replica` inside a micro-batch.
[[nodiscard]] std::int64_t first_sample(const Stage& stage, int replica);

}  // namespace coxswain::plan
