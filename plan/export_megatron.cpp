// Megatron-LM: arguments of its training scripts, one a line, so that `$(grep -v "^#" FILE)` passes them on.
// Source: docs/exchange.md, "Megatron-LM".
#include <algorithm>

#include "plan/export_shape.h"

namespace coxswain::plan {
namespace {

class Megatron {
 public:
  explicit Megatron(const ExportShape& shape) : shape_(shape), lost_(shape.lost) {}

  Exported write() {
    add("--tensor-model-parallel-size", shape_.tensor);
    add("--pipeline-model-parallel-size", shape_.pipeline);
    if (shape_.context > 1) add("--context-parallel-size", shape_.context);
    if (shape_.expert > 1) add("--expert-model-parallel-size", shape_.expert);
    if (shape_.tensor > 1) add("--sequence-parallel");
    add("--micro-batch-size", shape_.micro);
    add("--global-batch-size", shape_.global);
    add_order();
    add_cuts();
    add_schedule();
    add_sharding();
    add_recompute();
    add_offload();
    add_precision();
    std::string text;
    for (const std::string& line :
         head_lines("Megatron-LM: arguments of its training scripts (names of August 2026)", places_, lost_))
      text += "# " + line + "\n";
    return {text + arguments_, lost_};
  }

 private:
  void add(const std::string& flag) { arguments_ += flag + "\n"; }
  void add(const std::string& flag, const std::string& value) { arguments_ += flag + " " + value + "\n"; }
  void add(const std::string& flag, std::int64_t value) { add(flag, std::to_string(value)); }

  /// Float16 with our loss scale (docs/plan.md#loss-scale).
  void add_precision() {
    if (shape_.precision == Precision::BFloat16) add("--bf16");
    if (shape_.precision != Precision::Float16) return;
    add("--fp16");
    add("--initial-loss-scale", 65536);
    add("--loss-scale-window", 2000);
    add("--hysteresis", 1);
  }

  /// Ranks are counted by stage, or on demand by replica.
  void add_order() {
    places_ = shape_.places;
    if (!places_.empty()) return;
    places_ = shape_.places_by_replica;
    if (!places_.empty()) return add("--use-tp-pp-dp-mapping");
    for (const std::string& each : order_lost(shape_)) lost_.push_back(each);
  }

  /// Megatron's own cut gives each stage layers / stages; embedding and loss stand on the first and last.
  void add_cuts() {
    const auto& stages = shape_.stages;
    if (stages.size() == 1) return;
    if (has_even_cuts(shape_)) {
      if (shape_.virtual_stages > 1) add("--num-virtual-stages-per-pipeline-rank", shape_.virtual_stages);
      return;
    }
    // The ends may have counts of their own, the stages between share one.
    const bool ends_only = shape_.virtual_stages == 1 && stages.front().layers > 0 && stages.back().layers > 0 &&
                           std::all_of(stages.begin() + 1, stages.end() - 1,
                                       [&](const StageLayers& stage) { return stage.layers == stages[1].layers; });
    if (ends_only) {
      add("--decoder-first-pipeline-num-layers", stages.front().layers);
      add("--decoder-last-pipeline-num-layers", stages.back().layers);
      return;
    }
    std::string layout = "E";
    for (std::size_t s = 0; s < stages.size(); ++s) {
      if (s > 0) layout += "|";
      layout += std::string(static_cast<std::size_t>(stages[s].layers), 't');
    }
    add("--pipeline-model-parallel-layout", layout + "L");
  }

  void add_schedule() {
    if (shape_.stages.size() == 1) return;
    const std::string name(to_text(shape_.schedule));
    switch (shape_.schedule) {
      case ScheduleKind::OneForwardOneBackward:
      case ScheduleKind::Interleaved: return;
      case ScheduleKind::GPipe:
        lost_.push_back("schedule " + name + ": Megatron-LM runs 1f1b, with the same bubble and less memory");
        return;
      default:
        lost_.push_back(
            "schedule " + name + ": Megatron-LM runs " + (shape_.virtual_stages > 1 ? "interleaved" : "1f1b") +
            ", with a longer bubble; plan for that with --constrain schedule=1f1b,interleaved, or use the " +
            "zero-bubble fork of Megatron-LM");
    }
  }

  void add_sharding() {
    if (shape_.data == 1) return;
    if (shape_.zero_stage < 2) {
      if (shape_.zero_stage == 1) add("--use-distributed-optimizer");
      add("--overlap-grad-reduce");
      return;
    }
    add("--use-distributed-optimizer");
    add("--use-megatron-fsdp");
    add("--data-parallel-sharding-strategy", shape_.zero_stage == 2 ? "optim_grads" : "optim_grads_params");
    add("--ckpt-format", "fsdp_dtensor");
  }

  void add_recompute() {
    const StageLayers total = total_layers(shape_);
    if (shape_.ends_recomputed)
      lost_.emplace_back(
          "recompute of the prologue or epilogue: Megatron-LM recomputes transformer layers only; plan "
          "for that with --constrain recompute=[...] of the repeated blocks");
    if (total.full > 0 && total.selective > 0)
      lost_.emplace_back(
          "selective and full recompute in one plan: Megatron-LM has one granularity; written is full "
          "for the blocks that are recomputed in full, none for the others");
    if (total.full > 0) return add_full(total);
    if (total.selective == 0) return;
    add("--recompute-granularity", "selective");
    add("--recompute-modules", "core_attn layernorm");
    lost_.emplace_back(
        "selective recompute of all but contractions and fused attention: Megatron-LM recomputes named modules, "
        "written "
        "are core_attn and layernorm; what the MLP's activation function keeps stays; leave core_attn out with fused "
        "attention");
    if (total.selective < total.layers)
      lost_.push_back("selective recompute of " + std::to_string(total.selective) + " of " +
                      std::to_string(total.layers) + " blocks: Megatron-LM's selective recompute is for all layers");
  }

  void add_full(const StageLayers& total) {
    add("--recompute-granularity", "full");
    if (total.full == total.layers) {
      add("--recompute-method", "uniform");
      add("--recompute-num-layers", 1);
      return;
    }
    int most = 0;
    bool alike = true;
    std::string counts;
    for (const StageLayers& stage : shape_.stages) {
      most = std::max(most, stage.full);
      alike &= stage.full == shape_.stages.front().full;
      counts += (counts.empty() ? "" : ", ") + std::to_string(stage.full);
    }
    add("--recompute-method", "block");
    add("--recompute-num-layers", most);
    if (!alike)
      lost_.push_back("recomputed blocks per stage ([" + counts + "]): Megatron-LM has one number for all stages; " +
                      "written is the largest, " + std::to_string(most) +
                      ", which needs no more memory and takes longer");
  }

  void add_offload() {
    if (shape_.offload == Offload::Optimizer) {
      if (shape_.zero_stage == 0 || shape_.data == 1) add("--use-distributed-optimizer");
      add("--optimizer-cpu-offload");
      add("--optimizer-offload-fraction", "1.0");
      add("--use-precision-aware-optimizer");
    } else if (shape_.offload == Offload::Activations) {
      add("--fine-grained-activation-offloading");
      add("--offload-modules", "attn_norm qkv_linear core_attn attn_proj mlp_norm");
      lost_.emplace_back(
          "offload of all that a block keeps: Megatron-LM offloads the inputs of named modules, those of "
          "the MLP's second half not among them; set NVTE_CPU_OFFLOAD_V1=1 with Transformer Engine 2.10 "
          "and later, and look at the memory");
    }
  }

  const ExportShape& shape_;
  std::vector<std::string> lost_, places_;
  std::string arguments_;
};

}  // namespace

Exported export_megatron(const ExportShape& shape) { return Megatron(shape).write(); }

}  // namespace coxswain::plan
