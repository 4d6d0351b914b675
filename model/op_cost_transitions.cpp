// Operators of local graphs (plan/layout): changes of a placement and parts of operators. Collectives are priced by
// what they send, so they only count as storage here. What each keeps is the engine's (worker/engine: transitions,
// parallel_cross_entropy, ring_attention).
#include "model/op_rules.h"

namespace coxswain::model {
namespace {

using enum OpClass;

constexpr OpRule transition(std::string_view target) { return {target, Transition, Layout::Dense}; }

constexpr OpRule kRules[] = {
    transition("coxswain::all_reduce"),
    transition("coxswain::all_gather"),
    transition("coxswain::reduce_scatter"),
    transition("coxswain::all_to_all"),
    // Local: copies.
    {"coxswain::slice", Index, Layout::Dense},
    {"coxswain::to_partial", Index, Layout::Dense},
    {"coxswain::local_index", Pointwise, Layout::Dense},
    {"coxswain::mask_rows", Pointwise, Layout::Dense, {{{"index"}}}},
    {"coxswain::cross_entropy", Softmax, Layout::Dense, {{{"self"}, {"target"}}}, FlopRule::None, Hidden::RowStatistic},
    {"coxswain::ring_attention",
     Attention,
     Layout::Attention,
     {{{"query"}, {"key"}, {"value"}}},
     FlopRule::Attention,
     Hidden::Attention},
};

}  // namespace

std::span<const OpRule> transition_rules() { return kRules; }

}  // namespace coxswain::model
