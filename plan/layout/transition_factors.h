#pragma once
// Factors of the operators that an earlier step of the layout wrote (transitions, parts of operators), so that a later
// step can split what they move. Private to plan/layout. Threads: pure.
#include <optional>

#include "plan/rules/rules.h"

namespace coxswain::plan {

/// Absent: not such an operator, or it must stay whole.
[[nodiscard]] std::optional<OpFactors> bind_transition(const model::ModelGraph& graph, const model::Op& op);

}  // namespace coxswain::plan
