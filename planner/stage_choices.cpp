// Every choice of a stage that may be best: for the searches of small spaces that prove what they find.
#include <algorithm>
#include <functional>

#include "plan/schedule.h"
#include "planner/stage_cost.h"

namespace coxswain::planner {
namespace {

using plan::Recompute;

/// Beyond so many, only the choice of a search that does not prove.
constexpr std::size_t kMaxSplits = 64, kMaxRecompute = 1024;

int rank_of(Recompute kind) { return kind == Recompute::None ? 0 : kind == Recompute::Selective ? 1 : 2; }

/// `a` recomputes no block more than `b`.
bool no_more(const std::vector<Recompute>& a, const std::vector<Recompute>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), [](Recompute x, Recompute y) { return rank_of(x) <= rank_of(y); });
}

/// Splits of `micro` over the replicas, pool by pool; among those of one pool the larger shares come first. Nothing
/// where there are too many.
std::vector<std::vector<Share>> all_splits(const Composition& composition, std::size_t num_pools, std::int64_t micro) {
  std::vector<std::size_t> pool_of;
  for (std::size_t p = 0; p < num_pools; ++p)
    pool_of.insert(pool_of.end(), static_cast<std::size_t>(composition.units.of[p]), p);
  std::vector<std::vector<Share>> result;
  std::vector<std::int64_t> samples(pool_of.size(), 0);
  const std::function<void(std::size_t, std::int64_t)> next = [&](std::size_t r, std::int64_t left) {
    if (result.size() > kMaxSplits) return;
    if (r == samples.size()) {
      if (left > 0) return;
      result.emplace_back();
      for (std::size_t i = 0; i < samples.size(); ++i) add_share(result.back(), {pool_of[i], 1, samples[i]});
      return;
    }
    const auto later = static_cast<std::int64_t>(samples.size() - r) - 1;
    const bool alike = r > 0 && pool_of[r] == pool_of[r - 1];
    const std::int64_t most = std::min(left - later, alike ? samples[r - 1] : left);
    for (std::int64_t mine = later == 0 ? left : 1; mine <= most; ++mine) {
      samples[r] = mine;
      next(r + 1, left - mine);
    }
  };
  next(0, micro);
  if (result.size() > kMaxSplits) result.clear();
  return result;
}

/// Lists that fit; `least`: only those of which no block can recompute less while none recomputes more.
class RecomputeLists {
 public:
  RecomputeLists(const SpanCosts& spans, const SpanQuery& query, const std::vector<const SampleTable*>& cases,
                 bool least)
      : query_(query), cases_(cases), least_(least) {
    std::size_t count = 1;
    for (int block = query.first; block < query.end; ++block) {
      kinds_.push_back(spans.recompute_kinds(block));
      count *= kinds_.back().size();
      complete_ = complete_ && count <= kMaxRecompute;
    }
    for (const SampleTable* table : cases) rooms_.push_back(spans.room(*table, query));
    list_.resize(kinds_.size(), Recompute::None);
    if (complete_) choose(0);
  }
  [[nodiscard]] bool complete() const { return complete_; }
  [[nodiscard]] const std::vector<std::vector<Recompute>>& found() const { return found_; }

 private:
  /// In an order in which those that recompute less of every block come before.
  void choose(std::size_t block) {
    if (block == list_.size()) {
      const bool more =
          least_ && std::any_of(found_.begin(), found_.end(), [&](const auto& one) { return no_more(one, list_); });
      if (!more && fits()) found_.push_back(list_);
      return;
    }
    for (const Recompute kind : kinds_[block]) {
      list_[block] = kind;
      choose(block + 1);
    }
  }
  [[nodiscard]] bool fits() const {
    for (std::size_t c = 0; c < cases_.size(); ++c) {
      cost_model::HeldRun held;
      for (std::size_t i = 0; i < list_.size(); ++i)
        held.add(cases_[c]->holds(static_cast<std::size_t>(query_.first) + i, list_[i]));
      if (!rooms_[c].holds(held)) return false;
    }
    return true;
  }

  SpanQuery query_;
  const std::vector<const SampleTable*>& cases_;
  bool least_;
  std::vector<std::vector<Recompute>> kinds_;
  std::vector<Room> rooms_;
  std::vector<Recompute> list_;
  std::vector<std::vector<Recompute>> found_;
  bool complete_ = true;
};

/// Every action of a stage takes as long or longer with `b`: the step does too, since the order on each stream is
/// fixed.
bool no_slower(const StageCost& a, const StageCost& b) {
  const auto reductions = [](const StageCost& one) {
    return cost_model::reduces_buckets(one.state.zero_stage) ? one.state.zero_stage : -1;
  };
  return reductions(a) == reductions(b) && a.shares == b.shares &&
         std::equal(a.durations.begin(), a.durations.end(), b.durations.begin(), b.durations.end(),
                    [](Ticks x, Ticks y) { return x <= y; });
}

/// Least of each part. C22 counts the longest backward of the slowest replica, and its longest weights' part, at most
/// once for each of its passes, so what is least is the rest of that replica's pass.
StageCost relax(const std::vector<StageCost>& choices) {
  StageCost least = choices.front();
  Ticks beside_backward = least.busy - least.backward_max, beside_weight = least.busy - least.weight_max;
  for (const StageCost& one : choices) {
    for (const auto part : {&StageCost::busy, &StageCost::forward_min, &StageCost::backward_min, &StageCost::input_min,
                            &StageCost::sync, &StageCost::sync_last, &StageCost::optimizer})
      least.*part = std::min(least.*part, one.*part);
    least.least_samples = std::min(least.least_samples, one.least_samples);
    beside_backward = std::min(beside_backward, one.busy - one.backward_max);
    beside_weight = std::min(beside_weight, one.busy - one.weight_max);
  }
  least.backward_max = least.busy - beside_backward;
  least.weight_max = least.busy - beside_weight;
  return least;
}

}  // namespace

void StageCosts::add_all_states(const Span& span, const StageCost& start, StageChoices& choices) {
  const int credits = static_cast<int>(std::min<std::int64_t>(context_.receive_credits, context_.count));
  const bool shares_state = span.replicas * span.axes.context > 1 && at(span.composition).has_equal_axes();
  for (const StateChoice& state : context_.states) {
    if (state.zero_stage > 0 && !shares_state) continue;
    const RecomputeLists lists(
        *context_.spans,
        {span.first, span.end, 1, credits, state.zero_stage, span.replicas, state.offload, span.moments}, span.cases,
        context_.ordered && state.offload != plan::Offload::Activations);
    std::vector<StageCost> fitting;
    for (const std::vector<Recompute>& list : lists.found()) {
      fitting.push_back(start);
      fitting.back().state = state;
      fitting.back().recompute = list;
    }
    if (!lists.complete()) {
      StageCost one = start;
      one.state = state;
      if (fit(span, one, choices)) fitting.push_back(std::move(one));
    }
    for (StageCost& one : fitting) {
      add_times(span, one);
      if (one.busy > context_.at_most / context_.count) continue;
      if (context_.ordered) {
        if (std::any_of(choices.fitting.begin(), choices.fitting.end(),
                        [&](const StageCost& other) { return no_slower(other, one); }))
          continue;
        std::erase_if(choices.fitting, [&](const StageCost& other) { return no_slower(one, other); });
      }
      choices.fitting.push_back(std::move(one));
    }
  }
}

StageChoices StageCosts::compute_all(int first, int end, int index, const Moments& moments) {
  const Composition& composition = at(index);
  StageChoices choices;
  std::vector<std::vector<Share>> splits;
  if (context_.samples.empty() && context_.spans->cost().facts().static_batch() == 0)
    splits = all_splits(composition, context_.pools->size(), context_.micro);
  if (splits.empty()) splits.push_back(split(first, end, composition, moments));
  for (std::vector<Share>& shares : splits) {
    if (shares.empty()) continue;
    choices.splits = true;
    StageCost start;
    start.shares = std::move(shares);
    const Span span = make_span(first, end, index, moments, start);
    const bool slow = std::any_of(span.cases.begin(), span.cases.end(), [&](const SampleTable* table) {
      return context_.spans->forward(*table, first, end) + context_.spans->backward(*table, first, end) >
             context_.at_most / context_.count;
    });
    if (!slow) add_all_states(span, start, choices);
  }
  if (choices.fits()) choices.relaxed.push_back(relax(choices.fitting));
  return choices;
}

}  // namespace coxswain::planner
