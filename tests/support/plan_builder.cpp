#include "tests/support/plan_builder.h"

#include <numeric>

namespace coxswain {

cluster::ResourceGraph make_cpu_cluster(const std::vector<std::int64_t>& counts) {
  using cluster::Source;
  cluster::ResourceGraph graph;
  cluster::NodeClass node;
  node.name = "node";
  node.link.name = "shared-memory";
  node.link.latency = {Seconds(1e-5), Source::Assumed};
  node.link.bandwidth = {BytesPerSecond(1e9), Source::Assumed};
  node.host_memory = {Bytes(std::int64_t{8} << 30), Source::Assumed};
  for (std::size_t c = 0; c < counts.size(); ++c) {
    cluster::DeviceClass device;
    device.name = "cpu-" + std::to_string(c);
    device.cores = 1.0 / static_cast<double>(c + 1);
    device.memory = {Bytes(std::int64_t{1} << 30), Source::Assumed};
    device.memory_bandwidth = {BytesPerSecond(1e10), Source::Assumed};
    device.peak_float32 = {FlopPerSecond(1e10 * device.cores), Source::Assumed};
    device.peak_bfloat16 = device.peak_float32;
    device.launch_overhead = {Seconds(1e-6), Source::Assumed};
    graph.device_classes.push_back(std::move(device));
    node.devices.push_back({static_cast<int>(c), counts[c]});
    node.cores += static_cast<int>(counts[c]);
  }
  graph.node_classes.push_back(std::move(node));
  graph.nodes.push_back({0, 1});
  return graph;
}

plan::Plan make_plan(const model::ModelGraph& graph, const cluster::ResourceGraph& resources,
                     const PlanOptions& options) {
  plan::Plan made;
  made.model_hash = model::model_hash(graph);
  made.cluster_hash = cluster::cluster_hash(resources);
  made.schedule = options.schedule;
  made.receive_credits = options.receive_credits;
  const auto& first = options.samples.front();
  made.batch.micro = std::accumulate(first.begin(), first.end(), std::int64_t{0});
  made.batch.count = options.count;
  made.batch.global = made.batch.micro * made.batch.count;
  std::int64_t next_device = 0;
  for (std::size_t s = 0; s < options.samples.size(); ++s) {
    plan::Stage stage;
    for (int chunk = 0; chunk < options.num_chunks; ++chunk) {
      const auto part = static_cast<std::size_t>(
          plan::part_of(options.schedule, static_cast<int>(s), static_cast<int>(options.samples.size()), chunk));
      const plan::BlockRun run{part == 0 ? 0 : options.cuts[part - 1],
                               part == options.cuts.size() ? graph.num_blocks() : options.cuts[part]};
      if (chunk == 0) {
        stage.first_block = run.first_block;
        stage.end_block = run.end_block;
      } else {
        stage.chunks.push_back(run);
      }
    }
    stage.recompute.assign(static_cast<std::size_t>(plan::num_blocks(stage)), plan::Recompute::None);
    for (const std::int64_t samples : options.samples[s]) {
      plan::Replica replica;
      replica.devices.push_back({0, next_device++});
      replica.samples = samples;
      stage.replicas.push_back(std::move(replica));
    }
    made.stages.push_back(std::move(stage));
  }
  plan::fill_roles(made, graph, options.bucket_bytes);
  return made;
}

}  // namespace coxswain
