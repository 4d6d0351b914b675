#include "planner/look_order.h"

#include <algorithm>
#include <bit>

namespace coxswain::planner {
namespace {

/// Equal for about as many. Of a few micro-batches each one more is told apart: what hides behind the work of one may
/// not hide behind that of a smaller one.
int about(std::int64_t count) {
  constexpr std::int64_t kFew = 8;
  return static_cast<int>(count <= kFew ? count : kFew + std::bit_width(static_cast<std::uint64_t>(count)));
}

}  // namespace

LookOrder::LookOrder(const std::vector<Task>& tasks, bool by_count) {
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    const Combination& one = tasks[i].combination;
    Group& group = groups_[{one.group, static_cast<int>(one.schedule),
                            std::bit_width(static_cast<unsigned>(one.max_stages)), by_count ? about(one.count) : 0}];
    group.tasks.push_back(i);
    group_of_.push_back(&group);
    guesses_.push_back(tasks[i].guess);
  }
  for (auto& [key, group] : groups_) {
    std::stable_sort(group.tasks.begin(), group.tasks.end(),
                     [&](std::size_t a, std::size_t b) { return guesses_[a] < guesses_[b]; });
  }
}

std::vector<std::size_t> LookOrder::next(std::size_t most, Cost best) {
  std::vector<std::pair<double, Group*>> order;
  for (auto& [key, group] : groups_) {
    if (group.done == group.tasks.size()) continue;
    const double expected = static_cast<double>(guesses_[group.tasks[group.done]]) * group.ratio;
    if (best == kNoCost || expected < static_cast<double>(best)) order.emplace_back(expected, &group);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::size_t> result;
  for (std::size_t i = 0; i < std::min(most, order.size()); ++i)
    result.push_back(order[i].second->tasks[order[i].second->done++]);
  return result;
}

void LookOrder::saw(std::size_t task, Cost look) {
  constexpr double kMisfitPenalty = 1.1;
  Group& group = *group_of_[task];
  if (look == kNoCost)
    group.ratio *= kMisfitPenalty;
  else
    group.ratio = std::max(1.0, static_cast<double>(look) / static_cast<double>(std::max<Cost>(1, guesses_[task])));
}

}  // namespace coxswain::planner
