#pragma once
// Random instances for the brute force and the laws: blocks of unlike size, two device classes of unlike speed on one
// or two nodes, links between negligible and dominant, memory that binds. Everything comes from the generator's state.
#include <array>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cost_model/collective_time.h"
#include "cost_model/cost_model.h"
#include "planner/planner.h"
#include "tests/cost_model/synthetic_graph.h"

namespace coxswain::test_support {

/// Block b: relu(x W) with W [widths[b + 1], widths[b]], x [batch, sequence, width]; the last one sums to the loss.
/// With `tied` the last block uses the first one's W once more (widths must agree).
inline model::ModelGraph make_uneven_chain(const std::vector<std::int64_t>& widths, std::int64_t sequence, bool tied) {
  using namespace model;
  ModelGraph graph;
  graph.name = "uneven";
  const Dim batch = Dim::symbol("batch");
  const auto value = [&](const std::string& name, std::vector<Dim> dims, bool depends, OpId producer) {
    graph.values.push_back({name, std::move(dims), DType::Float32, depends, depends, producer});
    return static_cast<ValueId>(graph.values.size() - 1);
  };
  const auto op = [&](const std::string& target, std::vector<Argument> arguments, std::vector<Dim> dims) {
    const auto id = static_cast<OpId>(graph.ops.size());
    const ValueId output = value("v" + std::to_string(id), std::move(dims), true, id);
    graph.ops.push_back({target, std::move(arguments), {output}, "", "", true});
    return output;
  };
  ValueId current = value("x", {batch, Dim(sequence), Dim(widths.front())}, false, -1);
  graph.inputs.push_back({"x", current, 0});
  std::vector<ValueId> weights;
  const std::size_t blocks = widths.size() - 1;
  for (std::size_t b = 0; b < blocks; ++b) {
    const bool reuse = tied && b + 1 == blocks;
    if (!reuse) {
      Parameter parameter;
      parameter.name = "block" + std::to_string(b) + ".weight";
      parameter.value = value(parameter.name, {Dim(widths[b + 1]), Dim(widths[b])}, true, -1);
      parameter.dims = {widths[b + 1], widths[b]};
      weights.push_back(parameter.value);
      graph.parameters.push_back(std::move(parameter));
    }
    const auto first = static_cast<OpId>(graph.ops.size());
    current = op("aten::linear",
                 {{"input", ValueRef{current}},
                  {"weight", ValueRef{reuse ? weights.front() : weights.back()}},
                  {"bias", None{}}},
                 {batch, Dim(sequence), Dim(widths[b + 1])});
    current = b + 1 < blocks
                  ? op("aten::relu", {{"self", ValueRef{current}}}, {batch, Dim(sequence), Dim(widths[b + 1])})
                  : op("aten::sum", {{"self", ValueRef{current}}, {"dtype", None{}}}, {});
    // Blocks of one signature are equal in every cost; here none are.
    graph.blocks.push_back(
        {"block" + std::to_string(b), first, static_cast<OpId>(graph.ops.size()), "signature" + std::to_string(b)});
  }
  if (tied) graph.parameters.front().tied_names = {"head.weight"};
  graph.loss.push_back({1.0, current, std::nullopt});
  return graph;
}

/// Costs from tables by (class, block); links by the graph's own alpha-beta.
class TableCost final : public cost_model::CostModel {
 public:
  TableCost(const model::ModelGraph& graph, const cluster::ResourceGraph& resources)
      : graph_(graph), resources_(resources) {}

  struct Block {
    double forward = 0, backward = 0;    // seconds a sample on a device of speed 1
    double weight = 0;                   // fraction of backward that is W
    double replayed = 0, selective = 1;  // fractions of forward and of `saved` under selective recompute
    std::int64_t saved = 0, transient = 0;
  };
  std::vector<Block> blocks;
  std::vector<std::vector<double>> speed;  // by class, then block
  double fixed = 0;                        // seconds a block, in forward and in backward
  double optimizer_per_parameter = 0, step_overhead = 0, action_overhead = 0;

  cost_model::BlockTime estimate_block(const cost_model::BlockWork& work) const override {
    const Block& block = blocks[static_cast<std::size_t>(work.block)];
    const double share = static_cast<double>(work.samples) / work.tensor /
                         speed[static_cast<std::size_t>(work.device_class)][static_cast<std::size_t>(work.block)];
    cost_model::BlockTime time;
    if (work.samples == 0) return time;
    time.forward = Seconds(block.forward * share + fixed);
    time.backward = Seconds(block.backward * share + fixed);
    time.weight = time.backward * block.weight;
    time.saved = Bytes(block.saved * work.samples / work.tensor);
    time.owed = time.saved;
    time.replayed = time.forward * block.replayed;
    time.selective = Bytes(static_cast<std::int64_t>(static_cast<double>(time.saved.value) * block.selective));
    time.transient = Bytes(block.transient * work.samples / work.tensor);
    time.counts_shared = true;
    return time;
  }
  Seconds estimate_transfer(Bytes bytes, plan::DeviceId from, plan::DeviceId to) const override {
    return cost_model::estimate_transfer_time(resources_, bytes, from, to);
  }
  Seconds estimate_collective(collective::CollectiveKind kind, Bytes payload,
                              const std::vector<plan::DeviceId>& devices) const override {
    return cost_model::estimate_collective_time(resources_, kind, payload, devices);
  }
  Seconds estimate_optimizer(std::int64_t parameters, int) const override {
    return Seconds(optimizer_per_parameter * static_cast<double>(parameters));
  }
  Seconds estimate_step_overhead(int) const override { return Seconds(step_overhead); }
  Seconds estimate_action_overhead(int) const override { return Seconds(action_overhead); }
  const model::ModelGraph& model() const override { return graph_; }
  const cluster::ResourceGraph& resources() const override { return resources_; }

 private:
  const model::ModelGraph& graph_;
  const cluster::ResourceGraph& resources_;
};

struct SpaceInstance {
  model::ModelGraph graph;
  cluster::ResourceGraph resources;
  std::unique_ptr<TableCost> cost;
  std::int64_t global = 4;

  [[nodiscard]] planner::Request request(const plan::Capabilities& capabilities) const {
    planner::Request request;
    request.cost = cost.get();
    request.global_batch = global;
    request.capabilities = capabilities;
    return request;
  }
};

inline void copy_tables(const TableCost& from, TableCost& to) {
  to.blocks = from.blocks;
  to.speed = from.speed;
  to.fixed = from.fixed;
  to.optimizer_per_parameter = from.optimizer_per_parameter;
  to.step_overhead = from.step_overhead;
  to.action_overhead = from.action_overhead;
}

/// The same tables on other hardware of the same classes.
inline std::unique_ptr<SpaceInstance> with_resources(const SpaceInstance& from, cluster::ResourceGraph resources) {
  auto made = std::make_unique<SpaceInstance>();
  made->graph = from.graph;
  made->resources = std::move(resources);
  made->global = from.global;
  made->cost = std::make_unique<TableCost>(made->graph, made->resources);
  copy_tables(*from.cost, *made->cost);
  return made;
}

class InstanceMaker {
 public:
  explicit InstanceMaker(std::mt19937& random) : random_(random) {}

  /// `num_devices` of two classes, at least one of each.
  std::unique_ptr<SpaceInstance> make(int num_blocks, int num_devices) {
    auto made = std::make_unique<SpaceInstance>();
    std::vector<std::int64_t> widths;
    for (int b = 0; b <= num_blocks; ++b) widths.push_back(512 << pick(0, 3));
    const bool tied = pick(0, 3) == 0;
    if (tied) {
      widths[widths.size() - 2] = widths[0];
      widths.back() = widths[1];
    }
    made->graph = make_uneven_chain(widths, 16 << pick(0, 5), tied);
    constexpr std::array<std::int64_t, 3> kGlobal{4, 6, 8};
    made->global = kGlobal[static_cast<std::size_t>(pick(0, 2))];

    std::int64_t all_parameters = 0;
    for (const model::Parameter& parameter : made->graph.parameters)
      all_parameters += parameter.dims[0] * parameter.dims[1];
    // What stays for parameters, against what a micro-batch of everything would keep.
    const double stays = 16.0 * static_cast<double>(all_parameters);
    const double kept = stays / static_cast<double>(made->global * num_blocks) * spread(0.2, 4.0);

    // Seconds and bytes of the blocks first: memory limits and links are set against them.
    std::vector<TableCost::Block> blocks;
    double all_seconds = 0, all_saved = 0;
    for (int b = 0; b < num_blocks; ++b) {
      TableCost::Block block;
      block.forward = spread(1e-3, 8e-3);
      block.backward = block.forward * spread(1.6, 2.4);
      block.weight = spread(0.3, 0.55);
      block.replayed = spread(0.02, 0.4);
      block.selective = spread(0.3, 0.9);
      block.saved = static_cast<std::int64_t>(kept * spread(0.4, 2.5));
      block.transient = static_cast<std::int64_t>(kept * spread(0.02, 0.3));
      all_seconds += block.forward + block.backward;
      all_saved += static_cast<double>(block.saved);
      blocks.push_back(block);
    }
    const double sample = all_seconds / num_blocks;  // seconds of a sample in a block

    const double whole = stays + all_saved * static_cast<double>(made->global);
    std::vector<cluster::DeviceClass> classes;
    const bool cuda = pick(0, 1) == 1;
    for (const char* name : {"a", "b"}) {
      classes.push_back(make_device(name, static_cast<std::int64_t>(whole * spread(0.25, 1.5))));
      if (cuda) classes.back().kind = cluster::DeviceKind::Cuda;
    }
    // The biggest gradient takes from a hundredth of a block to several.
    const double bandwidth = 4.0 * 4096 * 4096 / (sample * spread(0.02, 3.0));
    const auto inner = make_link("inner", sample * spread(1e-3, 0.1), bandwidth);
    const auto outer = make_link("outer", sample * spread(1e-2, 0.3), bandwidth / spread(1.0, 20.0), pick(0, 1));
    made->resources = make_resources(std::move(classes), num_devices, inner, outer);
    // Some hosts take much of what the devices have no room for, some little, over links of any width.
    for (cluster::NodeClass& node : made->resources.node_classes) {
      node.host_memory.value = Bytes(static_cast<std::int64_t>(whole * spread(0.2, 4.0)));
      node.host_link = make_link("host", sample * spread(1e-3, 0.1), bandwidth * spread(0.1, 2.0));
      node.host_memory_bandwidth.value = BytesPerSecond(bandwidth * spread(1.0, 20.0));
    }

    made->cost = std::make_unique<TableCost>(made->graph, made->resources);
    made->cost->blocks = std::move(blocks);
    const double slow = spread(0.25, 1.0);
    made->cost->speed = {std::vector<double>(static_cast<std::size_t>(num_blocks), 1.0), {}};
    for (int b = 0; b < num_blocks; ++b) made->cost->speed[1].push_back(slow * spread(0.8, 1.25));
    made->cost->fixed = pick(0, 1) * sample * spread(0.02, 0.3);
    made->cost->optimizer_per_parameter = pick(0, 1) * sample * spread(0.1, 2.0) / static_cast<double>(all_parameters);
    made->cost->action_overhead = pick(0, 1) * sample * spread(0.01, 0.1);
    made->cost->step_overhead = pick(0, 1) * sample * spread(0.1, 1.0);
    return made;
  }

 private:
  /// One node; a node of each class; or two equal nodes where the numbers allow.
  cluster::ResourceGraph make_resources(std::vector<cluster::DeviceClass> classes, int num_devices,
                                        const cluster::LinkClass& inner, const cluster::LinkClass& outer) {
    const std::int64_t of_a = pick(1, num_devices - 1), of_b = num_devices - of_a;
    const int layout = pick(0, 2);
    if (layout == 0) return make_cluster(std::move(classes), {of_a, of_b}, 1, inner, outer);
    if (layout == 1 && num_devices >= 4 && num_devices % 2 == 0) {
      const std::int64_t a = pick(1, num_devices / 2 - 1);
      return make_cluster(std::move(classes), {a, num_devices / 2 - a}, 2, inner, outer);
    }
    cluster::ResourceGraph graph;
    graph.device_classes = std::move(classes);
    graph.node_classes = {{"node-a", {{0, of_a}}, inner, {}}, {"node-b", {{1, of_b}}, inner, {}}};
    graph.nodes = {{0, 1}, {1, 1}};
    graph.tiers = {{outer, 0}};
    return graph;
  }

  int pick(int least, int most) { return std::uniform_int_distribution<int>(least, most)(random_); }
  /// Even over the logarithm.
  double spread(double least, double most) {
    return least * std::pow(most / least, std::uniform_real_distribution<double>(0, 1)(random_));
  }
  std::mt19937& random_;
};

}  // namespace coxswain::test_support
