#pragma once
// C38: what the stages of a combination can hold and do, one at a time. Dearer than the bounds of
// combination_bounds.h, so it is asked only of the combinations that those leave in question. Called by the search of
// large clusters. Threads: one per object, which may start more. Source: docs/cost_model.md, C38.
#include <map>
#include <tuple>
#include <vector>

#include "planner/search.h"

namespace coxswain::planner {

class StageBounds {
 public:
  explicit StageBounds(const SearchSpace& space);

  /// What is known without a closer look: one.bound, or one.chunked_bound where chunks are tried.
  [[nodiscard]] Cost coarse(const Combination& one) const;
  /// For each: no plan of it steps faster, whatever its schedule. At most `most` is told, which never rises from call
  /// to call; never less than what is known without.
  [[nodiscard]] std::vector<Cost> bounds(const std::vector<const Combination*>& all, Cost most, const Request& request);

  /// So many were computed.
  [[nodiscard]] std::size_t num_made() const { return made_.size(); }

 private:
  using Key = std::tuple<const void*, std::int64_t, bool>;  // compositions, micro-batch, spread
  [[nodiscard]] static Key key_of(const Combination& one);
  [[nodiscard]] Cost compute(const Combination& one, Cost most) const;
  /// Of a block in a step on a stage of this composition.
  [[nodiscard]] Cost least_work(const Combination& one, std::size_t composition) const;

  const SearchSpace& space_;
  int first_ = 0, end_ = 0;  // the longest run of blocks of one signature
  std::map<Key, Cost> made_;
};

}  // namespace coxswain::planner
