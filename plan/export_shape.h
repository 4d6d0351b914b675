#pragma once
// Private to plan/: what the exporters share. A plan reduced to one number per axis, with what that loses, since no
// tool that is exported to has unequal stages or replicas. Threads: pure. Source: docs/exchange.md.
#include <string>
#include <vector>

#include "cluster/resource_graph.h"
#include "common/result.h"
#include "plan/export.h"
#include "plan/plan.h"

namespace coxswain::plan {

/// Repeated blocks of a stage, and how many of them are recomputed in full and in part.
struct StageLayers {
  int layers = 0, full = 0, selective = 0;
  friend bool operator==(const StageLayers&, const StageLayers&) = default;
};

struct ExportShape {
  int tensor = 1, context = 1, expert = 1, data = 1;
  int pipeline = 1;         // groups of devices, each with `virtual_stages` stages
  int virtual_stages = 1;   // 1 unless the schedule gives a device several stages
  std::int64_t micro = 1;   // samples of one replica in one micro-batch
  std::int64_t count = 1;   // micro-batches of a step
  std::int64_t global = 1;  // = micro x count x data
  int zero_stage = 0;       // the highest of any stage
  Offload offload = Offload::None;
  Precision precision = Precision::Float32;
  ScheduleKind schedule = ScheduleKind::OneForwardOneBackward;
  std::vector<StageLayers> stages;  // in model order
  bool ends_recomputed = false;     // prologue or epilogue
  /// "ranks 0-3: node 0, a100-80gb-sxm 0-3", for ranks counted by stage, replica, position as the plan does, and by
  /// replica, stage, position. Empty where a host's ranks are not in a row, which launchers of a program a node cannot
  /// do.
  std::vector<std::string> places, places_by_replica;
  std::vector<std::string> lost;  // the same for every tool
};

/// Errors: see export_plan.
[[nodiscard]] Result<ExportShape> make_export_shape(const Plan& plan, const model::ModelGraph& model,
                                                    const cluster::ResourceGraph& resources);

/// All stages have the same number of repeated blocks.
[[nodiscard]] bool has_even_cuts(const ExportShape& shape);
/// Counts over all stages.
[[nodiscard]] StageLayers total_layers(const ExportShape& shape);
/// "[9, 8, 8, 7]".
[[nodiscard]] std::string layers_text(const ExportShape& shape);

/// Lines for the head of a text: the tool and version, where the ranks are, the losses.
[[nodiscard]] std::vector<std::string> head_lines(const std::string& title, const std::vector<std::string>& places,
                                                  const std::vector<std::string>& lost);
/// The loss when a tool counts ranks by stage, and hosts' ranks are then not in a row; empty when they are.
[[nodiscard]] std::vector<std::string> order_lost(const ExportShape& shape);

// One tool each.
[[nodiscard]] Exported export_megatron(const ExportShape& shape);
[[nodiscard]] Exported export_torchtitan(const ExportShape& shape);
[[nodiscard]] Exported export_deepspeed(const ExportShape& shape);

}  // namespace coxswain::plan
