#include "cost_model/recipe_time.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "cost_model/roofline.h"

namespace coxswain::cost_model {
namespace {

using collective::CollectiveKind;

constexpr double kElementBytes = 2;
constexpr double kGradientBytes = 4;     // accumulated in float32
constexpr double kMessageExposed = 0.5;  // of a message between stages, the rest runs beside a pass
constexpr double kChunkStart = 3e-5;     // seconds to start a message, each way
constexpr double kUpdateBytes = 30;      // of a parameter: C13's, with a 16-bit copy and no second read
/// Of 1F1B's bubble (pp - 1)(F + I + W): Qi et al., "Zero bubble pipeline parallelism" (2024), leave (pp - 1)(F + I -
/// W) with as little memory, nothing with twice that; F = I = W here.
constexpr double kFirstBubble = 1.0 / 3;
constexpr double kSecondBubble = 0;

std::vector<Error> problems_of(const TransformerShape& shape, const Recipe& recipe, const RecipeMachine& machine) {
  struct Positive {
    const char* path;
    double value;
  };
  const std::array<Positive, 20> numbers{{{"blocks", shape.num_blocks},
                                          {"hidden", shape.hidden},
                                          {"heads", shape.heads},
                                          {"kv_heads", shape.kv_heads},
                                          {"ffn_hidden", shape.ffn_hidden},
                                          {"vocabulary", shape.vocabulary},
                                          {"sequence", shape.sequence},
                                          {"tensor", recipe.tensor},
                                          {"pipeline", recipe.pipeline},
                                          {"data", recipe.data},
                                          {"context", recipe.context},
                                          {"expert", recipe.expert},
                                          {"expert_tensor", recipe.expert_tensor},
                                          {"chunks", recipe.chunks},
                                          {"micro_batch", recipe.micro_batch},
                                          {"num_micro_batches", recipe.num_micro_batches},
                                          {"matmul rate", matmul_peak(machine.device, plan::Precision::BFloat16).value},
                                          {"memory bandwidth", machine.device.memory_bandwidth.value.value},
                                          {"node link", machine.node_link.bandwidth.value.value},
                                          {"network", machine.network.bandwidth.value.value}}};
  std::vector<Error> problems;
  for (const Positive& number : numbers) {
    if (number.value > 0 && std::isfinite(number.value)) continue;
    problems.push_back(Error{ErrorCode::InvalidArgument, "not a positive number", number.path, "above 0",
                             std::to_string(number.value), ""});
  }
  return problems;
}

/// Blocks of the stages: as even as chunks allow, what is missing taken from the last stage and the first.
struct StageBlocks {
  double middle = 0, last = 0;
};

StageBlocks stage_blocks(double blocks, double pipeline, double chunks) {
  const double of_chunk = std::ceil(blocks / (pipeline * chunks));
  const double full = of_chunk * chunks;
  const double missing = full * pipeline - blocks;
  if (pipeline == 1) return {blocks, blocks};
  if (missing >= pipeline) return {blocks / pipeline, blocks / pipeline};  // uneven in a way that nothing tells
  return {full, full - std::ceil(missing / 2)};
}

class StepPricer {
 public:
  StepPricer(const TransformerShape& shape, const Recipe& recipe, const RecipeMachine& machine,
             const Efficiency& efficiency)
      : shape_(shape),
        recipe_(recipe),
        machine_(machine),
        e_(efficiency),
        block_(estimate_recipe_block(shape, recipe, machine, efficiency)),
        blocks_(shape.num_blocks + shape.prediction_heads - 1),
        replicas_(recipe.data * recipe.context),
        expert_replicas_(std::max(1.0, replicas_ * recipe.tensor / (recipe.expert * recipe.expert_tensor))) {}

  RecipeTime price() const {
    RecipeTime time;
    const double both = both_passes();
    // C48
    const StageBlocks stages = stage_blocks(blocks_, recipe_.pipeline, recipe_.chunks);
    const double head = block_.head.value;
    const double message = messages();
    const double average = (blocks_ * both + head) / recipe_.pipeline;
    time.stage = Seconds(std::max(stages.middle * both, stages.last * both + head) + message);
    time.bubble = Seconds(bubble_share() * (recipe_.pipeline - 1) / recipe_.chunks * (average + message));
    // C51: the last micro-batch's passes hide a part.
    const double reduced = reductions();
    const double hidden = recipe_.overlaps_gradients ? e_.gradient_overlap * average : 0;
    time.gradients = Seconds(std::max(0.0, reduced - hidden) + e_.gradient_contention * std::min(reduced, hidden));
    time.update = Seconds(update());
    time.step =
        time.stage * recipe_.num_micro_batches + time.bubble + time.gradients + time.update + Seconds(e_.step_seconds);
    return time;
  }

 private:
  [[nodiscard]] double ring(CollectiveKind kind, double bytes) const {
    return estimate_domain_ring(kind, bytes, replicas_, machine_.domain_devices / recipe_.tensor, machine_, e_).value;
  }
  // Replicas of an expert lie as far apart as its group is wide.
  [[nodiscard]] double expert_ring(CollectiveKind kind, double bytes) const {
    return estimate_domain_ring(kind, bytes, expert_replicas_,
                                machine_.domain_devices / (recipe_.expert * recipe_.expert_tensor), machine_, e_)
        .value;
  }

  // C50: gathers of stage 3 and the reductions of stages 2 and 3 run beside the block.
  [[nodiscard]] double both_passes() const {
    const double forward = block_.forward.value, backward = block_.backward.value;
    if (recipe_.zero_stage < 2) return forward + backward;
    const auto collective = [&](CollectiveKind kind, double element) {
      return ring(kind, block_.dense_parameters * element) + expert_ring(kind, block_.expert_parameters * element);
    };
    const double gather = recipe_.zero_stage >= 3 ? collective(CollectiveKind::AllGather, kElementBytes) : 0;
    const double gradient = recipe_.narrow_gradients ? kElementBytes : kGradientBytes;
    const double reduce = recipe_.frozen_weights ? 0 : collective(CollectiveKind::ReduceScatter, gradient);
    const auto beside = [&](double work, double transfer) {
      return std::max(work, transfer) + e_.gather_contention * std::min(work, transfer);
    };
    return beside(forward, gather) + beside(backward, gather + reduce);
  }

  [[nodiscard]] double messages() const {
    if (recipe_.pipeline <= 1) return 0;
    const double tokens = recipe_.micro_batch * shape_.sequence / recipe_.context;
    const double bytes = tokens * shape_.hidden * kElementBytes / (recipe_.sequence_parallel ? recipe_.tensor : 1);
    const double devices = recipe_.tensor * recipe_.pipeline * replicas_;
    const double rate = devices <= machine_.domain_devices ? machine_.node_link.bandwidth.value.value * e_.node_link
                                                           : machine_.network.bandwidth.value.value * e_.network *
                                                                 (machine_.network_known ? 1 : e_.unknown_network);
    return recipe_.chunks * 2 * (kMessageExposed * bytes / rate + kChunkStart);
  }

  [[nodiscard]] double bubble_share() const {
    switch (recipe_.schedule) {
      case RecipeSchedule::ZeroBubbleFirst: return kFirstBubble;
      case RecipeSchedule::ZeroBubbleSecond: return kSecondBubble;
      default: return 1;
    }
  }

  // Parameters of a device: its blocks and one table of the vocabulary.
  [[nodiscard]] double dense() const {
    return block_.dense_parameters * blocks_ / recipe_.pipeline + shape_.vocabulary * shape_.hidden / recipe_.tensor;
  }
  [[nodiscard]] double experts() const { return block_.expert_parameters * blocks_ / recipe_.pipeline; }

  [[nodiscard]] double reductions() const {
    if (recipe_.zero_stage >= 2 || recipe_.frozen_weights) return 0;
    if (recipe_.zero_stage == 0) {
      return ring(CollectiveKind::AllReduce, dense() * kGradientBytes) +
             expert_ring(CollectiveKind::AllReduce, experts() * kGradientBytes);
    }
    return ring(CollectiveKind::ReduceScatter, dense() * kGradientBytes) +
           ring(CollectiveKind::AllGather, dense() * kElementBytes) +
           expert_ring(CollectiveKind::ReduceScatter, experts() * kGradientBytes) +
           expert_ring(CollectiveKind::AllGather, experts() * kElementBytes);
  }

  // C52
  [[nodiscard]] double update() const {
    if (recipe_.frozen_weights) return 0;
    const bool split = recipe_.zero_stage >= 1;
    const double owned = dense() / (split ? replicas_ : 1) + experts() / (split ? expert_replicas_ : 1);
    return kUpdateBytes * owned / (machine_.device.memory_bandwidth.value.value * e_.memory);
  }

  const TransformerShape& shape_;
  const Recipe& recipe_;
  const RecipeMachine& machine_;
  const Efficiency& e_;
  RecipeBlock block_;
  double blocks_, replicas_, expert_replicas_;
};

}  // namespace

Result<RecipeTime> estimate_recipe(const TransformerShape& shape, const Recipe& recipe, const RecipeMachine& machine,
                                   const Efficiency& efficiency) {
  std::vector<Error> problems = problems_of(shape, recipe, machine);
  if (!problems.empty())
    return combine_errors(ErrorCode::InvalidArgument, "the recipe has problems", std::move(problems));
  return StepPricer(shape, recipe, machine, efficiency).price();
}

}  // namespace coxswain::cost_model
