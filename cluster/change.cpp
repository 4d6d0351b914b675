#include "cluster/change.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <tuple>
#include <utility>

namespace coxswain::cluster {
namespace {

/// Of each device of a node, in local order: 0 lost, 1 as it was, else the fraction of its rates that is left.
using Fates = std::vector<double>;

template <class Named>
std::string join_names(const std::vector<Named>& all) {
  std::string names;
  for (const Named& one : all) names += (names.empty() ? "" : ", ") + one.name;
  return names;
}

template <class Named>
int find_name(const std::vector<Named>& all, const std::string& name) {
  const auto found = std::find_if(all.begin(), all.end(), [&](const Named& one) { return one.name == name; });
  return found == all.end() ? -1 : static_cast<int>(found - all.begin());
}

std::string range_text(const std::string& name, std::int64_t first, std::int64_t last) {
  return name + ":" + std::to_string(first) + (last > first ? "-" + std::to_string(last) : "");
}

const NodeClass& class_of(const ResourceGraph& graph, const NodeGroup& group) {
  return graph.node_classes[static_cast<std::size_t>(group.node_class)];
}

std::int64_t devices_of(const NodeClass& node_class) {
  std::int64_t devices = 0;
  for (const DeviceCount& entry : node_class.devices) devices += entry.count;
  return devices;
}

/// Resolves the names of a change and says what becomes of each device of each touched node.
class FateFinder {
 public:
  FateFinder(const ResourceGraph& graph, const ClusterChange& change) : graph_(graph), change_(change) {}

  void run() {
    for (const auto& lost : change_.lost) mark("--lost", lost.name, lost.first, lost.last, 0);
    for (const auto& slower : change_.slower) {
      if (slower.rate_fraction > 0 && slower.rate_fraction < 1)
        mark("--slower", slower.name, slower.first, slower.last, slower.rate_fraction);
      else
        add("--slower", "slower devices need a fraction of their rates", "a number above 0 and below 1",
            to_text(Json(slower.rate_fraction)));
    }
    for (const auto& added : change_.added) {
      if (find_name(graph_.node_classes, added.node_class) < 0)
        add("--added", "no node class of that name", join_names(graph_.node_classes), added.node_class,
            "for hardware of another kind write the whole cluster as a file");
      if (added.count < 1) add("--added", "count must be positive", "at least 1", std::to_string(added.count));
    }
  }

  std::map<std::int64_t, Fates> fates;  // of touched nodes, by number
  std::vector<Error> problems;

 private:
  void add(const char* flag, std::string message, std::string expected, std::string got, std::string hint = "") {
    problems.push_back(Error{ErrorCode::InvalidArgument, std::move(message), flag, std::move(expected), std::move(got),
                             std::move(hint)});
  }

  void mark(const char* flag, const std::string& name, std::int64_t first, std::int64_t last, double fraction) {
    const int device_class = find_name(graph_.device_classes, name);
    const bool nodes = device_class < 0 && name == "node";
    if (device_class < 0 && !nodes) {
      add(flag, "no device class of that name", join_names(graph_.device_classes) + ", or node for whole nodes", name);
      return;
    }
    const std::int64_t count = nodes ? num_nodes(graph_) : num_devices(graph_, device_class);
    if (first < 0 || last < first || last >= count) {
      add(flag, nodes ? "the cluster has no such node" : "the cluster has no such device",
          count == 0 ? "another class: there is none of this one" : range_text(name, 0, count - 1),
          range_text(name, first, last));
      return;
    }
    for (std::int64_t i = first; i <= last; ++i) {
      if (nodes) {
        Fates& fates_here = of_node(i);
        for (std::size_t d = 0; d < fates_here.size(); ++d) set(flag, range_text(name, i, i), fates_here[d], fraction);
      } else {
        const DeviceLocation place = locate(graph_, {device_class, i});
        set(flag, range_text(name, i, i), of_node(place.node)[static_cast<std::size_t>(place.local_index)], fraction);
      }
    }
  }

  Fates& of_node(std::int64_t node) {
    const auto found = fates.find(node);
    if (found != fates.end()) return found->second;
    std::int64_t left = node;
    for (const NodeGroup& group : graph_.nodes) {
      if (left < group.count)
        return fates.emplace(node, Fates(static_cast<std::size_t>(devices_of(class_of(graph_, group))), 1.0))
            .first->second;
      left -= group.count;
    }
    return fates[node];
  }

  void set(const char* flag, const std::string& device, double& fate, double fraction) {
    if (fate != 1.0 && fate != fraction) {
      add(flag, "a device is named twice with different fates", "one entry a device", device);
      return;
    }
    fate = fraction;
  }

  const ResourceGraph& graph_;
  const ClusterChange& change_;
};

/// Nodes of one class in a row, by their old numbers; -1: added.
struct Piece {
  int node_class = 0;
  std::vector<std::int64_t> nodes;
  std::vector<NetworkTier> tiers = {};
  bool continues = false;
};

bool bounded(const std::vector<NetworkTier>& tiers) {
  return std::any_of(tiers.begin(), tiers.end(), [](const NetworkTier& tier) { return tier.nodes_per_domain > 0; });
}

class Builder {
 public:
  Builder(const ResourceGraph& before, const std::map<std::int64_t, Fates>& fates) : before_(before), fates_(fates) {
    result_.graph = before;
  }

  Result<ChangedCluster> run(const std::vector<ClusterChange::Added>& added) {
    lay_out();
    for (const auto& one : added) append(one);
    const auto& classes = result_.graph.node_classes;
    while (!pieces_.empty() && classes[static_cast<std::size_t>(pieces_.back().node_class)].devices.empty())
      pieces_.pop_back();
    fill_nodes();
    fill_map();
    fill_overrides();
    if (auto problems = validate(result_.graph); !problems.empty())
      return combine_errors(ErrorCode::InvalidArgument, "the changed cluster has problems", std::move(problems));
    return std::move(result_);
  }

 private:
  [[nodiscard]] bool touched(std::int64_t node) const { return fates_.contains(node); }
  [[nodiscard]] bool gone(std::int64_t node) const {
    const auto found = fates_.find(node);
    return found != fates_.end() &&
           std::all_of(found->second.begin(), found->second.end(), [](double fate) { return fate == 0; });
  }

  void lay_out() {
    std::int64_t first_node = 0, run_start = 0;
    std::vector<NetworkTier> tiers;
    for (std::size_t g = 0; g < before_.nodes.size(); ++g) {
      const NodeGroup& group = before_.nodes[g];
      if (!group.continues) {
        run_start = first_node;
        tiers = group.tiers;
        run_open_ = false;
      }
      std::vector<std::int64_t> order(static_cast<std::size_t>(group.count));
      for (std::size_t i = 0; i < order.size(); ++i) order[i] = first_node + static_cast<std::int64_t>(i);
      const bool last_of_run = g + 1 == before_.nodes.size() || !before_.nodes[g + 1].continues;
      arrange_group(order, tiers, run_start);
      drop_gone(order, tiers, last_of_run);
      emit(order, group.node_class, tiers);
      first_node += group.count;
    }
  }

  /// Like nodes of a domain first. Where links of single pairs were measured, or domains of two kinds cross, no two
  /// nodes are alike.
  void arrange_group(std::vector<std::int64_t>& order, const std::vector<NetworkTier>& tiers,
                     std::int64_t run_start) const {
    if (!before_.link_overrides.empty() || (bounded(tiers) && bounded(before_.tiers))) return;
    const bool own = bounded(tiers);
    std::vector<std::int64_t> sizes;  // of domains, largest first
    for (const NetworkTier& tier : own ? tiers : before_.tiers) {
      if (tier.nodes_per_domain > 1) sizes.insert(sizes.begin(), tier.nodes_per_domain);
    }
    arrange(order, sizes, own ? run_start : 0);
  }

  void arrange(std::vector<std::int64_t>& order, const std::vector<std::int64_t>& sizes, std::int64_t origin) const {
    if (sizes.empty()) {
      std::stable_sort(order.begin(), order.end(),
                       [this](std::int64_t a, std::int64_t b) { return rank(a) < rank(b); });
      return;
    }
    const std::vector<std::int64_t> inner(sizes.begin() + 1, sizes.end());
    std::vector<std::vector<std::int64_t>> domains;
    for (const std::int64_t node : order) {
      const std::int64_t domain = (node - origin) / sizes.front();
      if (domains.empty() || (domains.back().front() - origin) / sizes.front() != domain) domains.emplace_back();
      domains.back().push_back(node);
    }
    for (auto& domain : domains) arrange(domain, inner, origin);
    // Only domains that lie wholly in the group may change places; the others are its ends.
    const auto whole = [&](const auto& domain) { return static_cast<std::int64_t>(domain.size()) == sizes.front(); };
    const auto begin = std::find_if(domains.begin(), domains.end(), whole);
    const auto end = std::find_if_not(begin, domains.end(), whole);
    const auto damage = [this](const auto& domain) {
      std::pair<std::int64_t, std::int64_t> count;
      for (const std::int64_t node : domain) {
        count.first += gone(node) ? 1 : 0;
        count.second += touched(node) ? 1 : 0;
      }
      return count;
    };
    std::stable_sort(begin, end, [&](const auto& a, const auto& b) { return damage(a) < damage(b); });
    order.clear();
    for (const auto& domain : domains) order.insert(order.end(), domain.begin(), domain.end());
  }

  [[nodiscard]] std::pair<int, Fates> rank(std::int64_t node) const {
    if (!touched(node)) return {0, {}};
    if (gone(node)) return {2, {}};
    Fates sorted = fates_.at(node);
    std::sort(sorted.begin(), sorted.end());
    return {1, sorted};
  }

  /// Lost nodes whose number no later node needs.
  void drop_gone(std::vector<std::int64_t>& order, const std::vector<NetworkTier>& tiers, bool last_of_run) const {
    if (bounded(before_.tiers)) return;  // trailing ones go at the end
    if (!bounded(tiers)) {
      std::erase_if(order, [this](std::int64_t node) { return gone(node); });
    } else if (last_of_run) {
      while (!order.empty() && gone(order.back())) order.pop_back();
    }
  }

  void emit(const std::vector<std::int64_t>& order, int node_class, const std::vector<NetworkTier>& tiers) {
    bool first_of_group = true;
    for (const std::int64_t node : order) {
      const int here = touched(node) ? class_after(node_class, fates_.at(node)) : node_class;
      if (first_of_group || pieces_.back().node_class != here) {
        Piece piece{here, {}};
        if (run_open_)
          piece.continues = !tiers.empty();
        else
          piece.tiers = tiers;
        pieces_.push_back(std::move(piece));
        run_open_ = true;
      }
      first_of_group = false;
      pieces_.back().nodes.push_back(node);
    }
  }

  /// The class of a node of `node_class` with `fates`.
  int class_after(int node_class, const Fates& fates) {
    NodeClass after = before_.node_classes[static_cast<std::size_t>(node_class)];
    std::map<int, std::int64_t> counts;
    std::vector<int> order;
    std::size_t at = 0;
    for (const DeviceCount& entry : before_.node_classes[static_cast<std::size_t>(node_class)].devices) {
      for (std::int64_t i = 0; i < entry.count; ++i, ++at) {
        if (fates[at] == 0) continue;
        const int device_class = slowed_class(entry.device_class, fates[at]);
        if (counts[device_class]++ == 0) order.push_back(device_class);
      }
    }
    after.devices.clear();
    std::string text;
    for (const int device_class : order) {
      after.devices.push_back({device_class, counts[device_class]});
      text += (text.empty() ? "" : ", ") + std::to_string(counts[device_class]) + " x " +
              result_.graph.device_classes[static_cast<std::size_t>(device_class)].name;
    }
    after.name += text.empty() ? " lost" : " with " + text;
    auto& classes = result_.graph.node_classes;
    for (std::size_t c = 0; c < classes.size(); ++c) {
      if (classes[c] == after) return static_cast<int>(c);
    }
    while (find_name(classes, after.name) >= 0) after.name += " *";
    classes.push_back(std::move(after));
    return static_cast<int>(classes.size()) - 1;
  }

  int slowed_class(int device_class, double fraction) {
    if (fraction == 1) return device_class;
    auto& classes = result_.graph.device_classes;
    DeviceClass slow = classes[static_cast<std::size_t>(device_class)];
    char text[32];
    std::snprintf(text, sizeof text, " at %g", fraction);
    slow.name += text;
    if (const int known = find_name(classes, slow.name); known >= 0) return known;
    const auto scale = [&](auto& rate) { rate = {rate.value * fraction, Source::Assumed}; };
    scale(slow.memory_bandwidth);
    scale(slow.peak_float32);
    scale(slow.peak_bfloat16);
    for (MatmulRate& rate : slow.matmul_rates) scale(rate.rate);
    slow.launch_overhead = {slow.launch_overhead.value / fraction, Source::Assumed};
    classes.push_back(std::move(slow));
    const int made = static_cast<int>(classes.size()) - 1;
    result_.slowed.push_back({made, device_class, fraction});
    return made;
  }

  void append(const ClusterChange::Added& added) {
    const int node_class = find_name(before_.node_classes, added.node_class);
    const std::vector<std::int64_t> nodes(static_cast<std::size_t>(added.count), -1);
    const auto same = [&](const Piece& piece) { return piece.node_class == node_class; };
    const auto last = std::find_if(pieces_.rbegin(), pieces_.rend(), same);
    const bool free = !bounded(before_.tiers) && last != pieces_.rend() && !bounded(tiers_of(last));
    if (free || last == pieces_.rbegin()) {
      last->nodes.insert(last->nodes.end(), nodes.begin(), nodes.end());
      return;
    }
    Piece piece{node_class, nodes};
    if (last != pieces_.rend()) piece.tiers = tiers_of(last);
    pieces_.push_back(std::move(piece));
  }

  /// Of the group that the piece continues.
  [[nodiscard]] const std::vector<NetworkTier>& tiers_of(std::vector<Piece>::const_reverse_iterator piece) const {
    while (piece->continues) ++piece;
    return piece->tiers;
  }

  void fill_nodes() {
    result_.graph.nodes.clear();
    for (const Piece& piece : pieces_)
      result_.graph.nodes.push_back(
          {piece.node_class, static_cast<std::int64_t>(piece.nodes.size()), piece.tiers, piece.continues});
  }

  void fill_map() {
    // First index of each entry of each old node.
    std::vector<std::vector<std::int64_t>> first;
    std::vector<const NodeClass*> classes;
    std::vector<std::int64_t> next(before_.device_classes.size(), 0);
    for (const NodeGroup& group : before_.nodes) {
      const NodeClass& node_class = class_of(before_, group);
      for (std::int64_t i = 0; i < group.count; ++i) {
        first.emplace_back();
        classes.push_back(&node_class);
        for (const DeviceCount& entry : node_class.devices) {
          first.back().push_back(next[static_cast<std::size_t>(entry.device_class)]);
          next[static_cast<std::size_t>(entry.device_class)] += entry.count;
        }
      }
    }
    for (const std::int64_t count : next) result_.devices.emplace_back(static_cast<std::size_t>(count));

    std::vector<std::int64_t> made(result_.graph.device_classes.size(), 0);
    for (const Piece& piece : pieces_) {
      for (const std::int64_t node : piece.nodes) {
        if (node < 0) {
          for (const DeviceCount& entry : before_.node_classes[static_cast<std::size_t>(piece.node_class)].devices)
            made[static_cast<std::size_t>(entry.device_class)] += entry.count;
          continue;
        }
        const auto fates = fates_.find(node);
        std::size_t at = 0;
        const NodeClass& node_class = *classes[static_cast<std::size_t>(node)];
        for (std::size_t e = 0; e < node_class.devices.size(); ++e) {
          const DeviceCount& entry = node_class.devices[e];
          for (std::int64_t i = 0; i < entry.count; ++i, ++at) {
            const double fate = fates == fates_.end() ? 1.0 : fates->second[at];
            if (fate == 0) continue;
            const int device_class = slowed_class(entry.device_class, fate);
            result_.devices[static_cast<std::size_t>(entry.device_class)]
                           [static_cast<std::size_t>(first[static_cast<std::size_t>(node)][e] + i)] =
                DeviceId{device_class, made[static_cast<std::size_t>(device_class)]++};
          }
        }
      }
    }
  }

  void fill_overrides() {
    std::map<std::int64_t, std::int64_t> number;  // new of old
    std::int64_t next = 0;
    for (const Piece& piece : pieces_) {
      for (const std::int64_t node : piece.nodes) {
        if (node >= 0) number[node] = next;
        ++next;
      }
    }
    result_.graph.link_overrides.clear();
    for (LinkOverride entry : before_.link_overrides) {
      const auto a = number.find(entry.node_a), b = number.find(entry.node_b);
      if (a == number.end() || b == number.end()) continue;
      entry.node_a = a->second;
      entry.node_b = b->second;
      result_.graph.link_overrides.push_back(std::move(entry));
    }
  }

  const ResourceGraph& before_;
  const std::map<std::int64_t, Fates>& fates_;
  ChangedCluster result_;
  std::vector<Piece> pieces_;
  bool run_open_ = false;  // a piece of the current run of groups stands already
};

}  // namespace

Result<ChangedCluster> apply_change(const ResourceGraph& before, const ClusterChange& change) {
  FateFinder finder(before, change);
  finder.run();
  if (finder.problems.empty() && change.added.empty()) {
    std::int64_t lost = 0;
    for (const auto& [node, fates] : finder.fates) lost += std::count(fates.begin(), fates.end(), 0.0);
    if (lost == num_devices(before))
      finder.problems.push_back(Error{ErrorCode::InvalidArgument, "no device is left", "--lost",
                                      "fewer than all " + std::to_string(lost) + " devices",
                                      std::to_string(lost) + " lost", "name nodes that are added with --added"});
  }
  if (!finder.problems.empty())
    return combine_errors(ErrorCode::InvalidArgument, "the change does not fit the cluster",
                          std::move(finder.problems));
  return Builder(before, finder.fates).run(change.added);
}

DeviceMap match_devices(const ResourceGraph& before, const ResourceGraph& after) {
  DeviceMap devices;
  for (std::size_t c = 0; c < before.device_classes.size(); ++c) {
    const int same = find_name(after.device_classes, before.device_classes[c].name);
    const std::int64_t left = same < 0 ? 0 : num_devices(after, same);
    auto& row = devices.emplace_back(static_cast<std::size_t>(num_devices(before, static_cast<int>(c))));
    for (std::size_t i = 0; i < row.size() && static_cast<std::int64_t>(i) < left; ++i)
      row[i] = DeviceId{same, static_cast<std::int64_t>(i)};
  }
  return devices;
}

DeviceMap identity_map(const ResourceGraph& graph) { return match_devices(graph, graph); }

void add_slowed(Profile& profile, const ChangedCluster& changed) {
  for (const SlowedClass& slowed : changed.slowed) {
    const std::string& from = changed.graph.device_classes[static_cast<std::size_t>(slowed.of)].name;
    const std::string& name = changed.graph.device_classes[static_cast<std::size_t>(slowed.device_class)].name;
    const std::size_t timings = profile.blocks.size(), rates = profile.devices.size();
    for (std::size_t i = 0; i < timings; ++i) {
      if (profile.blocks[i].device_class != from) continue;
      BlockTiming timing = profile.blocks[i];
      timing.device_class = name;
      timing.forward = timing.forward / slowed.rate_fraction;
      timing.backward = timing.backward / slowed.rate_fraction;
      profile.blocks.push_back(std::move(timing));
    }
    for (std::size_t i = 0; i < rates; ++i) {
      if (profile.devices[i].device_class != from) continue;
      Profile::DeviceRates slow = profile.devices[i];
      slow.device_class = name;
      for (Seconds* seconds :
           {&slow.optimizer_per_parameter, &slow.norm_per_parameter, &slow.step_overhead, &slow.action_overhead})
        *seconds = *seconds / slowed.rate_fraction;
      profile.devices.push_back(std::move(slow));
    }
  }
  std::stable_sort(profile.blocks.begin(), profile.blocks.end(), [](const BlockTiming& a, const BlockTiming& b) {
    return std::tie(a.signature, a.device_class, a.samples) < std::tie(b.signature, b.device_class, b.samples);
  });
}

}  // namespace coxswain::cluster
