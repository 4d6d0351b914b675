// What follows from an operator's factors: placements, gradients, arguments of a part.
#include <algorithm>

#include "common/ensure.h"
#include "plan/rules/rules.h"

namespace coxswain::plan {
namespace {

bool holds(const TensorFactors& tensor, int factor) {
  return std::any_of(tensor.dims.begin(), tensor.dims.end(), [&](const std::vector<int>& dim) {
    return std::find(dim.begin(), dim.end(), factor) != dim.end();
  });
}

void replace(std::vector<int>& factors, int factor, const std::vector<int>& pieces) {
  const auto at = std::find(factors.begin(), factors.end(), factor);
  if (at == factors.end()) return;
  const auto next = factors.erase(at);
  factors.insert(next, pieces.begin(), pieces.end());
}

std::int64_t value_of(const Rewrite& rewrite, const OpFactors& factors, std::span<const Part> parts) {
  std::int64_t product = 1;
  for (const int factor : rewrite.factors) {
    const auto part = std::find_if(parts.begin(), parts.end(), [&](const Part& p) { return p.factor == factor; });
    const std::int64_t whole = factors.factors[static_cast<std::size_t>(factor)].size;
    const Part local = part == parts.end() ? Part{factor, 0, whole} : *part;
    switch (rewrite.from) {
      case Rewrite::From::Size: product *= local.size; break;
      case Rewrite::From::First: product *= local.first; break;
      case Rewrite::From::End: product *= local.first + local.size; break;
    }
  }
  return rewrite.constant + rewrite.coefficient * product;
}

}  // namespace

OpPlacement place_shard(const OpFactors& op, int factor) {
  const Factor& split = op.factors[static_cast<std::size_t>(factor)];
  COX_ENSURE(split.kind != FactorKind::Whole, split.name);
  OpPlacement placement;
  for (const TensorFactors& input : op.inputs) {
    const bool partial = split.kind == FactorKind::Sum && input.added;
    placement.inputs.push_back(holds(input, factor) ? PlacementKind::Shard
                               : partial            ? PlacementKind::PartialSum
                                                    : PlacementKind::Replicate);
  }
  for (const TensorFactors& output : op.outputs) {
    PlacementKind kind = PlacementKind::Replicate;  // a free factor that this output does not hold: every part has it
    if (holds(output, factor))
      kind = PlacementKind::Shard;
    else if (split.kind == FactorKind::Sum)
      kind = PlacementKind::PartialSum;
    else if (split.kind == FactorKind::Max)
      kind = PlacementKind::PartialMax;
    placement.outputs.push_back(kind);
  }
  return placement;
}

OpPlacement place_partial(const OpFactors& op, std::size_t group) {
  OpPlacement placement{std::vector<PlacementKind>(op.inputs.size(), PlacementKind::Replicate),
                        std::vector<PlacementKind>(op.outputs.size(), PlacementKind::PartialSum)};
  for (const int input : op.linear[group])
    placement.inputs[static_cast<std::size_t>(input)] = PlacementKind::PartialSum;
  return placement;
}

std::optional<PlacementKind> dual(PlacementKind kind) {
  switch (kind) {
    case PlacementKind::Replicate: return PlacementKind::PartialSum;
    case PlacementKind::PartialSum: return PlacementKind::Replicate;
    case PlacementKind::Shard: return PlacementKind::Shard;
    case PlacementKind::PartialMax: return std::nullopt;
  }
  return std::nullopt;
}

OpFactors refine(const OpFactors& op, int factor, std::span<const std::int64_t> sizes) {
  OpFactors refined = op;
  const Factor whole = op.factors[static_cast<std::size_t>(factor)];
  if (whole.contiguous || sizes.size() < 2) return refined;
  std::int64_t product = 1;
  std::vector<int> pieces;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    product *= sizes[i];
    Factor piece = whole;
    piece.size = sizes[i];
    piece.name = whole.name + "." + std::to_string(i);
    if (i == 0) {
      refined.factors[static_cast<std::size_t>(factor)] = piece;
      pieces.push_back(factor);
    } else {
      pieces.push_back(static_cast<int>(refined.factors.size()));
      refined.factors.push_back(piece);
    }
  }
  COX_ENSURE(product == whole.size, whole.name, product);
  for (auto* tensors : {&refined.inputs, &refined.outputs})
    for (TensorFactors& tensor : *tensors)
      for (std::vector<int>& dim : tensor.dims) replace(dim, factor, pieces);
  for (Rewrite& rewrite : refined.rewrites) replace(rewrite.factors, factor, pieces);
  return refined;
}

model::Op localise(const model::Op& op, const OpFactors& factors, std::span<const Part> parts) {
  model::Op local = op;
  for (const Rewrite& rewrite : factors.rewrites) {
    const model::Dim value(value_of(rewrite, factors, parts));
    auto& argument = local.arguments[static_cast<std::size_t>(rewrite.argument)].value;
    auto* list = std::get_if<std::vector<model::Dim>>(&argument);
    if (rewrite.element < 0 || list == nullptr)
      argument = value;
    else
      (*list)[static_cast<std::size_t>(rewrite.element)] = value;
  }
  return local;
}

}  // namespace coxswain::plan
