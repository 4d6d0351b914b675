#pragma once
// Plans from a few numbers, with roles filled in.
#include "plan/program.h"
#include "tests/cost_model/fake_cost.h"

namespace coxswain::test_support {

inline plan::Plan make_plan(const model::ModelGraph& graph, const cluster::ResourceGraph& resources,
                            const std::vector<StageSpec>& stages, std::int64_t count,
                            plan::ScheduleKind schedule = plan::ScheduleKind::OneForwardOneBackward,
                            Bytes bucket_bytes = Bytes(std::int64_t{1} << 40)) {
  plan::Plan plan;
  plan.model_hash = model::model_hash(graph);
  plan.cluster_hash = cluster::cluster_hash(resources);
  plan.schedule = schedule;
  for (const StageSpec& spec : stages) {
    plan::Stage stage;
    stage.first_block = spec.first_block;
    stage.end_block = spec.end_block;
    stage.recompute.assign(static_cast<std::size_t>(spec.end_block - spec.first_block), spec.recompute);
    for (std::size_t r = 0; r < spec.devices.size(); ++r) {
      plan::Replica replica;
      replica.devices = {spec.devices[r]};
      replica.samples = spec.samples[r];
      stage.replicas.push_back(replica);
    }
    plan.stages.push_back(stage);
  }
  for (const std::int64_t samples : stages.front().samples) plan.batch.micro += samples;
  plan.batch.count = count;
  plan.batch.global = plan.batch.micro * count;
  plan::fill_roles(plan, graph, bucket_bytes);
  return plan;
}

}  // namespace coxswain::test_support
