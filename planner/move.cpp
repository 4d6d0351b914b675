#include "planner/move.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "planner/state_slices.h"

namespace coxswain::planner {
namespace {

/// One device of a plan.
struct Place {
  plan::RankPlace at;
  std::int64_t node = -1;  // -1: lost
  int own = -1;            // of the next plan: where the device stands in the running one
};

struct NodeSlices {
  std::int64_t node = 0;
  std::vector<Slice> slices;
};

/// Slices by node, united, nodes ascending.
std::vector<NodeSlices> unite_by_node(std::vector<std::pair<std::int64_t, Slice>> all) {
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<NodeSlices> nodes;
  for (const auto& [node, slice] : all) {
    if (nodes.empty() || nodes.back().node != node) nodes.push_back({node, {}});
    nodes.back().slices.push_back(slice);
  }
  for (NodeSlices& one : nodes) one.slices = unite(std::move(one.slices));
  return nodes;
}

/// Who holds what between two neighbouring ends of held slices.
class Holders {
 public:
  explicit Holders(const std::vector<NodeSlices>& held) {
    for (const NodeSlices& node : held) {
      for (const Slice slice : node.slices) {
        ends_.push_back(slice.begin);
        ends_.push_back(slice.end);
      }
    }
    std::sort(ends_.begin(), ends_.end());
    ends_.erase(std::unique(ends_.begin(), ends_.end()), ends_.end());
    nodes_.resize(ends_.size());
    for (const NodeSlices& node : held) {
      for (const Slice slice : node.slices) {
        for (std::size_t i = index_of(slice.begin); i + 1 < ends_.size() && ends_[i] < slice.end; ++i)
          nodes_[i].push_back(node.node);
      }
    }
  }

  /// Calls `visit(length, nodes)` for every piece of `slice` that has the same holders; none where nobody holds it.
  template <class Visit>
  void visit(Slice slice, Visit visit) const {
    static const std::vector<std::int64_t> kNobody;
    double at = slice.begin;
    auto next = std::upper_bound(ends_.begin(), ends_.end(), at);
    while (at < slice.end) {
      const double end = next == ends_.end() ? slice.end : std::min(slice.end, *next);
      const bool outside = next == ends_.begin() || next == ends_.end();
      visit(end - at, outside ? kNobody : nodes_[static_cast<std::size_t>(next - ends_.begin()) - 1]);
      at = end;
      if (next != ends_.end()) ++next;
    }
  }

 private:
  [[nodiscard]] std::size_t index_of(double end) const {
    return static_cast<std::size_t>(std::lower_bound(ends_.begin(), ends_.end(), end) - ends_.begin());
  }
  std::vector<double> ends_;
  std::vector<std::vector<std::int64_t>> nodes_;  // from ends_[i] on
};

class Tally {
 public:
  Tally(const cost_model::CostModel& cost, const plan::Plan& running, const PlacedDevices& devices,
        const plan::Plan& next)
      : graph_(cost.resources()), running_(running), next_(next), parts_(make_state_parts(cost, running, next)) {
    const auto nodes = static_cast<std::size_t>(cluster::num_nodes(graph_));
    senders_.assign(nodes, 0);
    receivers_.assign(nodes, 0);
    std::map<plan::DeviceId, int> place_of;
    old_.resize(running.stages.size());
    for (std::size_t s = 0; s < devices.size(); ++s) {
      for (std::size_t r = 0; r < devices[s].size(); ++r) {
        for (std::size_t p = 0; p < devices[s][r].size(); ++p) {
          Place place{{static_cast<int>(s), static_cast<int>(r), static_cast<int>(p)}};
          if (const auto& device = devices[s][r][p]) {
            place.node = cluster::locate(graph_, *device).node;
            place_of[*device] = static_cast<int>(all_old_.size());
            ++senders_[static_cast<std::size_t>(place.node)];
          }
          old_[s].push_back(static_cast<int>(all_old_.size()));
          all_old_.push_back(place);
        }
      }
    }
    new_.resize(next.stages.size());
    for (std::size_t s = 0; s < next.stages.size(); ++s) {
      for (std::size_t r = 0; r < next.stages[s].replicas.size(); ++r) {
        const auto& mesh = next.stages[s].replicas[r].devices;
        for (std::size_t p = 0; p < mesh.size(); ++p) {
          Place place{{static_cast<int>(s), static_cast<int>(r), static_cast<int>(p)}};
          place.node = cluster::locate(graph_, mesh[p]).node;
          if (const auto own = place_of.find(mesh[p]); own != place_of.end()) place.own = own->second;
          ++receivers_[static_cast<std::size_t>(place.node)];
          starts_ = starts_ || place.own < 0;
          new_[s].push_back(place);
        }
      }
    }
  }

  MoveEstimate run(const MoveConstants& constants) {
    add_all(false);
    MoveEstimate move;
    move.bytes_missing = Bytes(std::llround(missing_));
    move.missing.assign(missing_names_.begin(), missing_names_.end());
    if (missing_ > 0) add_all(true);
    move.bytes_kept = Bytes(std::llround(kept_));
    move.bytes_between = Bytes(std::llround(between_));
    fill_times(constants, move);
    move.restart = starts_ ? constants.start_processes : constants.rebuild_communicators;
    move.seconds = move.links + move.checkpoint + move.latency + move.restart;
    return move;
  }

 private:
  /// `from_disk`: nothing of what survivors hold is used.
  void add_all(bool from_disk) {
    const auto nodes = static_cast<std::size_t>(cluster::num_nodes(graph_));
    inside_.assign(nodes, 0);
    disk_.assign(nodes, 0);
    in_.clear();
    out_.clear();
    links_.clear();
    kept_ = between_ = 0;
    for (const StatePart& part : parts_) {
      for (std::size_t strip = 0; strip < kStrips.size(); ++strip) {
        if (part.bytes[strip] > 0) add(part, part.bytes[strip], kStrips[strip], from_disk);
      }
    }
  }

  void add(const StatePart& part, double bytes, Strip strip, bool from_disk) {
    std::vector<std::pair<std::int64_t, Slice>> held, needed;
    for (const int stage : part.from) {
      for (const int i : old_[static_cast<std::size_t>(stage)]) {
        const Place& place = all_old_[static_cast<std::size_t>(i)];
        if (place.node >= 0 && !from_disk) held.emplace_back(place.node, held_by(place, strip, part.split));
      }
    }
    for (const int stage : part.to) {
      for (const Place& place : new_[static_cast<std::size_t>(stage)]) {
        const Slice slice = slice_of(next_.stages[static_cast<std::size_t>(stage)], place.at.replica, place.at.position,
                                     strip, part.split);
        double own = 0;
        if (place.own >= 0 && !from_disk) {
          const Place& before = all_old_[static_cast<std::size_t>(place.own)];
          if (std::binary_search(part.from.begin(), part.from.end(), before.at.stage))
            own = intersect(held_by(before, strip, part.split), slice).length();
        }
        kept_ += bytes * own;
        inside_[static_cast<std::size_t>(place.node)] += bytes * (slice.length() - own);
        needed.emplace_back(place.node, slice);
      }
    }
    const std::vector<NodeSlices> holding = unite_by_node(std::move(held));
    const Holders holders(holding);
    auto at = holding.begin();
    for (const NodeSlices& node : unite_by_node(std::move(needed))) {
      while (at != holding.end() && at->node < node.node) ++at;
      const bool holds = at != holding.end() && at->node == node.node;
      for (const Slice slice : holds ? subtract(node.slices, at->slices) : node.slices) {
        // What enters the node arrives at one of its devices; the others have it from there.
        inside_[static_cast<std::size_t>(node.node)] -= bytes * slice.length();
        if (from_disk)
          disk_[static_cast<std::size_t>(node.node)] += bytes * slice.length();
        else
          holders.visit(slice, [&](double length, const std::vector<std::int64_t>& nodes) {
            fetch(node.node, bytes * length, nodes, part);
          });
      }
    }
  }

  [[nodiscard]] Slice held_by(const Place& place, Strip strip, SplitFrom split) const {
    return slice_of(running_.stages[static_cast<std::size_t>(place.at.stage)], place.at.replica, place.at.position,
                    strip, split);
  }

  // C72
  void fetch(std::int64_t node, double bytes, const std::vector<std::int64_t>& holders, const StatePart& part) {
    if (holders.empty()) {
      missing_ += bytes;
      const plan::Stage& stage = running_.stages[static_cast<std::size_t>(part.from.front())];
      missing_names_.insert(std::string(part.split == SplitFrom::Optimizer ? "optimizer state" : "parameters") +
                            " of blocks [" + std::to_string(stage.first_block) + "," + std::to_string(stage.end_block) +
                            ")");
      return;
    }
    std::vector<std::int64_t> nearest;
    const cluster::LinkClass* best = nullptr;
    for (const std::int64_t holder : holders) {
      const cluster::LinkClass& link = cluster::link_between_nodes(graph_, holder, node);
      const bool better = best == nullptr || link.bandwidth.value > best->bandwidth.value ||
                          (link.bandwidth.value == best->bandwidth.value && link.latency.value < best->latency.value);
      const bool equal =
          best != nullptr && link.bandwidth.value == best->bandwidth.value && link.latency.value == best->latency.value;
      if (better) nearest.clear();
      if (better) best = &link;
      if (better || equal) nearest.push_back(holder);
    }
    between_ += bytes;
    const std::size_t link = index_of(*best);
    in_[link][static_cast<std::size_t>(node)] += bytes;
    for (const std::int64_t holder : nearest)
      out_[link][static_cast<std::size_t>(holder)] += bytes / static_cast<double>(nearest.size());
  }

  /// Links by first use.
  std::size_t index_of(const cluster::LinkClass& link) {
    const auto found = std::find(links_.begin(), links_.end(), &link);
    if (found != links_.end()) return static_cast<std::size_t>(found - links_.begin());
    links_.push_back(&link);
    in_.emplace_back(inside_.size(), 0.0);
    out_.emplace_back(inside_.size(), 0.0);
    return links_.size() - 1;
  }

  /// C73: every device of a node is a flow, as far as the link carries them side by side.
  static double rate(const cluster::LinkClass& link, std::int64_t flows) {
    const std::int64_t beside = link.sharing > 0 ? std::min<std::int64_t>(link.sharing, flows) : flows;
    return link.bandwidth.value.value * static_cast<double>(std::max<std::int64_t>(1, beside));
  }

  // C73, C74
  void fill_times(const MoveConstants& constants, MoveEstimate& move) const {
    double worst = 0, inside = 0, disk = 0;
    for (std::size_t node = 0; node < inside_.size(); ++node) {
      double in = 0, out = 0, local = 0;
      for (std::size_t l = 0; l < links_.size(); ++l) {
        in += in_[l][node] / rate(*links_[l], receivers_[node]);
        out += out_[l][node] / rate(*links_[l], senders_[node]);
      }
      // Less than a byte is what rounding leaves of differences.
      if (inside_[node] >= 1) {
        inside += inside_[node];
        const auto number = static_cast<std::int64_t>(node);
        const cluster::LinkClass& link = cluster::link_between_nodes(graph_, number, number);
        local = inside_[node] / rate(link, receivers_[node]);
        move.latency = std::max(move.latency, link.latency.value);
      }
      disk += disk_[node];
      const double read = disk_[node] / constants.checkpoint_read.value;
      const double seconds = std::max({in + read, out, local});
      if (seconds <= worst) continue;
      worst = seconds;
      move.worst_node = static_cast<std::int64_t>(node);
      move.checkpoint = Seconds(in + read < seconds ? 0 : read);
      move.links = Seconds(seconds) - move.checkpoint;
    }
    for (const cluster::LinkClass* link : links_) move.latency = std::max(move.latency, link->latency.value);
    move.bytes_inside = Bytes(std::llround(inside));
    move.bytes_from_disk = Bytes(std::llround(disk));
  }

  const cluster::ResourceGraph& graph_;
  const plan::Plan& running_;
  const plan::Plan& next_;
  std::vector<StatePart> parts_;
  std::vector<Place> all_old_;
  std::vector<std::vector<int>> old_;              // by stage, into all_old_
  std::vector<std::vector<Place>> new_;            // by stage
  std::vector<std::int64_t> senders_, receivers_;  // devices of the running and the next plan, by node
  bool starts_ = false;                            // a device of the next plan has no process yet

  std::vector<const cluster::LinkClass*> links_;
  std::vector<std::vector<double>> in_, out_;  // bytes by link and node
  std::vector<double> inside_, disk_;          // bytes by node
  double kept_ = 0, between_ = 0, missing_ = 0;
  std::set<std::string> missing_names_;
};

}  // namespace

PlacedDevices place_devices(const plan::Plan& running, const cluster::DeviceMap& devices) {
  PlacedDevices placed;
  for (const plan::Stage& stage : running.stages) {
    placed.emplace_back();
    for (const plan::Replica& replica : stage.replicas) {
      placed.back().emplace_back();
      for (const plan::DeviceId device : replica.devices)
        placed.back().back().push_back(
            devices.at(static_cast<std::size_t>(device.device_class)).at(static_cast<std::size_t>(device.index)));
    }
  }
  return placed;
}

bool is_same_plan(const plan::Plan& running, const cluster::DeviceMap& devices, const plan::Plan& next) {
  const PlacedDevices placed = place_devices(running, devices);
  std::vector<plan::Stage> stages = running.stages;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    for (std::size_t r = 0; r < stages[s].replicas.size(); ++r) {
      for (std::size_t p = 0; p < placed[s][r].size(); ++p) {
        if (!placed[s][r][p]) return false;
        stages[s].replicas[r].devices[p] = *placed[s][r][p];
      }
    }
  }
  return stages == next.stages && running.batch == next.batch && running.precision == next.precision &&
         running.schedule == next.schedule && running.receive_credits == next.receive_credits;
}

MoveEstimate estimate_move(const cost_model::CostModel& cost, const plan::Plan& running,
                           const cluster::DeviceMap& devices, const plan::Plan& next, const MoveConstants& constants) {
  if (is_same_plan(running, devices, next)) return {};
  return Tally(cost, running, place_devices(running, devices), next).run(constants);
}

}  // namespace coxswain::planner
