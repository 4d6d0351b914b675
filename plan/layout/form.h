#pragma once
// How a value lies over one step of the mesh (an axis, or several as one): forms, and how the dim of one tensor that an
// operator splits maps to those of its others. Private to plan/layout. Threads: pure values.
#include <cstdint>
#include <optional>
#include <vector>

#include "plan/layout/local_graph.h"
#include "plan/rules/rules.h"

namespace coxswain::plan {

/// The dim reads as (outer, extent, inner); `extent` is split.
struct Split {
  int dim = 0;
  std::int64_t outer = 1, extent = 1, inner = 1;
  friend bool operator==(const Split&, const Split&) = default;
};

struct Form {
  enum class Kind { Replicate, Partial, Shard } kind = Kind::Replicate;
  Split split;  // Shard
  friend bool operator==(const Form&, const Form&) = default;
};
inline Form replicate() { return {}; }
inline Form partial() { return {Form::Kind::Partial, {}}; }
inline Form shard(const Split& split) { return {Form::Kind::Shard, split}; }

/// A factor of an operator, read in the same way.
struct FactorSplit {
  int factor = 0;
  std::int64_t outer = 1, extent = 1, inner = 1;
  friend bool operator==(const FactorSplit&, const FactorSplit&) = default;
};

/// How `tensor` is split where the operator's factor is; Replicate where it does not hold the factor. Absent: it holds
/// the factor in several dims.
[[nodiscard]] std::optional<Form> form_of(const TensorFactors& tensor, const OpFactors& op, const FactorSplit& split);
/// The operator's split that splits `tensor` so. Absent: no factor alone, one that stays whole, or rows that must lie
/// in one run and would not.
[[nodiscard]] std::optional<FactorSplit> factor_of(const TensorFactors& tensor, const OpFactors& op,
                                                   const Split& split);

/// Rows of `extent` that member `index` of `size` holds: as equal as can be, the first ones more.
[[nodiscard]] Cut::Run part_of_extent(std::int64_t extent, int size, int index);
/// The same number of rows in `runs` runs, 1 or 2. Two: of 2 x size nearly equal pieces the index-th from the front and
/// the index-th from the back, so that all members see as much under causality. A run may be empty.
[[nodiscard]] std::vector<Cut::Run> runs_of_extent(std::int64_t extent, int size, int index, int runs);
[[nodiscard]] std::int64_t total_rows(const std::vector<Cut::Run>& runs);
/// Rows `part` of what `runs` hold, as rows of the whole: part.size() + runs.size() - 1 runs, the last ones may be
/// empty.
[[nodiscard]] std::vector<Cut::Run> runs_of_part(const std::vector<Cut::Run>& runs, const std::vector<Cut::Run>& part);

}  // namespace coxswain::plan
