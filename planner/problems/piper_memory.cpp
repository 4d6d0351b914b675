#include "planner/problems/piper_memory.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/ensure.h"

namespace coxswain::planner {
namespace {

/// Branch and bound, breadth first: after each saving the list of undominated partial choices.
class Knapsack {
 public:
  Knapsack(const std::vector<Saving>& savings, double needed) : savings_(savings), needed_(needed) {
    bytes_.push_back(0);
    seconds_.push_back(0);
    for (const Saving& saving : savings) {
      bytes_.push_back(bytes_.back() + saving.bytes);
      seconds_.push_back(seconds_.back() + saving.seconds);
    }
  }

  std::vector<std::size_t> solve() {
    partials_.push_back({0, 0, -1, 0});
    std::vector<std::int64_t> front{0};
    complete_greedily(0, 0);
    for (std::size_t next = 0; next < savings_.size() && !front.empty(); ++next) front = extend(front, next);
    return path();
  }

 private:
  struct Partial {
    double bytes = 0, seconds = 0;
    std::int64_t parent = -1;
    std::size_t taken = 0;
  };
  const Partial& at(std::int64_t partial) const { return partials_[static_cast<std::size_t>(partial)]; }

  /// First end such that savings [next, end) save what `partial` lacks; past the end when all do not.
  std::size_t cover(const Partial& partial, std::size_t next) const {
    const double lacks = needed_ - partial.bytes + bytes_[next];
    return static_cast<std::size_t>(
        std::lower_bound(bytes_.begin() + static_cast<std::ptrdiff_t>(next), bytes_.end(), lacks) - bytes_.begin());
  }

  void complete_greedily(std::int64_t partial, std::size_t next) {
    const std::size_t end = cover(at(partial), next);
    if (end >= bytes_.size()) return;
    const double seconds = at(partial).seconds + seconds_[end] - seconds_[next];
    if (seconds < best_) {
      best_ = seconds;
      best_partial_ = partial;
      best_first_ = next;
      best_end_ = end;
    }
  }

  /// Least seconds of any completion with parts of savings allowed.
  double bound(const Partial& partial, std::size_t next) const {
    const std::size_t end = cover(partial, next);
    if (end >= bytes_.size()) return std::numeric_limits<double>::infinity();
    if (end == next) return partial.seconds;
    const double over = bytes_[end] - bytes_[next] - (needed_ - partial.bytes);
    const Saving& last = savings_[end - 1];
    return partial.seconds + seconds_[end] - seconds_[next] - last.seconds * (over / last.bytes);
  }

  /// `front` ascends in bytes and in seconds; so does the answer.
  std::vector<std::int64_t> extend(const std::vector<std::int64_t>& front, std::size_t next) {
    const Saving& saving = savings_[next];
    std::vector<std::int64_t> with;
    for (const std::int64_t p : front) {
      const Partial partial{at(p).bytes + saving.bytes, at(p).seconds + saving.seconds, p, next};
      if (bound(partial, next + 1) >= best_ * (1 - 1e-13)) continue;
      partials_.push_back(partial);
      with.push_back(static_cast<std::int64_t>(partials_.size()) - 1);
      complete_greedily(with.back(), next + 1);
    }
    std::vector<std::int64_t> merged;
    std::merge(front.begin(), front.end(), with.begin(), with.end(), std::back_inserter(merged),
               [&](std::int64_t a, std::int64_t b) {
                 return at(a).bytes != at(b).bytes ? at(a).bytes < at(b).bytes : at(a).seconds > at(b).seconds;
               });
    // From the most bytes down: one that saves less must take less time.
    std::vector<std::int64_t> kept;
    for (auto p = merged.rbegin(); p != merged.rend(); ++p) {
      if (!kept.empty() && at(*p).seconds >= at(kept.back()).seconds) continue;
      if (bound(at(*p), next + 1) < best_ * (1 - 1e-13)) kept.push_back(*p);
    }
    std::reverse(kept.begin(), kept.end());
    return kept;
  }

  std::vector<std::size_t> path() const {
    std::vector<std::size_t> chosen;
    for (std::int64_t p = best_partial_; at(p).parent >= 0; p = at(p).parent) chosen.push_back(at(p).taken);
    std::reverse(chosen.begin(), chosen.end());
    for (std::size_t i = best_first_; i < best_end_; ++i) chosen.push_back(i);
    return chosen;
  }

  const std::vector<Saving>& savings_;
  double needed_;
  std::vector<double> bytes_, seconds_;  // sums of the savings before
  std::vector<Partial> partials_;
  double best_ = std::numeric_limits<double>::infinity();
  std::int64_t best_partial_ = 0;
  std::size_t best_first_ = 0, best_end_ = 0;
};

}  // namespace

std::vector<std::size_t> choose_savings(const std::vector<Saving>& savings, double needed) {
  return Knapsack(savings, needed).solve();
}

PiperMemory::PiperMemory(const PiperInstance& instance, const PiperSets& sets) : sets_(sets) {
  double total = instance.memory_bytes;
  for (const PiperNode& node : instance.nodes) {
    double most = 0;
    for (const PiperOption& option : node.options) {
      if (std::find(degrees_.begin(), degrees_.end(), option.tp) == degrees_.end()) degrees_.push_back(option.tp);
      most = std::max(most, option.stash_bytes * static_cast<double>(instance.devices + 1) + option.fixed_bytes);
    }
    total += most;
  }
  std::sort(degrees_.begin(), degrees_.end());
  // Sums of up to 52 bits are exact.
  quantum_ = std::ldexp(1.0, std::max(-20, std::ilogb(total + 1) - 51));
  memory_ = std::floor(instance.memory_bytes / quantum_) * quantum_;
  for (const std::int64_t degree : degrees_) sums_.push_back(make_sums(instance, degree));
  levels_.resize(degrees_.size());
}

double PiperMemory::round_up(double bytes) const { return std::ceil(bytes / quantum_) * quantum_; }

PiperMemory::Sums PiperMemory::make_sums(const PiperInstance& instance, std::int64_t degree) const {
  const std::size_t n = instance.nodes.size();
  std::vector<double> missing(n, 0), seconds(n, 0), parameters(n, 0), stash(n, 0), fixed(n, 0);
  Sums sums;
  sums.exchanges.resize(n);
  for (std::size_t v = 0; v < n; ++v) {
    const PiperOption* faster = find_option(instance.nodes[v], degree, false);
    const PiperOption* other = find_option(instance.nodes[v], degree, true);
    if (faster == nullptr || (other != nullptr && other->seconds < faster->seconds)) std::swap(faster, other);
    if (faster == nullptr) {
      missing[v] = 1;
      continue;
    }
    seconds[v] = faster->seconds;
    parameters[v] = faster->parameter_bytes;
    stash[v] = round_up(faster->stash_bytes);
    fixed[v] = round_up(faster->fixed_bytes);
    Exchange& exchange = sums.exchanges[v];
    exchange.faster_recomputes = faster->recompute;
    if (other == nullptr) continue;
    parameters[v] = std::max(parameters[v], other->parameter_bytes);
    exchange.possible = true;
    exchange.seconds = other->seconds - faster->seconds;
    exchange.stash = stash[v] - round_up(other->stash_bytes);
    exchange.fixed = fixed[v] - round_up(other->fixed_bytes);
  }
  sums.missing = sets_.sum(missing);
  sums.seconds = sets_.sum(seconds);
  sums.parameters = sets_.sum(parameters);
  sums.stash = sets_.sum(stash);
  sums.fixed = sets_.sum(fixed);
  return sums;
}

const PiperMemory::Level& PiperMemory::level(std::size_t degree, std::int64_t stashes) {
  auto& levels = levels_[degree];
  const auto position = static_cast<std::size_t>(stashes);
  if (position >= levels.size()) levels.resize(position + 1);
  if (!levels[position]) levels[position] = std::make_unique<Level>(make_level(sums_[degree], stashes));
  return *levels[position];
}

PiperMemory::Level PiperMemory::make_level(const Sums& sums, std::int64_t stashes) const {
  Level level;
  const auto y = static_cast<double>(stashes);
  std::vector<double> saved(sums.exchanges.size(), 0);
  for (std::size_t v = 0; v < saved.size(); ++v) {
    const Exchange& exchange = sums.exchanges[v];
    if (!exchange.possible) continue;
    saved[v] = std::max(0.0, exchange.stash * y + exchange.fixed);
    if (saved[v] > 0) level.items.push_back({static_cast<int>(v), saved[v], exchange.seconds});
  }
  std::stable_sort(level.items.begin(), level.items.end(),
                   [](const Item& a, const Item& b) { return a.seconds / a.saved < b.seconds / b.saved; });
  level.least = sets_.sum(saved);
  for (std::size_t set = 0; set < level.least.size(); ++set)
    level.least[set] = sums.stash[set] * y + sums.fixed[set] - level.least[set];
  return level;
}

SecondsRange PiperMemory::bound_extra_seconds(const PiperSpan& span, std::int64_t stashes) {
  double needed = excess(span, stashes);
  SecondsRange range;
  if (needed <= 0) return range;
  for (const Item& item : level(span.degree, stashes).items) {
    if (!holds(span, item.node)) continue;
    range.low = range.high + item.seconds * std::min(1.0, needed / item.saved);
    range.high += item.seconds;
    needed -= item.saved;
    if (needed <= 0) break;
  }
  return range;
}

PiperMemory::Chosen PiperMemory::solve(const PiperSpan& span, std::int64_t stashes) {
  Chosen chosen;
  const double needed = excess(span, stashes);
  if (needed <= 0) return chosen;
  std::vector<int> nodes;
  std::vector<Saving> savings;
  for (const Item& item : level(span.degree, stashes).items) {
    if (!holds(span, item.node)) continue;
    nodes.push_back(item.node);
    savings.push_back({item.saved, item.seconds});
  }
  for (const std::size_t i : choose_savings(savings, needed)) {
    chosen.nodes.push_back(nodes[i]);
    chosen.seconds += savings[i].seconds;
  }
  return chosen;
}

double PiperMemory::least_extra_seconds(const PiperSpan& span, std::int64_t stashes) {
  return solve(span, stashes).seconds;
}

std::vector<int> PiperMemory::choose_recompute(const PiperSpan& span, std::int64_t stashes) {
  COX_ENSURE(can_fit(span, stashes), span.lower, span.upper, stashes);
  const std::vector<int> exchanged = solve(span, stashes).nodes;
  std::vector<int> recomputed;
  for (const int node : sets_.between(span.lower, span.upper)) {
    const bool swaps = std::find(exchanged.begin(), exchanged.end(), node) != exchanged.end();
    if (swaps != sums_[span.degree].exchanges[static_cast<std::size_t>(node)].faster_recomputes)
      recomputed.push_back(node);
  }
  return recomputed;
}

}  // namespace coxswain::planner
