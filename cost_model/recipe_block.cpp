#include <algorithm>
#include <cmath>

#include "cost_model/recipe_time.h"
#include "cost_model/roofline.h"

namespace coxswain::cost_model {
namespace {

using collective::Algorithm;
using collective::CollectiveKind;

// What no published run tells apart: held at what is known of kernels and launches, not fitted.
constexpr double kElementBytes = 2;            // activations, weights and gradients that are computed with
constexpr double kShardedPasses = 14;          // over the stream, of what is split over `tensor` (activation, its gate)
constexpr double kHeadPasses = 12;             // over the logits: float32, softmax and its gradient
constexpr double kBackwardLaunches = 1.5;      // of the forward's: two products for each of its
constexpr double kCapturedFraction = 0.2;      // of launches that a replayed graph leaves
constexpr double kCompiledFraction = 0.7;      // of pointwise passes that a compiler's fusion leaves
constexpr double kCollectiveStart = 1e-5;      // seconds until a collective's first bytes move
constexpr double kRowScales = 3;               // against one scale of a tensor
constexpr double kSmallHeadFraction = 0.75;    // of the attention rate at a head size of 64 and less
constexpr double kFlashBackward = 2.5;         // C1: five products against two
constexpr double kExplicitRate = 0.6;          // of the matmul rate, batched products of a head's size
constexpr double kAsynchronousFraction = 0.6;  // of tensor-parallel collectives that a compiler's overlap leaves
constexpr double kOverlappedExperts = 0.4;     // of all_to_all that overlap leaves
constexpr double kRingExposed = 0.3;           // of the exchange of keys and values that the ring does not hide
constexpr double kRecomputedPasses = 0.5;      // of pointwise passes, where only those are recomputed
constexpr double kSmooth = 4;                  // how sharply the host gives way to the device

/// C43: the greater of the two, rounded off where they are alike.
double smooth_max(double a, double b) { return std::pow(std::pow(a, kSmooth) + std::pow(b, kSmooth), 1 / kSmooth); }

/// The device's rates and what the recipe asks of them, once a block.
class BlockPricer {
 public:
  BlockPricer(const TransformerShape& shape, const Recipe& recipe, const RecipeMachine& machine,
              const Efficiency& efficiency)
      : shape_(shape), recipe_(recipe), machine_(machine), e_(efficiency) {
    tokens_ = recipe.micro_batch * shape.sequence / recipe.context;
    stream_shards_ = recipe.sequence_parallel ? recipe.tensor : 1;
    memory_ = machine.device.memory_bandwidth.value.value * e_.memory;
    head_size_ = shape.head_size > 0 ? shape.head_size : shape.hidden / shape.heads;
    wide_ = best_rate(1e9);
  }

  RecipeBlock price() {
    const bool experts = shape_.experts > 0;
    const double attention_weights = query_key_value_weights() + output_weights();
    const double attention_matmul =
        matmul(attention_weights / recipe_.tensor, 2 * shape_.hidden + width() / recipe_.tensor,
               query_key_value_weights() / shape_.hidden / recipe_.tensor, 2);
    // The share of blocks with an MLP, where others have experts.
    const double dense =
        experts ? std::min(1.0, shape_.dense_blocks / (shape_.num_blocks + shape_.prediction_heads - 1)) : 1;
    const double mlp_hidden = experts ? shape_.dense_ffn_hidden : shape_.ffn_hidden;
    const double mlp_weights = shape_.mlp_matrices * shape_.hidden * mlp_hidden;
    const double mlp = dense > 0 ? mlp_matmul(mlp_hidden) : 0;
    const double expert_part = 1 - dense;
    const double routed = experts ? routed_matmul() : 0;
    const double moved_tokens = experts ? permute() : 0;
    const double matmuls = attention_matmul + dense * mlp + expert_part * routed;
    const double scores = attention();
    const double pointwise = pointwise_passes();

    const double forward_work = matmuls + scores + pointwise + expert_part * moved_tokens;
    const double backward_work = (recipe_.frozen_weights ? 1 : 2) * matmuls +
                                 (recipe_.attention == AttentionKernel::ExplicitScores ? 2 : kFlashBackward) * scores +
                                 2 * pointwise + 2 * expert_part * moved_tokens;
    const double tensor = tensor_collectives();
    const double context = context_exchange();
    const double exchange = experts ? expert_part * all_to_all() : 0;
    const double host = e_.host_seconds * (experts ? e_.host_experts : 1) * (recipe_.captured ? kCapturedFraction : 1);

    RecipeBlock block;
    const double forward = smooth_max(forward_work + tensor + exchange + context, host);
    const double backward = smooth_max(backward_work + tensor + exchange + 2 * context, host * kBackwardLaunches);
    double again = 0;
    switch (recipe_.recompute) {
      case RecipeRecompute::None: break;
      case RecipeRecompute::Pointwise: again = kRecomputedPasses * pointwise; break;
      case RecipeRecompute::Attention: again = scores; break;
      case RecipeRecompute::Alternate: again = 0.5 * forward_work; break;
      case RecipeRecompute::Full: again = forward; break;
    }
    block.forward = Seconds(forward);
    block.backward = Seconds(backward + again * recipe_.recomputed_fraction);
    block.tensor = Seconds(tensor);
    block.head = Seconds(head(tensor));
    block.dense_parameters =
        attention_weights / recipe_.tensor +
        (dense * mlp_weights + expert_part * shape_.shared_experts * expert_weights()) / recipe_.tensor;
    block.expert_parameters =
        experts ? expert_part * expert_weights() / recipe_.expert_tensor * shape_.experts / recipe_.expert : 0;
    return block;
  }

 private:
  // Best rate of the 16-bit curve at this size, C5.
  [[nodiscard]] double best_rate(double size) const {
    return matmul_rate(machine_.device, plan::Precision::BFloat16, std::max(1.0, size)).value;
  }

  // Of the 16-bit rate that the blocks' format reaches at best.
  [[nodiscard]] double format_rate() const {
    const auto times = [&](FlopPerSecond narrow, double fraction) {
      return narrow.value > 0 ? narrow.value / wide_ * fraction : e_.matmul_16bit;
    };
    switch (recipe_.format) {
      case NumberFormat::Bits16: return e_.matmul_16bit;
      case NumberFormat::Bits4: return times(machine_.best_4bit, e_.matmul_4bit);
      default: return times(machine_.best_8bit, e_.matmul_8bit);
    }
  }

  // 16-bit passes over each operand to turn it into the format.
  [[nodiscard]] double cast_passes() const {
    switch (recipe_.format) {
      case NumberFormat::Bits16: return 0;
      case NumberFormat::Bits8: return e_.cast_passes;
      case NumberFormat::Bits8Rows: return e_.cast_passes * kRowScales;
      default: return e_.cast_passes * e_.block_scales;
    }
  }

  // C40: `products` products that hold `weights` elements, with so many elements of each token going in and out.
  [[nodiscard]] double matmul(double weights, double in, double out, double products, double rate_fraction,
                              double tokens, double weight_copies) const {
    const double size = std::cbrt(tokens / weight_copies * weights / products);
    const double arithmetic = 2 * tokens * weights / (best_rate(size) * rate_fraction);
    const double moved = (weight_copies * weights + tokens * (in + out)) * kElementBytes / memory_;
    const double cast = cast_passes() * tokens * (in + out) / memory_;
    return std::max(arithmetic, moved) + cast;
  }
  [[nodiscard]] double matmul(double weights, double in, double out, double products) const {
    return matmul(weights, in, out, products, format_rate(), tokens_, 1);
  }
  [[nodiscard]] double mlp_matmul(double ffn_hidden) const {
    const double inner = ffn_hidden / recipe_.tensor;
    return matmul(shape_.mlp_matrices * shape_.hidden * inner, shape_.hidden + inner,
                  shape_.hidden + (shape_.mlp_matrices - 1) * inner, shape_.mlp_matrices);
  }

  // Elements of a token inside attention: heads x size, or the mean of both parts' where they differ.
  [[nodiscard]] double width() const {
    if (shape_.kv_rank > 0) return shape_.heads * 1.25 * head_size_;  // keys carry half a head more for positions
    return shape_.heads * head_size_;
  }
  [[nodiscard]] double query_key_value_weights() const {
    if (shape_.kv_rank > 0) {
      return shape_.hidden * (shape_.query_rank + shape_.kv_rank + head_size_ / 2) +
             shape_.query_rank * shape_.heads * 1.5 * head_size_ + shape_.kv_rank * shape_.heads * 2 * head_size_;
    }
    return shape_.hidden * (shape_.heads + 2 * shape_.kv_heads) * head_size_;
  }
  [[nodiscard]] double output_weights() const { return shape_.heads * head_size_ * shape_.hidden; }
  [[nodiscard]] double expert_weights() const { return shape_.mlp_matrices * shape_.hidden * shape_.ffn_hidden; }

  // C41
  [[nodiscard]] double attention() const {
    const double rows = recipe_.micro_batch * shape_.sequence;
    const double flop = 4 * rows * shape_.sequence / recipe_.context * width() / recipe_.tensor;
    if (recipe_.attention == AttentionKernel::ExplicitScores) {
      const double scores = rows * shape_.sequence * shape_.heads / recipe_.tensor / recipe_.context;
      return flop / (wide_ * e_.matmul_16bit * kExplicitRate) + e_.score_passes * scores * kElementBytes / memory_;
    }
    double fraction = e_.attention_tuned;
    if (recipe_.attention == AttentionKernel::FlashFirst) fraction = e_.attention_first;
    if (recipe_.attention == AttentionKernel::FlashSecond) fraction = e_.attention_second;
    if (recipe_.attention != AttentionKernel::Tuned && machine_.after_ampere) fraction *= e_.attention_older;
    if (head_size_ <= 64) fraction *= kSmallHeadFraction;
    return 0.5 * shape_.attended_fraction * flop / (wide_ * fraction);
  }

  // C42
  [[nodiscard]] double pointwise_passes() const {
    const double sharded = kShardedPasses * (shape_.experts > 0 ? 0.5 : 1.0) / recipe_.tensor;
    const double whole = (e_.stream_passes + (recipe_.fused_norm ? 0 : e_.norm_passes)) / stream_shards_;
    return (sharded + whole) * tokens_ * shape_.hidden * kElementBytes / memory_ *
           (recipe_.compiled ? kCompiledFraction : 1);
  }

  // C44: two in forward, as many in backward: all_reduce, or reduce_scatter with all_gather, which carry the same.
  [[nodiscard]] double tensor_collectives() const {
    if (recipe_.tensor <= 1) return 0;
    const Seconds one = estimate_domain_ring(CollectiveKind::AllReduce, tokens_ * shape_.hidden * kElementBytes,
                                             recipe_.tensor, machine_.domain_devices, machine_, e_);
    double exposed = recipe_.asynchronous_tensor ? kAsynchronousFraction : 1;
    if (recipe_.overlaps_tensor && recipe_.sequence_parallel) exposed *= e_.tensor_exposed;
    return 2 * (one.value + kCollectiveStart) * exposed;
  }

  // C45: keys and values of the other ranks pass around a ring beside attention.
  [[nodiscard]] double context_exchange() const {
    if (recipe_.context <= 1) return 0;
    const double kv = shape_.kv_rank > 0 ? width() : shape_.kv_heads * head_size_;
    const double bytes = 2 * tokens_ * kv / recipe_.tensor * kElementBytes;
    const bool near = recipe_.tensor * recipe_.context <= machine_.domain_devices;
    return kRingExposed * (recipe_.context - 1) * bytes / (near ? node_rate() : network_rate());
  }

  // C46: tokens come from all ranks of the expert group, to so many experts of this device.
  [[nodiscard]] double routed_matmul() const {
    // Whole experts get their own part of the stream, shards of an expert all of it.
    const double parts = recipe_.expert_tensor < recipe_.tensor ? recipe_.tensor : 1;
    const double tokens = tokens_ * shape_.experts_per_token / parts;
    const double inner = shape_.ffn_hidden / recipe_.expert_tensor;
    const double local = std::max(1.0, shape_.experts / recipe_.expert);
    const double weights = shape_.mlp_matrices * shape_.hidden * inner;
    double time =
        matmul(weights, shape_.hidden + inner, shape_.hidden + (shape_.mlp_matrices - 1) * inner, shape_.mlp_matrices,
               format_rate() * e_.matmul_experts, tokens, recipe_.grouped_experts ? 1 : local);
    if (recipe_.grouped_experts) time += (local - 1) * weights * kElementBytes / memory_;
    if (shape_.shared_experts > 0) time += shape_.shared_experts * mlp_matmul(shape_.ffn_hidden);
    return time;
  }
  [[nodiscard]] double permute() const {
    return e_.permute_passes * tokens_ * shape_.experts_per_token * shape_.hidden * kElementBytes / memory_ /
           stream_shards_;
  }

  // C47: to the experts and back, once in each pass.
  [[nodiscard]] double all_to_all() const {
    if (recipe_.expert <= 1) return 0;
    const double stride = recipe_.expert_tensor < recipe_.tensor ? 1 : recipe_.tensor * recipe_.context;
    const double near = std::clamp(machine_.domain_devices / stride, 1.0, recipe_.expert);
    const double bytes = tokens_ * shape_.experts_per_token * shape_.hidden * kElementBytes / stream_shards_;
    const double inside = bytes * (near - 1) / recipe_.expert;
    const double outside = bytes * (1 - near / recipe_.expert);
    const double link = machine_.node_link.bandwidth.value.value * e_.all_to_all;
    return 2 * (inside / link + outside / network_rate()) * (recipe_.overlaps_experts ? kOverlappedExperts : 1);
  }

  // Logits and loss, both passes: of the last stage.
  [[nodiscard]] double head(double tensor) const {
    const double columns = shape_.vocabulary / recipe_.tensor;
    const double size = std::cbrt(tokens_ * columns * shape_.hidden);
    const double flop = (recipe_.frozen_weights ? 4 : 6) * tokens_ * shape_.hidden * columns;
    const double products = flop / (best_rate(size) * e_.matmul_16bit);
    const double passes = kHeadPasses * tokens_ * columns * kElementBytes / memory_;
    const double weights = 3 * shape_.hidden * columns * kElementBytes / memory_;
    return (products + passes + weights) * shape_.prediction_heads + tensor / 2;
  }

  [[nodiscard]] double node_rate() const { return machine_.node_link.bandwidth.value.value * e_.node_link; }
  [[nodiscard]] double network_rate() const {
    return machine_.network.bandwidth.value.value * e_.network * (machine_.network_known ? 1 : e_.unknown_network);
  }

  const TransformerShape& shape_;
  const Recipe& recipe_;
  const RecipeMachine& machine_;
  const Efficiency& e_;
  double tokens_ = 0, stream_shards_ = 1, memory_ = 1, head_size_ = 0, wide_ = 1;
};

}  // namespace

RecipeBlock estimate_recipe_block(const TransformerShape& shape, const Recipe& recipe, const RecipeMachine& machine,
                                  const Efficiency& efficiency) {
  return BlockPricer(shape, recipe, machine, efficiency).price();
}

// C49
Seconds estimate_domain_ring(CollectiveKind kind, double payload_bytes, double ranks, double near,
                             const RecipeMachine& machine, const Efficiency& efficiency) {
  if (ranks <= 1 || payload_bytes <= 0) return Seconds(0);
  near = std::clamp(near, 1.0, ranks);
  double rate = machine.node_link.bandwidth.value.value * efficiency.node_link;
  double step = machine.node_link.latency.value.value;
  if (near < ranks) {
    const double leaving = machine.network.bandwidth.value.value * efficiency.network *
                           (machine.network_known ? 1 : efficiency.unknown_network);
    rate = std::min(rate, near * leaving);
    // Of `near` steps one crosses the network.
    step = (machine.network.latency.value.value + (near - 1) * step) / near;
  }
  const collective::AlgorithmCost cost = collective::cost_of(
      kind, Algorithm::Ring, Bytes(static_cast<std::int64_t>(payload_bytes)), static_cast<int>(std::lround(ranks)));
  return Seconds(cost.num_steps * step + static_cast<double>(cost.sent_bytes.value) / rate);
}

}  // namespace coxswain::cost_model
