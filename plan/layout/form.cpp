#include "plan/layout/form.h"

#include <algorithm>

namespace coxswain::plan {
namespace {

std::int64_t size_of(const OpFactors& op, int factor) { return op.factors[static_cast<std::size_t>(factor)].size; }

}  // namespace

std::optional<Form> form_of(const TensorFactors& tensor, const OpFactors& op, const FactorSplit& split) {
  std::optional<Form> form;
  for (std::size_t d = 0; d < tensor.dims.size(); ++d) {
    const std::vector<int>& factors = tensor.dims[d];
    const auto at = std::find(factors.begin(), factors.end(), split.factor);
    if (at == factors.end()) continue;
    if (form || std::find(at + 1, factors.end(), split.factor) != factors.end()) return std::nullopt;
    Split own{static_cast<int>(d), split.outer, split.extent, split.inner};
    for (auto before = factors.begin(); before != at; ++before) own.outer *= size_of(op, *before);
    for (auto behind = at + 1; behind != factors.end(); ++behind) own.inner *= size_of(op, *behind);
    form = shard(own);
  }
  return form ? form : replicate();
}

std::optional<FactorSplit> factor_of(const TensorFactors& tensor, const OpFactors& op, const Split& split) {
  if (split.dim >= static_cast<int>(tensor.dims.size())) return std::nullopt;
  std::int64_t before = 1;
  for (const int factor : tensor.dims[static_cast<std::size_t>(split.dim)]) {
    const std::int64_t size = size_of(op, factor);
    const bool begins_here = split.outer % before == 0;
    const std::int64_t outer = split.outer / before;
    if (begins_here && outer * split.extent <= size && size % (outer * split.extent) == 0) {
      const Factor& found = op.factors[static_cast<std::size_t>(factor)];
      if (found.kind == FactorKind::Whole || found.kind == FactorKind::Max) return std::nullopt;
      if (found.contiguous && outer != 1) return std::nullopt;
      const FactorSplit result{factor, outer, split.extent, size / (outer * split.extent)};
      const auto form = form_of(tensor, op, result);
      if (form && *form == shard(split)) return result;
    }
    before *= size;
  }
  return std::nullopt;
}

Cut::Run part_of_extent(std::int64_t extent, int size, int index) {
  const std::int64_t least = extent / size, more = extent % size;
  return {index * least + std::min<std::int64_t>(index, more), least + (index < more ? 1 : 0)};
}

// The member's rows in two nearly equal runs: fronts stand one after another, backs behind them in reverse order.
std::vector<Cut::Run> runs_of_extent(std::int64_t extent, int size, int index, int runs) {
  if (runs == 1) return {part_of_extent(extent, size, index)};
  std::int64_t before = 0, fronts = 0, behind = 0;
  for (int member = 0; member < size; ++member) {
    const std::int64_t rows = part_of_extent(extent, size, member).size, front = (rows + 1) / 2;
    fronts += front;
    if (member < index) before += front;
    if (member > index) behind += rows - front;
  }
  const std::int64_t own = part_of_extent(extent, size, index).size, front = (own + 1) / 2;
  return {{before, front}, {fronts + behind, own - front}};
}

std::int64_t total_rows(const std::vector<Cut::Run>& runs) {
  std::int64_t total = 0;
  for (const Cut::Run& run : runs) total += run.size;
  return total;
}

std::vector<Cut::Run> runs_of_part(const std::vector<Cut::Run>& runs, const std::vector<Cut::Run>& part) {
  std::vector<Cut::Run> result;
  for (const Cut::Run& wanted : part) {
    std::int64_t held = 0;  // rows of the runs before
    for (const Cut::Run& run : runs) {
      const std::int64_t first = std::max(wanted.first, held);
      const std::int64_t end = std::min(wanted.first + wanted.size, held + run.size);
      if (first < end) result.push_back({run.first + first - held, end - first});
      held += run.size;
    }
  }
  const std::int64_t end = result.empty() ? 0 : result.back().first + result.back().size;
  result.resize(runs.size() + part.size() - 1, {end, 0});
  return result;
}

}  // namespace coxswain::plan
