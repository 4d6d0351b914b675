#pragma once
// Products of rows with the matrices of the experts that a router chose for them: rows are grouped by expert, each
// expert's matrix is read once and none is gathered, so memory is that of the rows (the pure ATen form gathers a matrix
// per row). Called by op_call; registered for the dispatcher as
//   coxswain::expert_bmm(Tensor self, Tensor table, Tensor indices, bool by_rows) -> Tensor
//   transformers::grouped_mm_fallback(Tensor input, Tensor weight, Tensor offs) -> Tensor
// Threads: as libtorch, over experts. Private to worker/engine. Source: Gale et al. 2022 (arXiv 2211.15841);
// DESIGN 3.7.
#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <vector>

namespace coxswain::worker {

/// Which rows belong to which expert.
struct ExpertGroups {
  std::vector<std::int64_t> order;    // rows, expert after expert, ascending inside one
  std::vector<std::int64_t> offsets;  // expert e has order[offsets[e]] up to order[offsets[e + 1]]
  bool sorted = false;                // rows stand in this order already
  [[nodiscard]] std::int64_t num_experts() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  [[nodiscard]] std::int64_t rows_of(std::int64_t expert) const { return offsets[expert + 1] - offsets[expert]; }
};
/// `indices`: int64, an expert per row. Throws for one that is no expert.
[[nodiscard]] ExpertGroups group_by_expert(const at::Tensor& indices, std::int64_t num_experts);

/// (rows, in), table (experts, out, in), indices (rows) -> (rows, out). Differentiable: input and table.
[[nodiscard]] at::Tensor expert_linear(const at::Tensor& input, const at::Tensor& table, const at::Tensor& indices);

/// As bmm with table[indices] gathered: self (rows, in, 1) and table (experts, out, in) -> (rows, out, 1); by_rows:
/// self (rows, 1, in) and table (experts, in, out) -> (rows, 1, out).
[[nodiscard]] at::Tensor expert_bmm(const at::Tensor& self, const at::Tensor& table, const at::Tensor& indices,
                                    bool by_rows);

/// What transformers' default experts call: input (rows, in) in groups that end at `ends` (experts; int32 or int64,
/// ascending), weight (experts, in, out) -> (rows, out); rows past the last group give 0.
[[nodiscard]] at::Tensor grouped_mm(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& ends);

/// Makes the two operators known to libtorch's dispatcher; once a process, later calls do nothing.
void register_expert_operators();

}  // namespace coxswain::worker
