#pragma once
// Hand-built graphs and clusters whose costs can be counted on paper. Used by the tests of cost_model/ and planner/.
#include <string>
#include <utility>
#include <vector>

#include "cluster/resource_graph.h"
#include "model/model_graph.h"

namespace coxswain::test_support {

/// `num_layers` blocks x -> relu(x W) with W [width, width], between an empty prologue and an epilogue that holds the
/// loss sum(x). With `tied`, the epilogue multiplies by the first layer's W again.
inline model::ModelGraph make_chain(int num_layers, std::int64_t width, bool tied = false) {
  using namespace model;
  ModelGraph graph;
  graph.name = "chain";
  const auto add_value = [&](const std::string& name, std::vector<Dim> dims, bool depends, OpId producer) {
    graph.values.push_back({name, std::move(dims), DType::Float32, depends, depends, producer});
    return static_cast<ValueId>(graph.values.size() - 1);
  };
  const auto add_op = [&](const std::string& target, std::vector<Argument> arguments, std::vector<Dim> dims) {
    const auto op = static_cast<OpId>(graph.ops.size());
    const ValueId output = add_value("v" + std::to_string(op), std::move(dims), true, op);
    graph.ops.push_back({target, std::move(arguments), {output}, "", "", true});
    return output;
  };
  const auto begin_block = [&](const std::string& name, const std::string& signature) {
    graph.blocks.push_back({name, static_cast<OpId>(graph.ops.size()), static_cast<OpId>(graph.ops.size()), signature});
  };
  const auto end_block = [&] { graph.blocks.back().end_op = static_cast<OpId>(graph.ops.size()); };

  const Dim batch = Dim::symbol("batch");
  ValueId current = add_value("x", {batch, Dim(width)}, false, -1);
  graph.inputs.push_back({"x", current, 0});
  const auto linear = [&](ValueId input, ValueId weight) {
    return add_op("aten::linear", {{"input", ValueRef{input}}, {"weight", ValueRef{weight}}, {"bias", None{}}},
                  {batch, Dim(width)});
  };

  begin_block("prologue", "empty");
  end_block();
  std::vector<ValueId> weights;
  for (int i = 0; i < num_layers; ++i) {
    Parameter parameter;
    parameter.name = "layer" + std::to_string(i) + ".weight";
    parameter.value = add_value(parameter.name, {Dim(width), Dim(width)}, true, -1);
    parameter.dims = {width, width};
    graph.parameters.push_back(parameter);
    weights.push_back(parameter.value);
    // The first layer sends no gradient to its input, so it is not the others' equal.
    begin_block("layer" + std::to_string(i), i == 0 ? "first" : "layer");
    current = add_op("aten::relu", {{"self", ValueRef{linear(current, weights.back())}}}, {batch, Dim(width)});
    end_block();
  }
  begin_block("epilogue", "loss");
  if (tied) {
    current = linear(current, weights.front());
    graph.parameters.front().tied_names = {"head.weight"};
  }
  current = add_op("aten::sum", {{"self", ValueRef{current}}, {"dtype", None{}}}, {});
  end_block();
  graph.loss.push_back({1.0, current, std::nullopt});
  return graph;
}

inline cluster::LinkClass make_link(const std::string& name, double latency, double bandwidth, int sharing = 0) {
  return {name,
          {Seconds(latency), cluster::Source::Assumed},
          {BytesPerSecond(bandwidth), cluster::Source::Assumed},
          sharing};
}

inline cluster::DeviceClass make_device(const std::string& name, std::int64_t memory, double flops = 1e9,
                                        double bandwidth = 1e9) {
  cluster::DeviceClass device;
  device.name = name;
  device.cores = 1;
  device.memory.value = Bytes(memory);
  device.memory_bandwidth.value = BytesPerSecond(bandwidth);
  device.peak_float32.value = FlopPerSecond(flops);
  return device;
}

/// `num_nodes` equal nodes, each with `counts[c]` devices of `classes[c]`.
inline cluster::ResourceGraph make_cluster(std::vector<cluster::DeviceClass> classes,
                                           const std::vector<std::int64_t>& counts, std::int64_t num_nodes,
                                           cluster::LinkClass inner, cluster::LinkClass outer) {
  cluster::ResourceGraph graph;
  graph.device_classes = std::move(classes);
  cluster::NodeClass node;
  node.name = "node";
  for (std::size_t c = 0; c < counts.size(); ++c) {
    if (counts[c] > 0) node.devices.push_back({static_cast<int>(c), counts[c]});
  }
  node.link = std::move(inner);
  graph.node_classes = {node};
  graph.nodes = {{0, num_nodes}};
  if (num_nodes > 1) graph.tiers = {{std::move(outer), 0}};
  return graph;
}

/// One node with two devices of 1 GiB.
inline cluster::ResourceGraph two_devices() {
  return make_cluster({make_device("d", 1 << 30)}, {2}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1e9));
}

}  // namespace coxswain::test_support
