#pragma once
// The constants of the recipe model: what fraction of rates, links and overlap real software reaches. Each has a prior
// from outside the fitted runs and the width of that prior; those with a width are fitted (fit_efficiency.h).
// Threads: pure values. Source: docs/cost_model.md, C40-C53.
#include <span>

namespace coxswain::cost_model {

struct Efficiency {
  // C40: matmuls, of the device's curve
  double matmul_16bit = 0.9, matmul_8bit = 0.85, matmul_4bit = 0.7, matmul_experts = 0.7;
  double cast_passes = 4;     // 16-bit passes over operands that are turned into 8 bits
  double block_scales = 1.5;  // times that for scales of blocks, 3 times for rows
  // C41: attention, of the 16-bit curve
  double attention_tuned = 0.65, attention_first = 0.45, attention_second = 0.72;
  double attention_older = 0.6;  // times that where the device is newer than the kernel
  double score_passes = 5;       // over the matrix of scores, where it exists
  // C42: bytes
  double memory = 0.8;        // of the datasheet's bandwidth
  double stream_passes = 14;  // over the stream, at norms, dropout and residual sums
  double norm_passes = 60;    // more where norms are operators of their own
  double permute_passes = 8;  // over the tokens sent to experts
  // C43: the host
  double host_seconds = 7e-4;  // to launch the forward pass of a block
  double host_experts = 3;     // times that with experts
  // C44, C45, C47, C49: links, of what collectives achieve alone
  double node_link = 1, network = 0.9, unknown_network = 0.5;
  double tensor_exposed = 0.6;  // of tensor-parallel collectives that overlap
  double all_to_all = 0.8;      // of the node link
  // C50, C51: overlap of data-parallel communication
  double gather_contention = 0.15, gradient_contention = 0.15, gradient_overlap = 0.6;
  // C52
  double step_seconds = 0.02;

  friend bool operator==(const Efficiency&, const Efficiency&) = default;
};

/// One constant: its prior and how far it may lie from it.
struct EfficiencyTerm {
  const char* name;
  double Efficiency::* value;
  double prior;
  double log_sigma;    // standard deviation of its logarithm
  const char* source;  // of the prior
};

/// All constants, in the order of the struct.
[[nodiscard]] std::span<const EfficiencyTerm> efficiency_terms();

/// The priors alone: what one expects before any run was seen.
[[nodiscard]] Efficiency prior_efficiency();

/// Fitted on the 1299 core rows of 57 groups (bench/cost_accuracy); what the planner uses.
[[nodiscard]] Efficiency default_efficiency();

/// Groups of measurements that `default_efficiency` has seen.
[[nodiscard]] std::span<const char* const> fitted_groups();

}  // namespace coxswain::cost_model
