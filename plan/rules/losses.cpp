// Softmax and losses. A cross entropy over a vocabulary that is split is another operator (coxswain::cross_entropy,
// plan/layout/local_graph.h); here the classes stay whole.
#include "plan/rules/along.h"
#include "plan/rules/families.h"

namespace coxswain::plan {
namespace {

using enum RuleFamily;

enum class LossReduction { None = 0, Mean = 1, Sum = 2 };

LossReduction reduction_of(const OpReader& op) {
  return static_cast<LossReduction>(op.integer("reduction").value_or(1));
}

// One number an element; then their sum or mean.
std::optional<OpFactors> bind_elementwise(const OpReader& op, const ShardRule& rule) {
  ShardRule own = rule;
  switch (reduction_of(op)) {
    case LossReduction::None: own.notation = "[d..], [d..] -> [d..]"; return bind_pointwise(op, own);
    case LossReduction::Mean: own.notation = "[d..], [d..], [d..]?, [d..]? -> []; scaled d"; break;
    case LossReduction::Sum: own.notation = "[d..], [d..], [d..]?, [d..]? -> []; sum d"; break;
  }
  return bind_notation(op, own);
}

// Classes stand second (first without samples). A mean divides by a count that depends on the targets.
std::optional<OpFactors> bind_classes(const OpReader& op, const ShardRule& rule) {
  const int input = op.input("self"), target = op.input("target"), weight = op.input("weight");
  if (input != 0 || target < 0) return std::nullopt;
  const Sizes& sizes = op.sizes(0);
  const bool probabilities = op.is_floating(op.inputs()[static_cast<std::size_t>(target)]);
  const std::size_t classes = sizes.size() > 1 ? 1 : 0;
  const LossReduction reduction = reduction_of(op);
  Assembly assembly(op, rule);
  std::vector<std::vector<int>> dims, rows;
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    const std::string name = "n" + std::to_string(d);
    const bool whole = d == classes || reduction == LossReduction::Mean;
    dims.push_back(d == classes ? assembly.whole("c", sizes[d])
                   : whole      ? assembly.whole(name, sizes[d])
                                : assembly.factor(reduction == LossReduction::None ? "free" : name, sizes[d]));
    if (d != classes) rows.push_back(dims.back());
  }
  assembly.set_input(0, dims);
  assembly.set_input(target, probabilities ? dims : rows);
  if (weight >= 0) assembly.set_input(weight, {dims[classes]});
  assembly.set_outputs(reduction == LossReduction::None ? rows : std::vector<std::vector<int>>{});
  return assembly.finish();
}

constexpr std::string_view kElements = "[d..], [d..] -> [] or [d..]; sum d";
constexpr std::string_view kWeighted = "[d..], [d..], [d..]?, [d..]? -> [] or [d..]; sum d";
constexpr std::string_view kClasses = "[n.. c s..], [n.. s..], [c]? -> [] or [n.. s..]; sum n; whole c";
constexpr std::string_view kSoftmax = "[a.. r b..] -> [a.. r b..]; whole r";

constexpr ShardRule kRules[] = {
    {"aten::softmax", Loss, kSoftmax, bind_along},
    {"aten::_softmax", Loss, kSoftmax, bind_along},
    {"aten::log_softmax", Loss, kSoftmax, bind_along},
    {"aten::_log_softmax", Loss, kSoftmax, bind_along},
    {"aten::cross_entropy_loss", Loss, kClasses, bind_classes},
    {"aten::nll_loss", Loss, kClasses, bind_classes},
    {"aten::nll_loss_nd", Loss, kClasses, bind_classes},
    {"aten::nll_loss2d", Loss, kClasses, bind_classes},
    {"aten::mse_loss", Loss, kElements, bind_elementwise},
    {"aten::l1_loss", Loss, kElements, bind_elementwise},
    {"aten::smooth_l1_loss", Loss, kElements, bind_elementwise},
    {"aten::huber_loss", Loss, kElements, bind_elementwise},
    {"aten::kl_div", Loss, kElements, bind_elementwise},
    {"aten::binary_cross_entropy", Loss, kWeighted, bind_elementwise},
    {"aten::binary_cross_entropy_with_logits", Loss, kWeighted, bind_elementwise},
};

}  // namespace

std::span<const ShardRule> loss_rules() { return kRules; }

}  // namespace coxswain::plan
