#include "cluster/profile.h"
#include "common/json.h"
#include "proto/control.pb.h"
#include "worker/engine/engine.h"
#include "worker/service/links.h"
#include "worker/service/modes.h"
#include "worker/service/world.h"

namespace coxswain::worker {

Result<void> run_measuring(AgentLink& link, const Assignment& assignment, const std::string& job_key) {
  const bool with_model = !assignment.profile_samples.empty();
  model::ModelGraph graph;
  if (with_model) {
    COX_TRY(graph, load_graph(assignment));
    if (const auto missing = operators_without_kernel(graph); !missing.empty()) {
      std::vector<Error> problems;
      for (const std::string& name : missing)
        problems.push_back({ErrorCode::InvalidArgument, "no kernel for operator " + name, assignment.pt2,
                            "an operator that this libtorch has", name, "replace it in the model and export again"});
      return combine_errors(ErrorCode::InvalidArgument, "the model cannot run here", std::move(problems));
    }
  }
  COX_TRY(const auto world, World::connect(link, assignment, job_key));
  const auto deadline = [&] { return Deadline::after(steady_clock(), assignment.step_timeout); };
  // All devices of the cluster are busy at the same time, as they will be in training.
  const StartBarrier start_barrier = [&] { return world->all().barrier(deadline()); };
  const auto barrier = [&]() -> Result<void> { return start_barrier().wait(deadline()); };

  COX_TRY(const auto links, measure_links(world->all(), assignment.nodes, deadline()));
  COX_TRY(const MeasuredRates rates, measure_rates(assignment.settings.threads, assignment.rates_budget, barrier));
  control::WorkerReport report;
  control::MeasureReport& to = *report.mutable_measured();
  for (const auto& rate : rates.matmul) {
    auto& added = *to.add_matmul();
    added.set_dtype(std::string(to_text(rate.dtype)));
    added.set_size(rate.size);
    added.set_flop_per_second(rate.rate.value.value);
  }
  to.set_memory_bytes_per_second(rates.memory_bandwidth.value);
  to.set_launch_overhead_seconds(rates.launch_overhead.value);
  for (const LinkMeasurement& measured : links) {
    auto& added = *to.add_links();
    added.set_from(measured.from);
    added.set_to(measured.to);
    added.set_latency_seconds(measured.latency.value);
    added.set_bytes_per_second(measured.bandwidth.value);
  }
  if (with_model) {
    COX_TRY(cluster::Profile profile, profile_blocks(graph, assignment.profile_samples, assignment.device_class,
                                                     assignment.settings, assignment.profile_budget, start_barrier));
    profile.model_hash = model::model_hash(graph);
    to.set_profile_json(to_text(cluster::to_json(profile)));
  }
  COX_TRY_VOID(barrier());
  link.report(report);
  control::WorkerReport finished;
  finished.mutable_finished();
  link.report(finished);
  return {};
}

}  // namespace coxswain::worker
