// The price of a move: closed forms, and every element of every parameter counted one by one (C71 to C74).
#include "planner/move.h"

#include <cmath>
#include <map>
#include <set>

#include "tests/planner/random_moves.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

/// Holds one element after the other in sets, and moves it as C72 says.
class ElementByElement {
 public:
  ElementByElement(const model::ModelGraph& graph, const cluster::ResourceGraph& resources, const plan::Plan& running,
                   const cluster::DeviceMap& devices, const plan::Plan& next)
      : graph_(graph), resources_(resources), running_(running), devices_(devices), next_(next) {
    count(false);
    if (missing > 0) count(true);
  }

  double kept = 0, inside = 0, between = 0, disk = 0, missing = 0;

  [[nodiscard]] double worst_seconds(double read_rate) const {
    std::map<std::int64_t, std::pair<std::int64_t, std::int64_t>> places;  // devices before, after
    for (const auto& [device, place] : survivors()) ++places[cluster::locate(resources_, device).node].first;
    for (const plan::Stage& stage : next_.stages) {
      for (const plan::Replica& replica : stage.replicas) {
        for (const plan::DeviceId device : replica.devices) ++places[cluster::locate(resources_, device).node].second;
      }
    }
    double worst = 0;
    const auto seconds = [](double bytes, const cluster::LinkClass& link, std::int64_t flows) {
      const double most = link.sharing == 0 ? 1e9 : link.sharing;
      return bytes / (link.bandwidth.value.value * std::min(most, static_cast<double>(flows)));
    };
    for (const auto& [node, count] : places) {
      double in = 0, out = 0;
      for (const auto& [key, bytes] : in_) {
        if (key.first == node) in += seconds(bytes, link_named(key.second), count.second);
      }
      for (const auto& [key, bytes] : out_) {
        if (key.first == node) out += seconds(bytes, link_named(key.second), count.first);
      }
      const auto read = disk_.find(node), local = inside_.find(node);
      if (read != disk_.end()) in += read->second / read_rate;
      worst = std::max({worst, in, out});
      if (local != inside_.end() && local->second > 0)
        worst = std::max(worst, seconds(local->second, resources_.node_classes[0].link, count.second));
    }
    return worst;
  }

 private:
  [[nodiscard]] std::map<plan::DeviceId, plan::RankPlace> survivors() const {
    std::map<plan::DeviceId, plan::RankPlace> result;
    for (int s = 0; s < static_cast<int>(running_.stages.size()); ++s) {
      const auto& replicas = running_.stages[static_cast<std::size_t>(s)].replicas;
      for (int r = 0; r < static_cast<int>(replicas.size()); ++r) {
        const auto& mesh = replicas[static_cast<std::size_t>(r)].devices;
        for (int p = 0; p < static_cast<int>(mesh.size()); ++p) {
          const auto now = devices_[0][static_cast<std::size_t>(mesh[static_cast<std::size_t>(p)].index)];
          if (now) result[*now] = {s, r, p};
        }
      }
    }
    return result;
  }

  [[nodiscard]] const cluster::LinkClass& link_named(const std::string& name) const {
    for (const auto& tier : resources_.tiers) {
      if (tier.link.name == name) return tier.link;
    }
    FAIL(name);
    return resources_.tiers[0].link;
  }

  static bool uses(const plan::Stage& stage, const std::vector<int>& blocks) {
    return std::any_of(blocks.begin(), blocks.end(),
                       [&](int block) { return block >= stage.first_block && block < stage.end_block; });
  }

  /// Does the device at `place` hold element `e` of the state?
  bool holds(const plan::Plan& plan, plan::RankPlace place, const std::vector<int>& blocks, bool vector, int e,
             bool optimizer) const {
    const plan::Stage& stage = plan.stages[static_cast<std::size_t>(place.stage)];
    if (!uses(stage, blocks)) return false;
    const int shards = vector ? 1 : stage.replicas.front().tensor;
    const int size = 144 / shards;
    const plan::Replica& mesh = stage.replicas.front();
    if (!vector && e / size != place.position % mesh.tensor) return false;
    if (stage.zero_stage < (optimizer ? 1 : 3)) return true;
    const int holders = static_cast<int>(stage.replicas.size()) * mesh.context;
    return (e % size) / (size / holders) == place.replica * mesh.context + place.position / mesh.tensor;
  }

  void count(bool from_disk) {
    kept = inside = between = disk = 0;
    in_.clear();
    out_.clear();
    disk_.clear();
    inside_.clear();
    const cost_model::ModelFacts facts(graph_);
    for (const auto& parameter : facts.parameters()) {
      for (int e = 0; e < 144; ++e) {
        one(parameter.blocks, !parameter.sharded, e, false, 4, from_disk);
        one(parameter.blocks, !parameter.sharded, e, true, 8, from_disk);
      }
    }
  }

  void one(const std::vector<int>& blocks, bool vector, int e, bool optimizer, double bytes, bool from_disk) {
    std::set<plan::DeviceId> have;
    std::set<std::int64_t> nodes;
    for (const auto& [device, place] : survivors()) {
      if (from_disk || !holds(running_, place, blocks, vector, e, optimizer)) continue;
      have.insert(device);
      nodes.insert(cluster::locate(resources_, device).node);
    }
    std::map<std::int64_t, int> lacking;
    for (int s = 0; s < static_cast<int>(next_.stages.size()); ++s) {
      const auto& replicas = next_.stages[static_cast<std::size_t>(s)].replicas;
      for (int r = 0; r < static_cast<int>(replicas.size()); ++r) {
        for (int p = 0; p < static_cast<int>(replicas[static_cast<std::size_t>(r)].devices.size()); ++p) {
          if (!holds(next_, {s, r, p}, blocks, vector, e, optimizer)) continue;
          const plan::DeviceId device = replicas[static_cast<std::size_t>(r)].devices[static_cast<std::size_t>(p)];
          if (have.contains(device))
            kept += bytes;
          else
            ++lacking[cluster::locate(resources_, device).node];
        }
      }
    }
    for (const auto& [node, count] : lacking) {
      int copies = count;
      if (!nodes.contains(node)) {
        --copies;
        if (from_disk) {
          disk += bytes;
          disk_[node] += bytes;
        } else if (nodes.empty()) {
          missing += bytes;
        } else {
          enter(node, nodes, bytes);
        }
      }
      inside += copies * bytes;
      inside_[node] += copies * bytes;
    }
  }

  void enter(std::int64_t node, const std::set<std::int64_t>& holders, double bytes) {
    between += bytes;
    std::map<double, std::vector<std::int64_t>> by_rate;
    for (const std::int64_t holder : holders)
      by_rate[cluster::link_between_nodes(resources_, node, holder).bandwidth.value.value].push_back(holder);
    const auto& nearest = by_rate.rbegin()->second;
    const std::string link = cluster::link_between_nodes(resources_, node, nearest.front()).name;
    in_[{node, link}] += bytes;
    for (const std::int64_t holder : nearest) out_[{holder, link}] += bytes / static_cast<double>(nearest.size());
  }

  const model::ModelGraph& graph_;
  const cluster::ResourceGraph& resources_;
  const plan::Plan& running_;
  const cluster::DeviceMap& devices_;
  const plan::Plan& next_;
  std::map<std::pair<std::int64_t, std::string>, double> in_, out_;
  std::map<std::int64_t, double> disk_, inside_;
};

}  // namespace

TEST_CASE("C72, C73, C74: the aggregated move is what moving every element takes", "[move_test]") {
  const auto resources = make_moving_cluster();
  std::mt19937 random(11);
  const auto pick = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  int with_missing = 0, with_links = 0;
  for (int round = 0; round < 200; ++round) {
    const model::ModelGraph graph = make_moving_graph(round % 2 == 0);
    const FakeCost cost(graph, resources);
    const auto running = random_sharded_plan(random, graph.num_blocks(), all_devices(resources));
    cluster::DeviceMap devices = cluster::identity_map(resources);
    std::vector<plan::DeviceId> left;
    for (const plan::DeviceId device : all_devices(resources)) {
      if (pick(0, 5) == 0)
        devices[0][static_cast<std::size_t>(device.index)].reset();
      else
        left.push_back(device);
    }
    if (left.size() < 12) continue;
    const auto next = random_sharded_plan(random, graph.num_blocks(), left);
    const MoveConstants constants{BytesPerSecond(20), Seconds(1), Seconds(5)};
    const MoveEstimate move = estimate_move(cost, running, devices, next, constants);
    const ElementByElement expected(graph, resources, running, devices, next);
    CAPTURE(round);
    CHECK(static_cast<double>(move.bytes_kept.value) == Approx(expected.kept));
    CHECK(static_cast<double>(move.bytes_inside.value) == Approx(expected.inside).margin(0.6));
    CHECK(static_cast<double>(move.bytes_between.value) == Approx(expected.between).margin(0.6));
    CHECK(static_cast<double>(move.bytes_from_disk.value) == Approx(expected.disk).margin(0.6));
    CHECK(static_cast<double>(move.bytes_missing.value) == Approx(expected.missing).margin(0.6));
    CHECK((move.links + move.checkpoint).value == Approx(expected.worst_seconds(20)).margin(1e-9));
    CHECK(move.seconds.value ==
          Approx((move.links + move.checkpoint + move.latency + move.restart).value).margin(1e-12));
    CHECK(move.missing.empty() == (expected.missing == 0));
    with_missing += expected.missing > 0 ? 1 : 0;
    with_links += expected.between > 0 ? 1 : 0;
  }
  CHECK(with_missing > 10);
  CHECK(with_links > 30);
}

TEST_CASE("a replica on another node costs its state over the link", "[move_test]") {
  // 12 bytes an element of two 144-element parameters; node 2 is in another rack: 10 bytes/s, one device, one flow.
  const model::ModelGraph graph = make_chain(2, 12);
  const auto resources = make_moving_cluster();
  const FakeCost cost(graph, resources);
  const auto devices = cluster::identity_map(resources);
  const auto running = make_plan(graph, resources, {{0, 4, {{0, 0}}, {4}}}, 1);
  const auto next = make_plan(graph, resources, {{0, 4, {{0, 0}, {0, 6}}, {2, 2}}}, 1);
  const MoveEstimate move = estimate_move(cost, running, devices, next);
  CHECK(move.bytes_kept == Bytes(12 * 288));
  CHECK(move.bytes_between == Bytes(12 * 288));
  CHECK(move.bytes_inside == Bytes(0));
  CHECK(move.links.value == Approx(12 * 288 / 10.0));
  CHECK(move.latency.value == 1e-4);
  CHECK(move.worst_node == 0);  // sends as long as node 2 receives
  // C75: a process starts on the new device; without one only communicators are made anew.
  CHECK(move.restart == MoveConstants{}.start_processes);
  CHECK(estimate_move(cost, next, devices, running).restart == MoveConstants{}.rebuild_communicators);
  CHECK(estimate_move(cost, next, devices, running).bytes_moved() == Bytes(0));
  // Three devices of the node: the state enters once, over two flows; two copies inside it over three.
  const auto three = make_plan(graph, resources, {{0, 4, {{0, 6}, {0, 7}, {0, 8}}, {2, 1, 1}}}, 1);
  const MoveEstimate wide = estimate_move(cost, running, devices, three);
  CHECK(wide.bytes_between == Bytes(12 * 288));
  CHECK(wide.bytes_inside == Bytes(2 * 12 * 288));
  // Node 0 sends with its one device, which takes longest.
  CHECK(wide.links.value == Approx(12 * 288 / 10.0));
  CHECK(wide.worst_node == 0);
}

TEST_CASE("the same plan on the same devices is no move", "[move_test]") {
  const model::ModelGraph graph = make_chain(2, 12);
  const auto resources = make_moving_cluster();
  const FakeCost cost(graph, resources);
  auto devices = cluster::identity_map(resources);
  const auto running = make_plan(graph, resources, {{0, 4, {{0, 0}, {0, 1}}, {2, 2}}}, 1);
  CHECK(estimate_move(cost, running, devices, running) == MoveEstimate{});
  // Other samples: nothing moves, but the ranks meet anew.
  auto other = running;
  other.stages[0].replicas[0].samples = 3;
  other.stages[0].replicas[1].samples = 1;
  const MoveEstimate move = estimate_move(cost, running, devices, other);
  CHECK(move.bytes_moved() == Bytes(0));
  CHECK(move.seconds == MoveConstants{}.rebuild_communicators);
  // The same ids are other devices where the numbers shifted.
  devices[0][0] = plan::DeviceId{0, 1};
  devices[0][1] = plan::DeviceId{0, 2};
  CHECK_FALSE(is_same_plan(running, devices, running));
}

TEST_CASE("C74: what no survivor holds sends everything back to the checkpoint, and is named", "[move_test]") {
  const model::ModelGraph graph = make_chain(2, 12);
  const auto resources = make_moving_cluster();
  const FakeCost cost(graph, resources);
  auto devices = cluster::identity_map(resources);
  auto running = make_plan(graph, resources, {{0, 4, {{0, 0}, {0, 3}}, {2, 2}}}, 1);
  const auto next = make_plan(graph, resources, {{0, 4, {{0, 0}}, {4}}}, 1);
  devices[0][3].reset();
  CHECK(estimate_move(cost, running, devices, next).bytes_from_disk == Bytes(0));
  running.stages[0].zero_stage = 1;
  const MoveEstimate move = estimate_move(cost, running, devices, next);
  CHECK(move.bytes_missing == Bytes(8 * 288 / 2));
  CHECK(move.bytes_from_disk == Bytes(12 * 288));
  CHECK(move.bytes_kept == Bytes(0));
  CHECK(move.missing == std::vector<std::string>{"optimizer state of blocks [0,4)"});
  CHECK(move.checkpoint.value == Approx(12 * 288 / 1e9));
}
