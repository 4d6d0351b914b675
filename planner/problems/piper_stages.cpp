#include "planner/problems/piper_stages.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace coxswain::planner {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kManyDevices = std::int64_t{1} << 40;
/// Loads this near to a limit meet it: sums of doubles in another order differ less.
constexpr double kTolerance = 1e-12;

/// Sync bytes of edge `k` of the node's in-edges or out-edges; the larger of two variants.
double sync_bytes(const PiperNode& node, std::int64_t tp, std::size_t k, bool in) {
  double bytes = 0;
  for (const PiperOption& option : node.options) {
    if (option.tp == tp) bytes = std::max(bytes, in ? option.sync_in[k] : option.sync_out[k]);
  }
  return bytes;
}

}  // namespace

PiperStages::PiperStages(const PiperInstance& instance, const PiperSets& sets, double known_load)
    : instance_(instance), sets_(sets), memory_(instance, sets), known_load_(known_load) {
  set_divisors();
  std::vector<double> least_work;
  for (const PiperNode& node : instance.nodes) {
    double least = kInfinity;
    for (const PiperOption& option : node.options)
      least = std::min(least, static_cast<double>(option.tp) * option.seconds);
    least_work.push_back(least);
  }
  work_ = sets.sum(least_work);
  for (const double work : work_) devices_for_set_.push_back(devices_for(work));
  set_edge_weights();
  add_candidates();
  if (known_load < kInfinity) drop(known_load);
}

void PiperStages::set_divisors() {
  next_divisor_.assign(static_cast<std::size_t>(instance_.devices) + 2, 0);
  for (std::int64_t d = instance_.devices; d >= 1; --d) {
    const auto i = static_cast<std::size_t>(d);
    next_divisor_[i] = instance_.micro_batches % d == 0 ? d : next_divisor_[i + 1];
  }
}

void PiperStages::set_edge_weights() {
  const std::size_t num_edges = instance_.edges.size();
  for (const std::int64_t tp : memory_.degrees()) {
    std::vector<double>& in = edge_in_.emplace_back(num_edges);
    std::vector<double>& out = edge_out_.emplace_back(num_edges);
    for (const PiperNode& node : instance_.nodes) {
      for (std::size_t k = 0; k < node.in_edges.size(); ++k) {
        const auto e = static_cast<std::size_t>(node.in_edges[k]);
        in[e] = 2 * (instance_.edges[e].bytes + sync_bytes(node, tp, k, true));
      }
      for (std::size_t k = 0; k < node.out_edges.size(); ++k) {
        const auto e = static_cast<std::size_t>(node.out_edges[k]);
        out[e] = 2 * (instance_.edges[e].bytes + sync_bytes(node, tp, k, false));
      }
    }
  }
  const std::size_t num_degrees = memory_.degrees().size();
  into_rest_.assign(sets_.count() * num_degrees, 0);
  out_of_set_ = into_rest_;
  for (std::size_t set = 0; set < sets_.count(); ++set) {
    for (std::size_t e = 0; e < num_edges; ++e) {
      const PiperEdge& edge = instance_.edges[e];
      if (!sets_.contains(set, edge.from) || sets_.contains(set, edge.to)) continue;
      for (std::size_t t = 0; t < num_degrees; ++t) {
        into_rest_[set * num_degrees + t] += edge_in_[t][e];
        out_of_set_[set * num_degrees + t] += edge_out_[t][e];
      }
    }
  }
}

void PiperStages::add_candidates() {
  first_.assign(sets_.count() + 1, 0);
  for (std::size_t upper = 1; upper < sets_.count(); ++upper) {
    first_[upper] = candidates_.size();
    add_candidates(upper);
  }
  first_[sets_.count()] = candidates_.size();
}

std::vector<PiperStages::Crossing> PiperStages::find_crossings(std::size_t upper) const {
  std::vector<Crossing> crossings;
  for (std::size_t v = 0; v < instance_.nodes.size(); ++v) {
    const int node = static_cast<int>(v);
    if (!sets_.contains(upper, node)) continue;
    Crossing crossing{node, std::vector<double>(memory_.degrees().size(), 0)};
    bool crosses = false;
    for (const int out_edge : instance_.nodes[v].out_edges) {
      const auto e = static_cast<std::size_t>(out_edge);
      if (sets_.contains(upper, instance_.edges[e].to)) continue;
      crosses = true;
      for (std::size_t t = 0; t < crossing.weight.size(); ++t) crossing.weight[t] += edge_in_[t][e] + edge_out_[t][e];
    }
    if (crosses) crossings.push_back(std::move(crossing));
  }
  return crossings;
}

void PiperStages::add_candidates(std::size_t upper) {
  const std::vector<Crossing> crossings = find_crossings(upper);
  const std::int64_t left = instance_.devices - devices_for(work_[sets_.full()] - work_[upper]);
  for (std::size_t lower = 0; lower < upper; ++lower) {
    const std::int64_t own = left - devices_for_set_[lower];
    if (own < 1 || !sets_.is_within(lower, upper)) continue;
    const double work = work_[upper] - work_[lower];
    if (work * (1 - kTolerance) > static_cast<double>(own) * known_load_ * (1 + kTolerance)) continue;
    for (std::size_t degree = 0; degree < memory_.degrees().size(); ++degree)
      add_candidate({lower, upper, degree}, crossings);
  }
}

void PiperStages::add_candidate(const PiperSpan& span, const std::vector<Crossing>& crossings) {
  const std::int64_t stashes = least_stashes(span.upper);
  if (!memory_.has_options(span) || !memory_.can_fit(span, stashes)) return;
  const std::size_t num_degrees = memory_.degrees().size();
  double bytes =
      into_rest_[span.lower * num_degrees + span.degree] + out_of_set_[span.upper * num_degrees + span.degree];
  // Edges over the whole span were counted at both of its cuts.
  for (const Crossing& crossing : crossings) {
    if (sets_.contains(span.lower, crossing.node)) bytes -= crossing.weight[span.degree];
  }
  Candidate candidate;
  candidate.lower = static_cast<std::int32_t>(span.lower);
  candidate.degree = static_cast<std::int32_t>(span.degree);
  candidate.offset =
      4 * memory_.parameter_bytes(span) / static_cast<double>(instance_.micro_batches) / instance_.bytes_per_second;
  candidate.slope = bytes / instance_.bytes_per_second + memory_.seconds(span) - candidate.offset +
                    memory_.bound_extra_seconds(span, stashes).low;
  if (smallest_dp(candidate, known_load_) > 0) candidates_.push_back(candidate);
}

void PiperStages::drop(double limit) {
  const std::vector<std::int64_t> before = devices_before(limit);
  std::vector<std::int64_t> behind(sets_.count(), kManyDevices);
  behind[sets_.full()] = 0;
  const auto cost = [&](const Candidate& candidate) {
    const std::int64_t dp = smallest_dp(candidate, limit);
    return dp == 0 ? kManyDevices : dp * tp(candidate);
  };
  for (std::size_t upper = sets_.full(); upper > 0; --upper) {
    for (const Candidate& candidate : candidates(upper)) {
      std::int64_t& devices = behind[static_cast<std::size_t>(candidate.lower)];
      devices = std::min(devices, behind[upper] + cost(candidate));
    }
  }
  std::size_t kept = 0;
  for (std::size_t upper = 1; upper <= sets_.full(); ++upper) {
    const std::size_t begin = first_[upper];
    first_[upper] = kept;
    for (std::size_t c = begin; c < first_[upper + 1]; ++c) {
      const Candidate& candidate = candidates_[c];
      const std::int64_t devices = before[static_cast<std::size_t>(candidate.lower)] + cost(candidate) + behind[upper];
      if (devices <= instance_.devices) candidates_[kept++] = candidate;
    }
  }
  first_[sets_.count()] = kept;
  candidates_.resize(kept);
}

std::int64_t PiperStages::smallest_dp(const Candidate& candidate, double limit) const {
  limit *= 1 + kTolerance;
  if (candidate.slope + candidate.offset <= limit) return 1;
  // With a negative slope a larger dp only adds load.
  if (candidate.offset >= limit || candidate.slope <= 0) return 0;
  const double dp = std::ceil(candidate.slope / (limit - candidate.offset));
  return dp > static_cast<double>(instance_.devices) ? 0 : next_divisor_[static_cast<std::size_t>(dp)];
}

std::int64_t PiperStages::least_stashes(std::size_t upper) const { return upper == sets_.full() ? 1 : 2; }

std::int64_t PiperStages::devices_for(double work) const {
  return static_cast<std::int64_t>(std::ceil(work / known_load_ * (1 - kTolerance) - kTolerance));
}

double PiperStages::least_load() const {
  return work_[sets_.full()] / static_cast<double>(instance_.devices) * (1 - kTolerance);
}

std::vector<std::int64_t> PiperStages::devices_before(double limit) const {
  std::vector<std::int64_t> devices(sets_.count(), kManyDevices);
  devices[0] = 0;
  for (std::size_t upper = 1; upper < sets_.count(); ++upper) {
    std::int64_t least = kManyDevices;
    for (const Candidate& candidate : candidates(upper)) {
      const std::int64_t before = devices[static_cast<std::size_t>(candidate.lower)];
      if (before >= least) continue;
      const std::int64_t dp = smallest_dp(candidate, limit);
      if (dp > 0) least = std::min(least, before + dp * tp(candidate));
    }
    devices[upper] = least;
  }
  return devices;
}

bool PiperStages::meets(const Candidate& candidate, std::size_t upper, std::int64_t dp, std::int64_t stashes,
                        double limit) {
  limit *= 1 + kTolerance;
  const auto replicas = static_cast<double>(dp);
  if (candidate.slope < 0 && candidate.slope / replicas + candidate.offset > limit) return false;
  const PiperSpan span{static_cast<std::size_t>(candidate.lower), upper, static_cast<std::size_t>(candidate.degree)};
  if (memory_.excess(span, stashes) <= 0) return true;
  if (!memory_.can_fit(span, stashes)) return false;
  const double included = memory_.bound_extra_seconds(span, least_stashes(upper)).low;
  return extra_within(span, stashes, (limit - candidate.offset) * replicas - (candidate.slope - included));
}

bool PiperStages::extra_within(const PiperSpan& span, std::int64_t stashes, double budget) {
  const std::uint64_t stage = (span.upper * sets_.count() + span.lower) * memory_.degrees().size() + span.degree;
  const auto key = stage * static_cast<std::uint64_t>(instance_.devices + 2) + static_cast<std::uint64_t>(stashes);
  auto found = ranges_.find(key);
  if (found == ranges_.end()) found = ranges_.emplace(key, memory_.bound_extra_seconds(span, stashes)).first;
  SecondsRange& range = found->second;
  if (range.low <= budget && range.high > budget && range.low < range.high)
    range.low = range.high = memory_.least_extra_seconds(span, stashes);
  return range.high <= budget;
}

PiperStage PiperStages::make_stage(const Candidate& candidate, std::size_t upper, std::int64_t dp,
                                   std::int64_t stashes) {
  const PiperSpan span{static_cast<std::size_t>(candidate.lower), upper, static_cast<std::size_t>(candidate.degree)};
  return {sets_.between(span.lower, upper), dp, tp(candidate), memory_.choose_recompute(span, stashes)};
}

}  // namespace coxswain::planner
