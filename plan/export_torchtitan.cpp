// torchtitan: the parts of a job's TOML that a plan decides, in the names of its version 0.2.
// Source: docs/exchange.md, "torchtitan".
#include <algorithm>

#include "plan/export_shape.h"

namespace coxswain::plan {
namespace {

class Torchtitan {
 public:
  explicit Torchtitan(const ExportShape& shape) : shape_(shape), lost_(shape.lost) {}

  Exported write() {
    for (const std::string& each : order_lost(shape_)) lost_.push_back(each);
    const bool pipelined = shape_.stages.size() > 1;
    body_ += "[training]\n";
    add("local_batch_size", pipelined ? shape_.micro * shape_.count : shape_.micro);
    add("global_batch_size", shape_.global);
    add("dtype", "\"float32\"");
    add("mixed_precision_param", is_mixed(shape_.precision) ? "\"bfloat16\"" : "\"float32\"");
    add_precision_lost();
    add_offload();
    body_ += "\n[parallelism]\n";
    add_data();
    add("tensor_parallel_degree", shape_.tensor);
    add("context_parallel_degree", shape_.context);
    add("expert_parallel_degree", shape_.expert);
    add("pipeline_parallel_degree", shape_.pipeline);
    if (pipelined) add_pipeline();
    body_ += "\n[activation_checkpoint]\n";
    add_recompute();
    std::string text;
    const std::string title =
        "torchtitan 0.2: part of a job's TOML; later versions take the same names as options (--parallelism.NAME)";
    for (const std::string& line : head_lines(title, shape_.places, lost_)) text += "# " + line + "\n";
    return {text + "\n" + body_, lost_};
  }

 private:
  void add(const std::string& key, const std::string& value) { body_ += key + " = " + value + "\n"; }
  void add(const std::string& key, std::int64_t value) { add(key, std::to_string(value)); }

  /// FSDP casts, and DDP or a single device where there is no other axis.
  void add_precision_lost() {
    if (shape_.precision == Precision::Float16)
      lost_.emplace_back(
          "float16 and its loss scale: torchtitan trains in bfloat16 or float32, and bfloat16 is written here; plan "
          "for "
          "that with precision: bfloat16");
    const bool others = shape_.tensor > 1 || shape_.stages.size() > 1;
    if (!is_mixed(shape_.precision) || shape_.data * shape_.context > 1 || !others) return;
    lost_.emplace_back(
        "mixed precision on one replica: torchtitan casts under FSDP only and computes in float32 here; plan for that "
        "with --constrain data=2 or more, or set dtype = \"bfloat16\", which keeps no float32 weights");
  }

  void add_offload() {
    if (shape_.offload == Offload::Activations)
      lost_.emplace_back("offload of activations: torchtitan has none; plan for that with --constrain offload=none");
    if (shape_.offload != Offload::Optimizer) return;
    if (shape_.data * shape_.context == 1) {
      lost_.emplace_back(
          "offload of the optimizer on one replica: torchtitan offloads under FSDP only; plan for that "
          "with --constrain offload=none");
      return;
    }
    add("enable_cpu_offload", "true");
    lost_.emplace_back(
        "offload of the optimizer alone: torchtitan offloads parameters and gradients with it, and is "
        "slower for it");
  }

  /// DDP is there for pure data parallel only; everything else is FSDP, which may keep its parameters (ZeRO 2).
  void add_data() {
    const bool alone = shape_.tensor * shape_.context * static_cast<int>(shape_.stages.size()) == 1;
    const bool replicate = shape_.zero_stage == 0 && alone && shape_.offload == Offload::None;
    add("data_parallel_replicate_degree", replicate ? shape_.data : 1);
    add("data_parallel_shard_degree", replicate ? 1 : shape_.data);
    if (replicate || shape_.data == 1) return;
    add("fsdp_reshard_after_forward", shape_.zero_stage == 3 ? "\"always\"" : "\"never\"");
    if (shape_.zero_stage < 2)
      lost_.push_back(
          "ZeRO " + std::to_string(shape_.zero_stage) +
          ": torchtitan has DDP (on its own) and FSDP; written is FSDP that keeps its parameters, which is " +
          "ZeRO 2: less memory, the same bytes; plan for that with --constrain zero=2");
  }

  void add_pipeline() {
    add("pipeline_parallel_microbatch_size", shape_.micro);
    add("pipeline_parallel_schedule", "\"" + schedule() + "\"");
    // Every cut in full: torchtitan's own count takes a layer off the first and the last stage.
    std::string parts;
    int layer = 0;
    for (std::size_t s = 0; s < shape_.stages.size(); ++s) {
      std::vector<std::string> names;
      if (s == 0) names.emplace_back("tok_embeddings");
      for (int i = 0; i < shape_.stages[s].layers; ++i) names.push_back("layers." + std::to_string(layer++));
      if (s + 1 == shape_.stages.size()) names.insert(names.end(), {"norm", "output"});
      std::string list;
      for (const std::string& name : names) list += (list.empty() ? "\"" : ", \"") + name + "\"";
      parts += "  [" + list + "],\n";
    }
    add("module_fqns_per_model_part", "[\n" + parts + "]");
  }

  std::string schedule() {
    const std::string name(to_text(shape_.schedule));
    switch (shape_.schedule) {
      case ScheduleKind::GPipe: return "GPipe";
      case ScheduleKind::Interleaved: return "Interleaved1F1B";
      case ScheduleKind::ZeroBubbleV: return "ZBVZeroBubble";
      case ScheduleKind::OneForwardOneBackward: return "1F1B";
      default:
        lost_.push_back("schedule " + name +
                        ": torchtitan has zero-bubble schedules for several stages a device only; " +
                        "written is 1F1B, with a longer bubble; plan for that with --constrain schedule=1f1b or zbv");
        return "1F1B";
    }
  }

  void add_recompute() {
    const StageLayers total = total_layers(shape_);
    if (shape_.ends_recomputed)
      lost_.emplace_back("recompute of the prologue or epilogue: torchtitan recomputes transformer blocks only");
    const int recomputed = total.full + total.selective;
    if (recomputed == 0) return add("mode", "\"none\"");
    if (total.full == total.layers) return add("mode", "\"full\"");
    add("mode", "\"selective\"");
    if (total.full == 0) {
      add("selective_ac_option", "\"op\"");
      lost_.push_back("selective recompute of " + std::to_string(recomputed) + " of " + std::to_string(total.layers) +
                      " blocks: torchtitan chooses the operators (every second matrix product) of every block");
      return;
    }
    const int every = std::max(1, total.layers / recomputed);
    add("selective_ac_option", "\"" + std::to_string(every) + "\"");
    lost_.push_back("recompute of " + std::to_string(recomputed) + " of " + std::to_string(total.layers) +
                    " blocks: torchtitan recomputes every n-th; written is every " + std::to_string(every) + "., " +
                    std::to_string(total.layers / every) + " blocks wherever the cuts put them; look at the memory");
  }

  const ExportShape& shape_;
  std::vector<std::string> lost_;
  std::string body_;
};

}  // namespace

Exported export_torchtitan(const ExportShape& shape) { return Torchtitan(shape).write(); }

}  // namespace coxswain::plan
