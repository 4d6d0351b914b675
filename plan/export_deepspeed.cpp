// DeepSpeed: its configuration JSON. What DeepSpeed takes in code (pipeline, experts, recompute) is told as a loss with
// the line of code to write. Source: docs/exchange.md, "DeepSpeed".
#include <algorithm>

#include "common/json.h"
#include "plan/export_shape.h"

namespace coxswain::plan {
namespace {

class DeepSpeed {
 public:
  explicit DeepSpeed(const ExportShape& shape) : shape_(shape), lost_(shape.lost), zero_stage_(shape.zero_stage) {}

  Exported write() {
    for (const std::string& each : order_lost(shape_)) lost_.push_back(each);
    config_["train_batch_size"] = shape_.global;
    config_["train_micro_batch_size_per_gpu"] = shape_.micro;
    config_["gradient_accumulation_steps"] = shape_.count;
    config_["bf16"] = JsonObject{{"enabled", shape_.precision == Precision::BFloat16}};
    // With our loss scale (docs/plan.md#loss-scale).
    if (shape_.precision == Precision::Float16)
      config_["fp16"] =
          JsonObject{{"enabled", true}, {"initial_scale_power", 16}, {"loss_scale_window", 2000}, {"hysteresis", 1}};
    add_axes();
    add_pipeline();
    add_zero();
    add_recompute();
    JsonArray comments;
    for (const std::string& line : head_lines("DeepSpeed configuration (names of version 0.19)", shape_.places, lost_))
      comments.emplace_back(line);
    config_["_comments"] = std::move(comments);
    return {coxswain::to_text(Json(config_), 2) + "\n", lost_};
  }

 private:
  void add_axes() {
    if (shape_.tensor > 1) {
      config_["tensor_parallel"] = JsonObject{{"autotp_size", shape_.tensor}};
      lost_.emplace_back(
          "sequence parallel beside tensor parallel: DeepSpeed keeps whole activations on every device of "
          "a replica, which takes more memory than planned");
    }
    if (shape_.context > 1) {
      config_["sequence_parallel_size"] = shape_.context;
      config_["data_parallel_size"] = shape_.data;
      lost_.push_back("context parallel by ring: DeepSpeed splits the sequence by Ulysses, which needs heads that " +
                      std::to_string(shape_.context) + " divides");
    }
    if (shape_.expert > 1)
      lost_.push_back("expert parallel is code in DeepSpeed: deepspeed.moe.layer.MoE(..., ep_size=" +
                      std::to_string(shape_.expert) + ")");
  }

  void add_pipeline() {
    if (shape_.stages.size() == 1) return;
    std::string line =
        "pipeline stages are code in DeepSpeed: PipelineModule(layers, num_stages=" + std::to_string(shape_.pipeline) +
        ", partition_method=\"uniform\")";
    if (!has_even_cuts(shape_))
      line +=
          "; it cannot be given the plan's " + layers_text(shape_) +
          " blocks a stage: group them into that many layers of about equal size, or plan with --constrain cuts=even";
    lost_.push_back(line);
    if (shape_.tensor > 1)
      lost_.emplace_back(
          "tensor with pipeline parallel: DeepSpeed's AutoTP does not reach into a PipelineModule; use "
          "tensor-parallel layers of Megatron-DeepSpeed, or plan with --constrain tensor=1");
    if (shape_.schedule != ScheduleKind::OneForwardOneBackward)
      lost_.push_back("schedule " + std::string(to_text(shape_.schedule)) +
                      ": DeepSpeed's pipeline runs 1f1b; plan for that with --constrain schedule=1f1b");
    if (zero_stage_ > 1) {
      lost_.push_back("ZeRO " + std::to_string(zero_stage_) +
                      " with pipeline stages: DeepSpeed allows at most ZeRO 1, which is written and needs more memory; "
                      "plan for that with --constrain zero=1");
      zero_stage_ = 1;
    }
  }

  void add_zero() {
    JsonObject zero;
    if (shape_.offload == Offload::Optimizer) {
      if (zero_stage_ == 0) {
        zero_stage_ = 1;
        lost_.emplace_back(
            "offload of the optimizer without ZeRO: DeepSpeed offloads from ZeRO 1 on, which is written");
      }
      zero["offload_optimizer"] = JsonObject{{"device", "cpu"}, {"pin_memory", true}};
    }
    zero["stage"] = zero_stage_;
    if (zero_stage_ > 1) zero["overlap_comm"] = true;
    config_["zero_optimization"] = std::move(zero);
  }

  void add_recompute() {
    const StageLayers total = total_layers(shape_);
    const int recomputed = total.full + total.selective;
    const bool offload = shape_.offload == Offload::Activations;
    if (recomputed > 0)
      config_["activation_checkpointing"] = JsonObject{
          {"cpu_checkpointing", offload}, {"number_checkpoints", recomputed}, {"partition_activations", false}};
    if (offload)
      lost_.emplace_back(recomputed > 0
                             ? "offload of all activations: DeepSpeed offloads the inputs of recomputed blocks"
                             : "offload of activations: DeepSpeed offloads the inputs of recomputed blocks "
                               "only; plan for that with --constrain offload=none");
    if (recomputed == 0 && !shape_.ends_recomputed) return;
    lost_.push_back("recompute is code in DeepSpeed: deepspeed.checkpointing.checkpoint around " +
                    (recomputed == total.layers ? "every block"
                                                : std::to_string(recomputed) + " of " + std::to_string(total.layers) +
                                                      " blocks (" + per_stage() + " a stage)") +
                    (shape_.ends_recomputed ? ", and around the prologue or epilogue as the plan says" : "") +
                    ", or PipelineModule(activation_checkpoint_interval=1) for every block");
  }

  [[nodiscard]] std::string per_stage() const {
    std::string counts;
    for (const StageLayers& stage : shape_.stages)
      counts += (counts.empty() ? "" : ", ") + std::to_string(stage.full + stage.selective);
    return "[" + counts + "]";
  }

  const ExportShape& shape_;
  std::vector<std::string> lost_;
  int zero_stage_;
  JsonObject config_;
};

}  // namespace

Exported export_deepspeed(const ExportShape& shape) { return DeepSpeed(shape).write(); }

}  // namespace coxswain::plan
