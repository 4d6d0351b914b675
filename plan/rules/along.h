#pragma once
// Rules about the dims that an argument names. Private to plan/rules. Threads: pure.
#include "plan/rules/notation.h"

namespace coxswain::plan {

/// Dims named by `dim` (all where it is absent, None or empty) are factors r, the others b. Outputs lose the r dims, or
/// keep them with size 1.
[[nodiscard]] std::optional<OpFactors> bind_reduction(const OpReader& op, const ShardRule& rule);
/// The dim (or dims) named by `dim` are factors r in the first input and new whole factors t in the outputs; others b.
[[nodiscard]] std::optional<OpFactors> bind_along(const OpReader& op, const ShardRule& rule);

}  // namespace coxswain::plan
