#include "plan/layout/held_rows.h"

#include <numeric>

#include "common/ensure.h"

namespace coxswain::plan {

std::vector<std::vector<std::int64_t>> held_rows(std::span<const std::int64_t> whole, std::span<const Cut> cuts) {
  std::vector<std::vector<std::int64_t>> rows;
  for (const std::int64_t size : whole) {
    rows.emplace_back(static_cast<std::size_t>(size));
    std::iota(rows.back().begin(), rows.back().end(), 0);
  }
  for (const Cut& cut : cuts) {
    COX_ENSURE(cut.dim >= 0 && static_cast<std::size_t>(cut.dim) < rows.size(), cut.dim);
    auto& of_dim = rows[static_cast<std::size_t>(cut.dim)];
    COX_ENSURE(static_cast<std::int64_t>(of_dim.size()) == cut.outer * cut.extent * cut.inner, of_dim.size(), cut.outer,
               cut.extent, cut.inner);
    std::vector<std::int64_t> held;
    for (std::int64_t o = 0; o < cut.outer; ++o) {
      for (const Cut::Run& run : cut.runs) {
        const auto first = of_dim.begin() + (o * cut.extent + run.first) * cut.inner;
        held.insert(held.end(), first, first + run.size * cut.inner);
      }
    }
    of_dim = std::move(held);
  }
  return rows;
}

std::vector<Cut::Run> runs_of_rows(std::span<const std::int64_t> rows) {
  std::vector<Cut::Run> runs;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (i > 0 && rows[i] == rows[i - 1] + 1) {
      ++runs.back().size;
    } else {
      runs.push_back({rows[i], 1});
    }
  }
  return runs;
}

}  // namespace coxswain::plan
