#pragma once
// A recipe is what a published measurement states of a run: a transformer's shape, one choice of parallelism for all of
// its blocks, and the machine. It is priced without a model graph (recipe_time.h), so that a plan can be compared with
// runs of others and the model's constants can be fitted to them (fit_efficiency.h). Called by bench/cost_accuracy and,
// for hardware without a profile, by the planner. Threads: pure values. Source: docs/cost_model.md, C40-C53.
#include <cstdint>

#include "cluster/resource_graph.h"
#include "common/units.h"

namespace coxswain::cost_model {

/// A decoder of equal blocks: attention, then an MLP or experts.
struct TransformerShape {
  double num_blocks = 1, hidden = 1, heads = 1, kv_heads = 1;
  double head_size = 0;     // 0: hidden / heads
  double ffn_hidden = 1;    // of one expert where there are experts
  double mlp_matrices = 2;  // 3: gated (SwiGLU)
  double vocabulary = 1, sequence = 1;
  double experts = 0, experts_per_token = 0, shared_experts = 0;
  double dense_blocks = 0, dense_ffn_hidden = 0;  // blocks of a model with experts that have an MLP instead
  double query_rank = 0, kv_rank = 0;             // latent attention: queries, keys and values through a low rank
  double attended_fraction = 1;                   // of the causal half: below 1 with windows
  double prediction_heads = 1;                    // above 1: multi-token prediction, one more block and head each
};

enum class AttentionKernel {
  ExplicitScores,  // the matrix of scores is written and read
  FlashFirst,      // fused, first generation
  FlashSecond,     // fused, second generation
  Tuned            // fused, written for the device
};
enum class NumberFormat { Bits16, Bits8, Bits8Blocks, Bits8Rows, Bits4 };  // of the blocks' matmuls
enum class RecipeSchedule { OneForwardOneBackward, ZeroBubbleFirst, ZeroBubbleSecond };
enum class RecipeRecompute {
  None,
  Pointwise,  // norms and activation functions
  Attention,  // scores and their product
  Alternate,  // every second matmul and all pointwise operators
  Full
};

/// Degrees multiply to the number of devices: tensor x pipeline x data x context; experts lie inside data x tensor.
struct Recipe {
  double tensor = 1, pipeline = 1, data = 1, context = 1, expert = 1;
  double expert_tensor = 1;  // shards of one expert
  double chunks = 1;         // of a pipeline rank: interleaved 1F1B
  double micro_batch = 1;    // samples of one replica
  double num_micro_batches = 1;
  int zero_stage = 0;
  bool sequence_parallel = false;
  RecipeSchedule schedule = RecipeSchedule::OneForwardOneBackward;
  RecipeRecompute recompute = RecipeRecompute::None;
  double recomputed_fraction = 1;  // of the blocks
  NumberFormat format = NumberFormat::Bits16;
  AttentionKernel attention = AttentionKernel::Tuned;
  bool overlaps_gradients = false;   // reductions and gathers of parameters run beside the passes
  bool overlaps_tensor = false;      // tensor-parallel collectives run beside matmuls, in pieces
  bool asynchronous_tensor = false;  // the same, by the compiler
  bool overlaps_experts = false;     // all_to_all runs beside another micro-batch
  bool narrow_gradients = false;     // sharded gradients are reduced in 16 bits
  bool captured = false;             // launched as graphs
  bool compiled = false;             // pointwise operators are fused by a compiler
  bool fused_norm = true;
  bool grouped_experts = true;  // one launch for all experts of a device
  bool frozen_weights = false;  // small adapters are trained (LoRA), whose own cost is left out
};

/// One device of many, and what joins them.
struct RecipeMachine {
  cluster::DeviceClass device;
  FlopPerSecond best_8bit{0}, best_4bit{0};  // best matmul rates; 0: as with 16 bits
  bool after_ampere = false;                 // newer than what the flash kernels of AttentionKernel were written for
  cluster::LinkClass node_link;              // as collectives achieve it
  double domain_devices = 8;                 // joined by `node_link`
  cluster::LinkClass network;                // of one device, as collectives achieve it
  bool network_known = true;                 // false: taken from a system of that time
};

/// `graph`'s first device class, its node's link (or that of the rack or pod that has the same link) and the last tier,
/// in proportion to the devices that share its cards. Narrow rates: measured where known, else twice (four times) the
/// 16-bit one for devices that have them.
/// Requires: the graph is valid. Where it has one node, `network` is the node's link.
[[nodiscard]] RecipeMachine recipe_machine(const cluster::ResourceGraph& graph);

}  // namespace coxswain::cost_model
