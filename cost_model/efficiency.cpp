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

constexpr std::array<const char*, 1> kFittedGroups{""};

}  // namespace

std::span<const EfficiencyTerm> efficiency_terms() { return kTerms; }

Efficiency prior_efficiency() {
  Efficiency result;
  for (const EfficiencyTerm& term : kTerms) result.*(term.value) = term.prior;
  return result;
}

Efficiency default_efficiency() { return prior_efficiency(); }

std::span<const char* const> fitted_groups() { return kFittedGroups; }

}  // namespace coxswain::cost_model
