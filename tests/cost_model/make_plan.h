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

/// `num_stages` stages of `num_chunks` chunks, every part one block of make_chain(num_stages x num_chunks - 1) but the
/// first, which has the empty prologue too, on devices 0, 1, ... of class 0, one sample a micro-batch.
inline plan::Plan make_chunked_plan(const model::ModelGraph& graph, const cluster::ResourceGraph& resources,
                                    plan::ScheduleKind schedule, int num_stages, int num_chunks, std::int64_t count) {
  plan::Plan plan;
  plan.model_hash = model::model_hash(graph);
  plan.cluster_hash = cluster::cluster_hash(resources);
  plan.schedule = schedule;
  for (int s = 0; s < num_stages; ++s) {
    plan::Stage stage;
    for (int chunk = 0; chunk < num_chunks; ++chunk) {
      const int part = plan::part_of(schedule, s, num_stages, chunk);
      const plan::BlockRun run{part == 0 ? 0 : part + 1, part + 2};
      if (chunk > 0) {
        stage.chunks.push_back(run);
      } else {
        stage.first_block = run.first_block;
        stage.end_block = run.end_block;
      }
    }
    stage.recompute.assign(static_cast<std::size_t>(plan::num_blocks(stage)), plan::Recompute::None);
    plan::Replica replica;
    replica.devices = {{0, s}};
    replica.samples = 1;
    stage.replicas = {replica};
    plan.stages.push_back(stage);
  }
  plan.batch = {count, 1, count};
  plan::fill_roles(plan, graph, Bytes(std::int64_t{1} << 40));
  return plan;
}

}  // namespace coxswain::test_support
