#include "plan/rules/rules.h"

#include <array>
#include <map>

#include "plan/rules/families.h"
#include "plan/rules/notation.h"

namespace coxswain::plan {
namespace {

std::vector<ShardRule> all_rules() {
  std::vector<ShardRule> all;
  for (const auto& family : {pointwise_rules(), product_rules(), reduction_rules(), normalisation_rules(), loss_rules(),
                             view_rules(), copy_rules(), index_rules(), convolution_rules(), factory_rules()})
    all.insert(all.end(), family.begin(), family.end());
  return all;
}

std::string dims_text(const OpFactors& op, const TensorFactors& tensor) {
  std::string text = "[";
  for (const std::vector<int>& dim : tensor.dims) {
    if (text.size() > 1) text += ' ';
    std::string product;
    for (const int factor : dim)
      product += (product.empty() ? "" : " ") + op.factors[static_cast<std::size_t>(factor)].name;
    text += dim.empty() ? "1" : dim.size() == 1 ? product : "(" + product + ")";
  }
  return text + "]";
}

std::string kind_text(const Factor& factor) {
  if (factor.form == PartForm::Scaled) return "scaled ";
  if (factor.form == PartForm::Masked) return "masked ";
  if (factor.kind == FactorKind::Free && factor.contiguous) return "offset ";
  switch (factor.kind) {
    case FactorKind::Free: return "";
    case FactorKind::Sum: return "sum ";
    case FactorKind::Max: return "max ";
    case FactorKind::Whole: return "whole ";
  }
  return "";
}

}  // namespace

std::string_view to_text(RuleFamily family) {
  switch (family) {
    case RuleFamily::Pointwise: return "pointwise";
    case RuleFamily::Matmul: return "matmul-like";
    case RuleFamily::Attention: return "attention";
    case RuleFamily::Reduction: return "reduction";
    case RuleFamily::Normalisation: return "normalisation";
    case RuleFamily::Loss: return "softmax and loss";
    case RuleFamily::View: return "view";
    case RuleFamily::Index: return "index, gather, embedding";
    case RuleFamily::Convolution: return "convolution and pooling";
    case RuleFamily::Factory: return "factory";
  }
  return "";
}

std::span<const ShardRule> shard_rules() {
  static const std::vector<ShardRule> rules = all_rules();
  return rules;
}

const ShardRule* find_shard_rule(std::string_view target) {
  static const std::map<std::string_view, const ShardRule*> by_target = [] {
    std::map<std::string_view, const ShardRule*> index;
    for (const ShardRule& rule : shard_rules()) index.emplace(rule.target, &rule);
    return index;
  }();
  auto found = by_target.find(target);
  if (found == by_target.end()) found = by_target.find(target.substr(0, target.rfind('.')));
  return found == by_target.end() ? nullptr : found->second;
}

std::optional<OpFactors> bind_rule(const ShardRule& rule, const model::ModelGraph& graph, const model::Op& op,
                                   std::int64_t samples) {
  const OpReader reader(graph, op, samples);
  return rule.bind == nullptr ? bind_notation(reader, rule) : rule.bind(reader, rule);
}

std::optional<OpFactors> bind_rule(const model::ModelGraph& graph, const model::Op& op, std::int64_t samples) {
  const ShardRule* rule = find_shard_rule(op.target);
  return rule == nullptr ? std::nullopt : bind_rule(*rule, graph, op, samples);
}

std::string to_text(const OpFactors& op) {
  std::string text;
  for (const TensorFactors& tensor : op.inputs) text += (text.empty() ? "" : ", ") + dims_text(op, tensor);
  text += text.empty() ? "->" : " ->";
  for (std::size_t i = 0; i < op.outputs.size(); ++i) text += (i == 0 ? " " : ", ") + dims_text(op, op.outputs[i]);
  for (const Factor& factor : op.factors)
    if (const std::string kind = kind_text(factor); !kind.empty()) text += "; " + kind + factor.name;
  return text;
}

}  // namespace coxswain::plan
