#pragma once
// What is proved, a table a family. Threads: constant data.
#include <span>

#include "tests/plan/rules/prove.h"

namespace coxswain::tests {

[[nodiscard]] std::span<const RuleCase> pointwise_cases();
[[nodiscard]] std::span<const RuleCase> product_cases();
[[nodiscard]] std::span<const RuleCase> convolution_cases();
[[nodiscard]] std::span<const RuleCase> reduction_cases();
[[nodiscard]] std::span<const RuleCase> normalisation_cases();
[[nodiscard]] std::span<const RuleCase> loss_cases();
[[nodiscard]] std::span<const RuleCase> view_cases();
[[nodiscard]] std::span<const RuleCase> copy_cases();
[[nodiscard]] std::span<const RuleCase> index_cases();
[[nodiscard]] std::span<const RuleCase> factory_cases();

}  // namespace coxswain::tests
