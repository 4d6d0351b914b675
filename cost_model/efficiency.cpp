#include "cost_model/efficiency.h"

#include <array>

namespace coxswain::cost_model {
namespace {

// The source of each prior lies outside the runs that are fitted: papers on kernels, tables of collectives, counts.
constexpr std::array<EfficiencyTerm, 26> kTerms{{
    {"matmul_16bit", &Efficiency::matmul_16bit, 0.9, 0.1, "long runs at lower clocks than a short benchmark's"},
    {"matmul_8bit", &Efficiency::matmul_8bit, 0.85, 0.15, "as 16 bits, with scaling"},
    {"matmul_4bit", &Efficiency::matmul_4bit, 0.7, 0.2, "against datasheet ratios; a part stays in 8 bits"},
    {"matmul_experts", &Efficiency::matmul_experts, 0.7, 0.2, "grouped products of unequal sizes"},
    {"cast_passes", &Efficiency::cast_passes, 4, 0.4, "largest value, cast and transpose: read, read, write, write"},
    {"block_scales", &Efficiency::block_scales, 1.5, 0.3, "casts along rows and along columns"},
    {"attention_tuned", &Efficiency::attention_tuned, 0.65, 0.2, "FlashAttention-3 paper: up to 0.75 of the H100 peak"},
    {"attention_first", &Efficiency::attention_first, 0.45, 0.2, "FlashAttention-2 paper: 25 to 40 % of the A100 peak"},
    {"attention_second", &Efficiency::attention_second, 0.72, 0.2, "the same: 50 to 73 % of the A100 peak"},
    {"attention_older", &Efficiency::attention_older, 0.6, 0.2, "FlashAttention-3 paper: 35 % of the H100 peak"},
    {"score_passes", &Efficiency::score_passes, 5, 0.4, "scores, softmax, dropout: written or read in turn"},
    {"memory", &Efficiency::memory, 0.8, 0.15, "STREAM-like kernels on large arrays"},
    {"stream_passes", &Efficiency::stream_passes, 14, 0.3, "two norms, two dropouts, two sums: read and write"},
    {"norm_passes", &Efficiency::norm_passes, 60, 0.5, "two norms of five operators in float32"},
    {"permute_passes", &Efficiency::permute_passes, 8, 0.4, "sort out, send, receive and sort back: read and write"},
    {"host_seconds", &Efficiency::host_seconds, 7e-4, 0.4, "40 operators at 15 to 20 us in Python"},
    {"host_experts", &Efficiency::host_experts, 3, 0.4, "router, permutation and one more MLP's operators"},
    {"node_link", &Efficiency::node_link, 1, 0.15, "by definition of the catalogue's fraction"},
    {"network", &Efficiency::network, 0.9, 0.2, "the same, less contention"},
    {"unknown_network", &Efficiency::unknown_network, 0.5, 0.4, "clouds had half the cards of the reference systems"},
    {"tensor_exposed", &Efficiency::tensor_exposed, 0.6, 0.3, "half hidden, some slowed down"},
    {"all_to_all", &Efficiency::all_to_all, 0.8, 0.3, "all_to_all busbw over all_reduce's, 8 A100 (Galvatron profile)"},
    {"gather_contention", &Efficiency::gather_contention, 0.15, 0.5, "multiprocessors and memory that copies take"},
    {"gradient_contention", &Efficiency::gradient_contention, 0.15, 0.5, "the same"},
    {"gradient_overlap", &Efficiency::gradient_overlap, 0.6, 0.4, "a backward pass is two thirds of both"},
    {"step_seconds", &Efficiency::step_seconds, 0.02, 0.5, "reading a batch, clipping, logging"},
}};

constexpr std::array<const char*, 57> kFittedGroups{
    "aleph-13B-2048",
    "aleph-30B-2048",
    "bridge-deepseek-v3-B300",
    "bridge-deepseek-v3-GB200",
    "bridge-gpt-oss-120b-B200",
    "bridge-gpt-oss-120b-GB300",
    "bridge-gpt-oss-120b-H100-80GB",
    "bridge-llama3-405b-B200",
    "bridge-llama3-405b-GB200",
    "bridge-llama3-70b-GB300",
    "bridge-llama3-70b-H100-80GB",
    "bridge-llama3-8b-B200",
    "bridge-llama3-8b-GB200",
    "bridge-llama3-8b-H100-80GB",
    "bridge-qwen3-235b-a22b-B200",
    "bridge-qwen3-235b-a22b-B300",
    "bridge-qwen3-235b-a22b-GB300",
    "bridge-qwen3-30b-a3b-B300",
    "bridge-qwen3-30b-a3b-GB200",
    "bridge-qwen3-30b-a3b-H100-80GB",
    "dgxc-GPT3-175B-H100-80GB",
    "dgxc-Grok-1-314B-GB200",
    "dgxc-Grok-1-314B-H100-80GB",
    "dgxc-Grok-1-314B-proxy-16L-H100-80GB",
    "dgxc-Grok-1-314B-proxy-2L-H100-80GB",
    "dgxc-Grok-1-314B-proxy-32L-H100-80GB",
    "dgxc-Grok-1-314B-proxy-4L-H100-80GB",
    "dgxc-Grok-1-314B-proxy-8L-H100-80GB",
    "dgxc-Llama3.1-405B-GB200",
    "dgxc-Llama3.1-405B-proxy-21L-H100-80GB",
    "dgxc-Llama3.1-405B-proxy-30L-H100-80GB",
    "dgxc-Llama3.1-405B-proxy-42L-H100-80GB",
    "dgxc-Llama3.1-405B-proxy-62L-H100-80GB",
    "dgxc-Llama3.1-405B-proxy-7L-H100-80GB",
    "dgxc-Llama3.1-405B-proxy-8L-H100-80GB",
    "dgxc-Llama3.1-8B-H100-80GB",
    "dgxc-Nemotron4-340B-H100-80GB",
    "mlperf-gpt3-H100-80GB",
    "mlperf-llama31_405b-B200",
    "mlperf-llama31_405b-GB300",
    "mlperf-llama31_405b-H200",
    "mlperf-llama31_8b-B200",
    "mlperf-llama31_8b-B300",
    "mlperf-llama31_8b-GB200",
    "mlperf-llama31_8b-H100-80GB",
    "mosaic-A100-40GB-bf16",
    "mosaic-H100-80GB-bf16",
    "sc21-table1",
    "torchtitan-h100",
    "vtrain-multi-18.4B",
    "vtrain-multi-39.1B",
    "vtrain-single-h1024L12",
    "vtrain-single-h1024L24",
    "vtrain-single-h2048L16",
    "vtrain-single-h2048L20",
    "yafsdp",
    "zerobubble",
};

}  // namespace

std::span<const EfficiencyTerm> efficiency_terms() { return kTerms; }

Efficiency prior_efficiency() {
  Efficiency result;
  for (const EfficiencyTerm& term : kTerms) result.*(term.value) = term.prior;
  return result;
}

Efficiency default_efficiency() {
  Efficiency result;
  result.matmul_16bit = 0.8456;
  result.matmul_8bit = 0.8612;
  result.matmul_4bit = 0.6705;
  result.matmul_experts = 0.7829;
  result.cast_passes = 2.958;
  result.block_scales = 1.248;
  result.attention_tuned = 0.6027;
  result.attention_first = 0.4107;
  result.attention_second = 0.6774;
  result.attention_older = 0.5422;
  result.score_passes = 3.807;
  result.memory = 0.8622;
  result.stream_passes = 14.04;
  result.norm_passes = 73.85;
  result.permute_passes = 6.026;
  result.host_seconds = 0.0008753;
  result.host_experts = 4.623;
  result.node_link = 1.046;
  result.network = 0.8943;
  result.unknown_network = 0.3969;
  result.tensor_exposed = 0.5038;
  result.all_to_all = 0.9953;
  result.gather_contention = 0.1584;
  result.gradient_contention = 0.1997;
  result.gradient_overlap = 0.5782;
  result.step_seconds = 0.02136;
  return result;
}

std::span<const char* const> fitted_groups() { return kFittedGroups; }

}  // namespace coxswain::cost_model
