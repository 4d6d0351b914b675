#pragma once
// A cost model whose numbers are chosen by the test: blocks take `forward[b] x samples / speed`, links come from the
// graph's own alpha-beta, everything else is a plain rate.
#include <vector>

#include "cost_model/collective_time.h"
#include "cost_model/cost_model.h"
#include "cost_model/expert_load.h"

namespace coxswain::test_support {

class FakeCost : public cost_model::CostModel {
 public:
  FakeCost(const model::ModelGraph& graph, const cluster::ResourceGraph& resources)
      : graph_(graph), resources_(resources) {
    forward.assign(graph.blocks.size(), 1.0);
    saved.assign(graph.blocks.size(), 0);
    speed.assign(resources.device_classes.size(), 1.0);
  }

  std::vector<double> forward;      // seconds a sample on a device of speed 1, by block
  std::vector<std::int64_t> saved;  // bytes a sample, by block
  std::vector<double> speed;        // by device class
  double fixed = 0;                 // seconds a block, forward and backward each
  double input = 1, weight = 1;     // of the backward, in forwards
  double optimizer_per_parameter = 0;
  double step_overhead = 0;
  double action_overhead = 0;
  double attention_share = 0;    // of a block's time
  double replayed_share = 0.25;  // of the forward, by selective recompute
  double selective_share = 0.5;  // of the saved bytes, kept where it does

  cost_model::BlockTime estimate_block(const cost_model::BlockWork& work) const override {
    const auto b = static_cast<std::size_t>(work.block);
    const int parts = work.tensor * work.context;
    const double seconds =
        forward[b] * static_cast<double>(work.samples) / parts / speed[static_cast<std::size_t>(work.device_class)];
    cost_model::BlockTime time;
    if (work.samples == 0 || forward[b] == 0) return time;
    time.forward = Seconds(seconds + fixed);
    time.backward = Seconds((input + weight) * seconds + fixed);
    time.weight = Seconds(weight * seconds);
    time.saved = Bytes(saved[b] * work.samples / parts);
    time.attention_forward = time.forward * attention_share;
    time.attention_backward = time.backward * attention_share;
    time.owed = time.saved;
    time.replayed = time.forward * replayed_share;
    time.selective = Bytes(static_cast<std::int64_t>(static_cast<double>(time.saved.value) * selective_share));
    time.counts_shared = true;
    if (work.expert > 1) time.expert_imbalance = cost_model::kExpertImbalance;
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

/// One stage by its blocks and the devices and samples of its replicas.
struct StageSpec {
  int first_block = 0, end_block = 0;
  std::vector<plan::DeviceId> devices;
  std::vector<std::int64_t> samples;
  plan::Recompute recompute = plan::Recompute::None;
};

}  // namespace coxswain::test_support
