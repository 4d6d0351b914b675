#pragma once
// Tensors by factors: the part of a tensor, and tensors from parts. Threads: pure.
#include <ATen/core/TensorBody.h>

#include <string>
#include <vector>

#include "plan/rules/rules.h"

namespace coxswain::tests {

/// Rows of one factor of `whole`: its dims read as their factors, that one narrowed.
[[nodiscard]] at::Tensor take_part(const at::Tensor& whole, const plan::TensorFactors& tensor,
                                   const plan::OpFactors& op, const plan::Part& part);
/// The inverse: parts in order.
[[nodiscard]] at::Tensor join_parts(const std::vector<at::Tensor>& parts, const plan::TensorFactors& tensor,
                                    const plan::OpFactors& op, int factor, const std::vector<std::int64_t>& whole);
/// `count` tensors that add up to `whole`.
[[nodiscard]] std::vector<at::Tensor> make_summands(const at::Tensor& whole, std::size_t count);
/// Equal within the tolerance of the coarser of two dtypes, its own and that of the inputs (exact for integers); says
/// how not.
[[nodiscard]] std::string difference(const at::Tensor& found, const at::Tensor& wanted, c10::ScalarType inputs);

/// Rows of a factor of `size` over 2 and 3 parts: nearly equal, and one row each but for the first.
[[nodiscard]] std::vector<std::vector<plan::Part>> splits_of(int factor, std::int64_t size);
[[nodiscard]] std::string sizes_text(const std::vector<plan::Part>& parts);

}  // namespace coxswain::tests
