#pragma once
// Plans for the exporters' tests: uniform ones from a few numbers, to be bent by the test.
#include "plan/export_shape.h"
#include "tests/support/graph_builder.h"

namespace coxswain::plan {

/// Eight nodes of four big devices and one of four small ones.
inline const cluster::ResourceGraph& export_cluster() {
  static const cluster::ResourceGraph kCluster = [] {
    cluster::ResourceGraph graph;
    for (const char* name : {"big", "small"}) {
      cluster::DeviceClass device;
      device.name = name;
      device.memory = {Bytes(1 << 30), cluster::Source::Assumed};
      graph.device_classes.push_back(device);
      cluster::NodeClass node;
      node.name = name;
      node.devices = {{static_cast<int>(graph.node_classes.size()), 4}};
      graph.node_classes.push_back(node);
    }
    graph.nodes = {{0, 8}, {1, 1}};
    return graph;
  }();
  return kCluster;
}

/// Blocks: prologue, `num_layers` layers, epilogue.
inline const model::ModelGraph& export_model() {
  static const model::ModelGraph kModel = make_chain_graph({.num_layers = 8});
  return kModel;
}

struct ExportSpec {
  std::vector<int> layers = {8};  // of each stage; prologue and epilogue stand on the ends
  int data = 1, tensor = 1;
  std::int64_t samples = 2;  // of a replica in a micro-batch
  std::int64_t count = 4;
};

/// Devices of class 0 in turn.
inline Plan make_export_plan(const ExportSpec& spec) {
  Plan plan;
  plan.batch = {spec.samples * spec.data * spec.count, spec.samples * spec.data, spec.count};
  int block = 0;
  std::int64_t device = 0;
  for (std::size_t s = 0; s < spec.layers.size(); ++s) {
    Stage stage;
    stage.first_block = block;
    block += spec.layers[s] + (s == 0 ? 1 : 0) + (s + 1 == spec.layers.size() ? 1 : 0);
    stage.end_block = block;
    stage.recompute.assign(static_cast<std::size_t>(block - stage.first_block), Recompute::None);
    for (int r = 0; r < spec.data; ++r) {
      Replica replica;
      replica.tensor = spec.tensor;
      replica.samples = spec.samples;
      for (int d = 0; d < spec.tensor; ++d) replica.devices.push_back({0, device++});
      stage.replicas.push_back(replica);
    }
    plan.stages.push_back(stage);
  }
  return plan;
}

inline ExportShape shape_of(const Plan& plan) { return *make_export_shape(plan, export_model(), export_cluster()); }

/// The lines of `text` that are no comments, each with its newline.
inline std::string without_comments(const std::string& text) {
  std::string kept;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    if (text[at] != '#' && text[at] != '\n') kept += text.substr(at, end - at);
    at = end;
  }
  return kept;
}

inline bool tells(const std::vector<std::string>& lost, const std::string& words) {
  for (const std::string& each : lost) {
    if (each.find(words) != std::string::npos) return true;
  }
  return false;
}

}  // namespace coxswain::plan
