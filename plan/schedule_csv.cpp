// Writes PyTorch's schedule CSV, computation only: one line a stage, one cell a unit of time, "1B0" = part 1, backward,
// micro-batch 0. Without chunks a stage's part is its own number.
#include <algorithm>
#include <map>

#include "common/ensure.h"
#include "plan/derive.h"

namespace coxswain::plan {
namespace {

/// Gives every action the first unit of time after what it needs: its stage's previous action, and the same micro-batch
/// in the part before (forward) or after (backward).
class Timeline {
 public:
  Timeline(const Plan& plan, std::vector<std::vector<Action>> stages)
      : plan_(plan), stages_(std::move(stages)), next_(stages_.size(), 0), free_(stages_.size(), 0) {
    bool moved = true;
    while (moved) {
      moved = false;
      for (std::size_t s = 0; s < stages_.size(); ++s) {
        while (place_next(s)) moved = true;
      }
    }
    for (std::size_t s = 0; s < stages_.size(); ++s) COX_ENSURE(next_[s] == stages_[s].size(), s, next_[s]);
  }

  [[nodiscard]] int slot(std::size_t stage, const Action& action) const {
    return slots_.at({part_of(plan_, static_cast<int>(stage), action.chunk), action.kind, action.micro_batch});
  }

 private:
  bool place_next(std::size_t s) {
    if (next_[s] == stages_[s].size()) return false;
    const Action& action = stages_[s][next_[s]];
    int earliest = free_[s];
    const bool forward = action.kind == ActionKind::Forward;
    const int part = part_of(plan_, static_cast<int>(s), action.chunk);
    const bool has_neighbour =
        forward ? part > 0 : action.kind != ActionKind::BackwardWeight && part + 1 < num_parts(plan_);
    if (has_neighbour) {
      auto found = slots_.find({forward ? part - 1 : part + 1, action.kind, action.micro_batch});
      // A whole backward and the first half of a split one give the same gradient.
      if (found == slots_.end() && !forward) {
        const bool whole = action.kind == ActionKind::Backward;
        found = slots_.find({part + 1, whole ? ActionKind::BackwardInput : ActionKind::Backward, action.micro_batch});
      }
      if (found == slots_.end()) return false;
      earliest = std::max(earliest, found->second + 1);
    }
    slots_[{part, action.kind, action.micro_batch}] = earliest;
    free_[s] = earliest + 1;
    ++next_[s];
    return true;
  }

  const Plan& plan_;
  std::vector<std::vector<Action>> stages_;
  std::vector<std::size_t> next_;
  std::vector<int> free_;
  std::map<std::tuple<int, ActionKind, int>, int> slots_;  // by part
};

}  // namespace

std::string to_schedule_csv(const Plan& plan) {
  std::vector<std::vector<Action>> stages(plan.stages.size());
  // Roles of one stage share the order; the first speaks for it.
  for (const Role& role : plan.roles) {
    auto& order = stages.at(static_cast<std::size_t>(role.stage));
    if (order.empty()) order = compute_order(role.actions);
  }
  const Timeline timeline(plan, stages);
  std::string csv;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    int column = 0;
    for (const Action& action : stages[s]) {
      const int slot = timeline.slot(s, action);
      for (; column < slot; ++column) csv += ',';
      csv += std::to_string(part_of(plan, static_cast<int>(s), action.chunk)) +
             to_text(Action{action.kind, action.micro_batch});
    }
    csv += '\n';
  }
  return csv;
}

}  // namespace coxswain::plan
