#include "worker/engine/expert_tokens.h"

#include <ATen/core/Tensor.h>

#include <algorithm>

namespace coxswain::worker {
namespace {

/// Of the positions that have the same rows the first counts them.
bool counts_here(const LocalView& view, model::ValueId indices) {
  if (!view.part) return true;
  plan::AxisSet same = (plan::AxisSet{1} << view.part->axes.size()) - 1;
  for (const plan::Cut& cut : view.cuts_of(indices)) same &= ~cut.axes;
  return plan::members_of(view.part->axes, same, view.link->position).front() == view.link->position;
}

}  // namespace

void ExpertCounter::add(const at::Tensor& chosen) const {
  const at::Tensor list = chosen.contiguous();
  const auto* expert = list.const_data_ptr<std::int64_t>();
  for (std::int64_t r = 0; r < list.numel(); ++r) {
    TORCH_CHECK(expert[r] >= 0 && expert[r] < static_cast<std::int64_t>(counts.size()), "row ", r, " chose expert ",
                expert[r], " of ", counts.size());
    ++counts[static_cast<std::size_t>(expert[r])];
  }
}

ExpertTokens::ExpertTokens(const LocalView& view) {
  const std::vector<plan::ExpertChoice> choices = plan::expert_choices(*view.whole);
  std::size_t size = 0;
  for (const plan::ExpertChoice& choice : choices) size += static_cast<std::size_t>(choice.experts);
  counts_.assign(size, 0);
  std::span<double> rest(counts_);
  for (const plan::ExpertChoice& choice : choices) {
    const auto experts = static_cast<std::size_t>(choice.experts);
    if (counts_here(view, choice.indices)) counters_.push_back({choice.indices, rest.first(experts)});
    rest = rest.subspan(experts);
  }
}

const ExpertCounter* ExpertTokens::find(model::ValueId indices) const {
  const auto found = std::find_if(counters_.begin(), counters_.end(),
                                  [&](const ExpertCounter& counter) { return counter.indices == indices; });
  return found == counters_.end() ? nullptr : &*found;
}

void ExpertTokens::restart() { std::fill(counts_.begin(), counts_.end(), 0); }

}  // namespace coxswain::worker
