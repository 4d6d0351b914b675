#pragma once
// The tables behind rules.h, one file per family. Private to plan/rules. Threads: constant data.
#include <span>

#include "plan/rules/rules.h"

namespace coxswain::plan {

[[nodiscard]] std::span<const ShardRule> pointwise_rules();
[[nodiscard]] std::span<const ShardRule> product_rules();      // matmul-like, attention
[[nodiscard]] std::span<const ShardRule> convolution_rules();  // and pooling
[[nodiscard]] std::span<const ShardRule> reduction_rules();
[[nodiscard]] std::span<const ShardRule> normalisation_rules();
[[nodiscard]] std::span<const ShardRule> loss_rules();  // and softmax
[[nodiscard]] std::span<const ShardRule> view_rules();
[[nodiscard]] std::span<const ShardRule> index_rules();
[[nodiscard]] std::span<const ShardRule> copy_rules();  // cat, stack, pad, repeat: between views and indexing
[[nodiscard]] std::span<const ShardRule> factory_rules();

}  // namespace coxswain::plan
