#include "launcher/control/adaptation.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "common/ensure.h"

namespace coxswain::launcher {
namespace {

// A profile knows a step within a tenth, and devices of a busy machine differ by less than half
// (bench/unequal_devices).
constexpr double kOffRatio = 2, kStandsOutRatio = 1.5;
constexpr double kLeastMessageSeconds = 1e-3;
// Measured bandwidth is no more than so many times the predicted one: a message that was in a buffer took no time.
constexpr double kMostBandwidthRatio = 50;

double median(std::vector<double> values) {
  COX_ENSURE(!values.empty());
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

bool is_off(double ratio, double factor) { return ratio >= factor || ratio <= 1 / factor; }

using BySeconds = std::vector<std::vector<double>>;  // by rank, then action

/// What was measured of one thing, and what was predicted of the same.
struct Sums {
  double measured = 0, predicted = 0;
  std::set<int> ranks;
  void add(int rank, double measured_seconds, double predicted_seconds) {
    measured += measured_seconds;
    predicted += predicted_seconds;
    ranks.insert(rank);
  }
  /// Of what it does in a second.
  [[nodiscard]] double rate_ratio() const { return predicted / measured; }
};

/// All that is known of the actions of a looked run.
class Look {
 public:
  explicit Look(const LookedRun& run)
      : run_(run),
        predicted_(cost_model::moving_seconds(run.basis.plan, run.basis.predicted)),
        latencies_(cost_model::moving_seconds(run.basis.plan, run.latencies)) {
    for (const cost_model::TracedStep& step : run.steps)
      measured_.push_back(cost_model::moving_seconds(run.basis, step));
    for (std::size_t rank = 0; rank < predicted_.size(); ++rank)
      places_.push_back(plan::place_of(run.basis.plan, rank_number(rank)));
    for (std::size_t rank = 0; rank < predicted_.size(); ++rank) actions_.push_back(&actions_of(places_[rank]));
  }

  /// By node and local device.
  [[nodiscard]] std::map<std::pair<int, int>, Sums> devices() const {
    std::map<std::pair<int, int>, Sums> devices;
    for (std::size_t rank = 0; rank < predicted_.size(); ++rank) {
      if (!computes_alone(places_[rank])) continue;
      Sums sums;
      for (std::size_t i = 0; i < actions_[rank]->size(); ++i) {
        if (is_block_work((*actions_[rank])[i].kind))
          sums.add(rank_number(rank), median(all_steps(rank, i)), predicted_[rank][i]);
      }
      const RankBinding& at = run_.ranks[rank];
      if (sums.predicted > 0 && sums.measured > 0) devices[{at.node, at.local_device}] = std::move(sums);
    }
    return devices;
  }

  /// By pair of nodes, the lower one first. What several pairs have a part in tells of those of them that nothing else
  /// tells of.
  [[nodiscard]] std::map<std::pair<int, int>, Sums> links() const {
    std::map<std::pair<int, int>, Sums> pairs;
    std::map<std::vector<int>, Sums> wider;  // by nodes, more than two
    for (std::size_t rank = 0; rank < predicted_.size(); ++rank) {
      for (std::size_t i = 0; i < actions_[rank]->size(); ++i) {
        const auto message = message_of(rank, i);
        if (!message) continue;
        const std::vector<int> nodes = nodes_of(rank, (*actions_[rank])[i]);
        if (nodes.empty()) continue;
        Sums& sums = nodes.size() > 2 ? wider[nodes] : pairs[{nodes.front(), nodes.back()}];
        sums.add(rank_number(rank), message->first, message->second);
      }
    }
    const auto known = pairs;
    for (const auto& [nodes, sums] : wider) {
      for (std::size_t a = 0; a < nodes.size(); ++a) {
        for (std::size_t b = a + 1; b < nodes.size(); ++b) {
          if (known.contains({nodes[a], nodes[b]})) continue;
          Sums& pair = pairs[{nodes[a], nodes[b]}];
          pair.measured += sums.measured;
          pair.predicted += sums.predicted;
          pair.ranks.insert(sums.ranks.begin(), sums.ranks.end());
        }
      }
    }
    return pairs;
  }

 private:
  static int rank_number(std::size_t rank) { return static_cast<int>(rank); }

  [[nodiscard]] const std::vector<plan::Action>& actions_of(const plan::RankPlace& place) const {
    for (const plan::Role& role : run_.basis.plan.roles) {
      if (role.stage == place.stage &&
          std::find(role.replicas.begin(), role.replicas.end(), place.replica) != role.replicas.end())
        return role.actions;
    }
    COX_ENSURE(false, place.stage, place.replica);
    return run_.basis.plan.roles.front().actions;
  }

  [[nodiscard]] bool computes_alone(const plan::RankPlace& place) const {
    const plan::Stage& stage = run_.basis.plan.stages[static_cast<std::size_t>(place.stage)];
    const plan::Replica& replica = stage.replicas[static_cast<std::size_t>(place.replica)];
    return replica.devices.size() == 1 && replica.expert == 1 && stage.zero_stage < 2 &&
           stage.offload == plan::Offload::None;
  }

  static bool is_block_work(plan::ActionKind kind) {
    return kind == plan::ActionKind::Forward || kind == plan::ActionKind::Backward ||
           kind == plan::ActionKind::BackwardInput || kind == plan::ActionKind::BackwardWeight;
  }

  [[nodiscard]] std::vector<double> all_steps(std::size_t rank, std::size_t action) const {
    std::vector<double> seconds;
    for (const BySeconds& step : measured_) seconds.push_back(step[rank][action]);
    return seconds;
  }

  /// Seconds that bandwidth took, and was predicted to take; nothing where that cannot be told. What is sent may end in
  /// a buffer, so that only who receives it knows.
  [[nodiscard]] std::optional<std::pair<double, double>> message_of(std::size_t rank, std::size_t i) const {
    const plan::ActionKind kind = (*actions_[rank])[i].kind;
    const bool sends = kind == plan::ActionKind::SendActivation || kind == plan::ActionKind::SendGradient;
    if (plan::is_compute(kind) || sends) return std::nullopt;
    const std::vector<double> seconds = all_steps(rank, i);
    const double measured = *std::min_element(seconds.begin(), seconds.end());
    const double predicted = predicted_[rank][i], latency = std::min(latencies_[rank][i], predicted);
    if (2 * latency > predicted || std::max(predicted, measured) < kLeastMessageSeconds) return std::nullopt;
    const double of_bandwidth = predicted - latency;
    return std::pair(std::max(measured - latency, of_bandwidth / kMostBandwidthRatio), of_bandwidth);
  }

  /// Of all that take part, ascending; empty: nobody else does.
  [[nodiscard]] std::vector<int> nodes_of(std::size_t rank, const plan::Action& action) const {
    std::set<int> ranks{rank_number(rank)};
    if (plan::is_edge(action.kind)) {
      for (const plan::Transfer& transfer : plan::transfers_of(run_.basis.plan, rank_number(rank), action))
        ranks.insert(transfer.peer);
    } else {
      const int group =
          plan::group_of(run_.basis.plan, run_.basis.groups, places_[rank].stage, action, places_[rank].position);
      if (group < 0) return {};
      const std::vector<int>& members = run_.basis.groups[static_cast<std::size_t>(group)].ranks;
      ranks.insert(members.begin(), members.end());
    }
    if (ranks.size() < 2) return {};
    std::set<int> nodes;
    for (const int one : ranks) nodes.insert(run_.ranks[static_cast<std::size_t>(one)].node);
    return {nodes.begin(), nodes.end()};
  }

  const LookedRun& run_;
  BySeconds predicted_, latencies_;
  std::vector<BySeconds> measured_;  // by step
  std::vector<plan::RankPlace> places_;
  std::vector<const std::vector<plan::Action>*> actions_;  // of each rank
};

/// Of an even number of devices the one of the middle two that is nearer to what was predicted.
double middle_ratio(const std::map<std::pair<int, int>, Sums>& devices) {
  std::vector<double> ratios;
  for (const auto& [device, sums] : devices) ratios.push_back(sums.rate_ratio());
  std::sort(ratios.begin(), ratios.end());
  const double high = ratios[ratios.size() / 2], low = ratios[(ratios.size() - 1) / 2];
  return std::abs(std::log(low)) < std::abs(std::log(high)) ? low : high;
}

void compare_devices(const LookedRun& run, const std::map<std::pair<int, int>, Sums>& devices, Differences& found) {
  if (devices.empty()) return;
  const double middle = middle_ratio(devices);
  for (const auto& [device, sums] : devices) {
    const double ratio = sums.rate_ratio();
    if (!is_off(ratio, kOffRatio) && !(is_off(ratio, kStandsOutRatio) && is_off(ratio / middle, kStandsOutRatio)))
      continue;
    const int rank = *sums.ranks.begin();
    Finding finding;
    finding.node = finding.other_node = device.first;
    finding.local_device = device.second;
    finding.device_class = run.ranks[static_cast<std::size_t>(rank)].device_class;
    finding.ranks = {rank};
    finding.predicted_seconds = sums.predicted;
    finding.measured_seconds = sums.measured;
    finding.rate_ratio = ratio;
    found.findings.push_back(std::move(finding));
  }
  if (found.findings.empty()) return;
  for (const auto& [device, sums] : devices)
    found.corrections.multiply_rate(device.first, device.second, sums.rate_ratio());
}

void compare_links(const std::map<std::pair<int, int>, Sums>& links, Differences& found) {
  for (const auto& [pair, sums] : links) {
    if (!is_off(sums.rate_ratio(), kOffRatio)) continue;
    Finding finding;
    finding.is_link = true;
    finding.node = pair.first;
    finding.other_node = pair.second;
    finding.ranks = {sums.ranks.begin(), sums.ranks.end()};
    finding.predicted_seconds = sums.predicted;
    finding.measured_seconds = sums.measured;
    finding.rate_ratio = sums.rate_ratio();
    found.findings.push_back(std::move(finding));
    found.corrections.multiply_bandwidth(pair.first, pair.second, sums.rate_ratio());
  }
}

}  // namespace

JsonObject to_json(const Finding& finding) {
  JsonObject object{{"what", finding.is_link ? "link" : "device"},
                    {"node", finding.node},
                    {"ranks", JsonArray(finding.ranks.begin(), finding.ranks.end())},
                    {"predicted_seconds", finding.predicted_seconds},
                    {"measured_seconds", finding.measured_seconds},
                    {"rate_ratio", finding.rate_ratio}};
  if (finding.is_link) {
    object["other_node"] = finding.other_node;
  } else {
    object["local_device"] = finding.local_device;
    object["device_class"] = finding.device_class;
  }
  return object;
}

Differences find_differences(const LookedRun& run, const Corrections& then, const Corrections& now) {
  COX_ENSURE(!run.steps.empty() && run.ranks.size() == static_cast<std::size_t>(plan::num_ranks(run.basis.plan)),
             run.steps.size(), run.ranks.size());
  const Look look(run);
  auto devices = look.devices();
  auto links = look.links();
  // What was predicted then, by what is known now.
  for (auto& [at, sums] : devices)
    sums.predicted *= then.rate_ratio(at.first, at.second) / now.rate_ratio(at.first, at.second);
  for (auto& [at, sums] : links)
    sums.predicted *= then.bandwidth_ratio(at.first, at.second) / now.bandwidth_ratio(at.first, at.second);
  Differences found;
  found.corrections = now;
  compare_devices(run, devices, found);
  compare_links(links, found);
  return found;
}

}  // namespace coxswain::launcher
