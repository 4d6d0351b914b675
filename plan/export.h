#pragma once
// A plan in the words of the tools that train on GPUs today: Megatron-LM's arguments, torchtitan's TOML, DeepSpeed's
// JSON. Each knows one number per axis for the whole job; a plan has one per stage and replica, so that the nearest
// that the tool can do is written, and every difference is told with what to do about it.
// Called by the launcher (`launch plan --export`). Threads: pure. Source: docs/exchange.md, which names the versions.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/resource_graph.h"
#include "common/result.h"
#include "model/model_graph.h"
#include "plan/plan.h"

namespace coxswain::plan {

enum class ExportFormat { Megatron, Torchtitan, DeepSpeed };
[[nodiscard]] std::string_view to_text(ExportFormat format);  // "megatron", "torchtitan", "deepspeed"
[[nodiscard]] std::optional<ExportFormat> parse_export_format(std::string_view text);

struct Exported {
  std::string text;  // ends in a newline; holds not_expressed as comments
  /// One sentence a loss: what the plan wants, what is written in its place, what to do.
  std::vector<std::string> not_expressed;
};

/// Errors: InvalidArgument when the plan's stages do not cover the model's blocks, have no replica, or use a device
/// that `resources` does not have; validate() says more.
[[nodiscard]] Result<Exported> export_plan(const Plan& plan, const model::ModelGraph& model,
                                           const cluster::ResourceGraph& resources, ExportFormat format);

}  // namespace coxswain::plan
