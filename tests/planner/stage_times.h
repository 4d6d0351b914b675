#pragma once
// What the actions of one stage take by the cost model, for StepBound: it reads cost_model/ and plan/ only.
#include <algorithm>
#include <map>
#include <vector>

#include "cost_model/mesh_times.h"
#include "plan/derive.h"
#include "tests/planner/step_bound.h"

namespace coxswain::test_support {

/// Float32 elements of each block that the stage's buckets reduce.
inline std::vector<std::int64_t> reduced_elements(const cost_model::CostModel& cost, const plan::Stage& stage) {
  std::vector<std::int64_t> elements(static_cast<std::size_t>(stage.end_block - stage.first_block), 0);
  for (const cost_model::ParameterFacts& parameter : cost.facts().parameters()) {
    if (!parameter.trainable || parameter.blocks.empty()) continue;
    if (parameter.blocks.front() < stage.first_block || parameter.blocks.back() >= stage.end_block) continue;
    elements[static_cast<std::size_t>(parameter.blocks.front() - stage.first_block)] +=
        parameter.elements_at(stage.replicas.front().tensor, 1);
  }
  return elements;
}

/// Replicas of one tensor degree, no context or expert axis.
inline StageTimes stage_times(const cost_model::CostModel& cost, const plan::Stage& stage, bool split_backward,
                              bool last_stage, Bytes bucket_bytes) {
  using cost_model::to_ticks;
  StageTimes times;
  const std::vector<int> starts =
      plan::make_bucket_starts(stage, plan::bucket_bytes_of(stage, cost.facts().uses()), bucket_bytes);
  std::vector<plan::DeviceId> devices;
  for (std::size_t r = 0; r < stage.replicas.size(); ++r) {
    const plan::Replica& replica = stage.replicas[r];
    const int device_class = replica.devices.front().device_class;
    devices.push_back(replica.devices.front());
    const cost_model::Mesh mesh = cost_model::make_mesh(stage, static_cast<int>(r));
    ReplicaTimes one;
    one.overhead = to_ticks(cost.estimate_action_overhead(device_class));
    one.forward = one.backward = one.weight = one.overhead;
    std::vector<Ticks> last;  // of the last action, by block
    for (int block = stage.first_block; block < stage.end_block; ++block) {
      const auto at = static_cast<std::size_t>(block - stage.first_block);
      const cost_model::MeshTicks ticks =
          cost_model::estimate_block_on_mesh(cost,
                                             {block, device_class, replica.samples, plan::Precision::Float32,
                                              replica.tensor, replica.context, replica.expert, stage.recompute[at]},
                                             mesh);
      one.forward += ticks.forward;
      one.backward += (split_backward ? ticks.input : ticks.backward) + ticks.recompute;
      one.weight += ticks.weight;
      last.push_back(split_backward ? ticks.weight : ticks.backward + ticks.recompute);
    }
    int end = stage.end_block;
    const auto add_part = [&](int start) {
      Ticks part = one.overhead;
      for (int block = start; block < end; ++block) part += last[static_cast<std::size_t>(block - stage.first_block)];
      one.last_parts.push_back(part);
      end = start;
    };
    // Where ZeRO scatters in every micro-batch a pass begins once, however many blocks it is cut into.
    if (cost_model::reduces_buckets(stage.zero_stage))
      for (const int start : starts) add_part(start);
    if (end > stage.first_block) add_part(stage.first_block);
    one.optimizer = one.overhead + cost_model::estimate_update_on_mesh(
                                       cost,
                                       cost_model::count_persistent(cost.facts(), stage.first_block, stage.end_block,
                                                                    replica.tensor, replica.expert),
                                       plan::Precision::Float32, mesh);
    times.replicas.push_back(std::move(one));
  }
  if (stage.replicas.size() < 2) return times;
  const auto collective = [&](collective::CollectiveKind kind, std::int64_t elements) {
    cost_model::GroupShape shape = cost_model::shape_of(cost.resources(), devices);
    shape.side_by_side = stage.replicas.front().tensor;
    const Bytes payload(4 * elements);
    return to_ticks(shape.side_by_side > 1 ? cost.estimate_shaped_collective(kind, payload, shape)
                                           : cost.estimate_collective(kind, payload, devices));
  };
  constexpr std::int64_t kScalars = 4;
  if (last_stage) times.loss_count = collective(collective::CollectiveKind::AllReduce, kScalars);
  if (!cost_model::reduces_buckets(stage.zero_stage)) return times;
  const std::vector<std::int64_t> of_block = reduced_elements(cost, stage);
  int end = stage.end_block;
  for (const int start : starts) {
    std::int64_t elements = 0;
    for (int block = start; block < end; ++block)
      elements += of_block[static_cast<std::size_t>(block - stage.first_block)];
    times.reductions.push_back(collective(cost_model::bucket_collective(stage.zero_stage), elements));
    end = start;
  }
  return times;
}

/// Messages across `cut`; each replica sends its samples' share to whoever has the same samples, over one link one
/// after the other.
inline EdgeTimes edge_times(const cost_model::CostModel& cost, int cut, const plan::Stage& from,
                            const plan::Stage& to) {
  const cost_model::ModelFacts& facts = cost.facts();
  EdgeTimes edge;
  const auto fill = [&](const plan::Stage& own, const plan::Stage& other, EdgeTimes::Side& side) {
    std::int64_t first = 0;
    for (const plan::Replica& a : own.replicas) {
      std::map<const cluster::LinkClass*, std::pair<Seconds, Seconds>> by_link;
      std::int64_t begin = 0;
      side.peers.emplace_back();
      for (std::size_t j = 0; j < other.replicas.size(); ++j) {
        const plan::Replica& b = other.replicas[j];
        const std::int64_t common = std::min(first + a.samples, begin + b.samples) - std::max(first, begin);
        begin += b.samples;
        if (common <= 0) continue;
        side.peers.back().push_back(j);
        const int shards = std::max(a.tensor, b.tensor), messages = shards / a.tensor;
        const auto seconds = [&](Bytes bytes) {
          const Bytes shard((bytes.value + shards - 1) / shards);
          return cost.estimate_transfer(shard, a.devices.front(), b.devices.front()) * messages;
        };
        auto& [activation, gradient] =
            by_link[&cluster::link_between(cost.resources(), a.devices.front(), b.devices.front())];
        activation += seconds(facts.activation_bytes(cut, common, plan::Precision::Float32));
        gradient += seconds(facts.gradient_bytes(cut, common, plan::Precision::Float32));
      }
      first += a.samples;
      Ticks activation = 0, gradient = 0;
      for (const auto& [link, both] : by_link) {
        activation = std::max(activation, cost_model::to_ticks(both.first));
        gradient = std::max(gradient, cost_model::to_ticks(both.second));
      }
      side.activation.push_back(activation);
      side.gradient.push_back(gradient);
    }
    // The simulator runs one replica of those that do the same: maybe the one with the best links.
    for (std::size_t i = 0; i < own.replicas.size(); ++i) {
      for (std::size_t j = 0; j < own.replicas.size(); ++j) {
        if (!plan::same_role(own.replicas[i], own.replicas[j])) continue;
        side.activation[i] = std::min(side.activation[i], side.activation[j]);
        side.gradient[i] = std::min(side.gradient[i], side.gradient[j]);
      }
    }
  };
  fill(from, to, edge.from);
  fill(to, from, edge.to);
  return edge;
}

}  // namespace coxswain::test_support
