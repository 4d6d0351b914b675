#include "plan/export.h"

#include <array>
#include <utility>

#include "plan/export_shape.h"

namespace coxswain::plan {
namespace {

struct Tool {
  ExportFormat format;
  std::string_view name;
  Exported (*make)(const ExportShape&);
};

constexpr std::array<Tool, 3> kTools{{{ExportFormat::Megatron, "megatron", export_megatron},
                                      {ExportFormat::Torchtitan, "torchtitan", export_torchtitan},
                                      {ExportFormat::DeepSpeed, "deepspeed", export_deepspeed}}};

const Tool& tool_of(ExportFormat format) { return kTools[static_cast<std::size_t>(format)]; }

}  // namespace

std::string_view to_text(ExportFormat format) { return tool_of(format).name; }

std::optional<ExportFormat> parse_export_format(std::string_view text) {
  for (const Tool& tool : kTools) {
    if (tool.name == text) return tool.format;
  }
  return std::nullopt;
}

Result<Exported> export_plan(const Plan& plan, const model::ModelGraph& model, const cluster::ResourceGraph& resources,
                             ExportFormat format) {
  COX_TRY(const ExportShape shape, make_export_shape(plan, model, resources));
  return tool_of(format).make(shape);
}

}  // namespace coxswain::plan
