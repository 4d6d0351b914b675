#include "bench/support/hand_made.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>

#include "common/bytes_io.h"
#include "model/load.h"

namespace coxswain::bench {
namespace {

/// As the planner's.
constexpr Bytes kBucketBytes{std::int64_t{25} << 20};

Bench load_bench(const TrainJob& job, const std::filesystem::path& folder) {
  Bench bench;
  bench.folder = folder;
  bench.graph = or_end(model::load_pt2(job.example / "gpt.pt2"));
  const std::string text = or_end(read_file((folder / "cluster.json").string()));
  bench.cluster = or_end(cluster::resource_graph_from_json(or_end(parse_json(text))));
  return bench;
}

}  // namespace

Bench measure_bench(const TrainJob& job, const std::string& devices) {
  const auto folder = make_scratch_folder("measured");
  const auto programs = job.programs.empty() ? program_folder() : job.programs;
  const auto result = run_process(
      {(programs / "launch").string(), "probe", "--job", write_job(job, make_scratch_folder("job")).string(),
       "--devices", devices, "--out", (folder / "cluster.json").string()},
      600);
  if (result.exit_code != 0) {
    std::fprintf(stderr, "launch probe failed (%d)\n%s", result.exit_code, result.errors.c_str());
    std::exit(1);
  }
  return load_bench(job, folder);
}

Bench bench_of_run(const TrainJob& job, const std::filesystem::path& run_dir) { return load_bench(job, run_dir); }

plan::Plan make_plan(const Bench& bench, const HandMade& wanted) {
  plan::Plan plan;
  plan.model_hash = model::model_hash(bench.graph);
  plan.cluster_hash = cluster::cluster_hash(bench.cluster);
  plan.batch.micro = std::accumulate(wanted.samples.begin(), wanted.samples.end(), std::int64_t{0});
  plan.batch.count = wanted.count;
  plan.batch.global = plan.batch.micro * plan.batch.count;
  plan.schedule = wanted.schedule;
  int first = 0;
  std::int64_t next = 0;
  for (const int end : wanted.ends) {
    plan::Stage stage;
    stage.first_block = std::exchange(first, end);
    stage.end_block = end;
    stage.zero_stage = wanted.zero_stage;
    stage.recompute.assign(static_cast<std::size_t>(plan::num_blocks(stage)), plan::Recompute::None);
    for (const std::int64_t samples : wanted.samples) {
      plan::Replica replica;
      replica.tensor = wanted.tensor;
      replica.samples = samples;
      for (int d = 0; d < wanted.tensor; ++d) {
        const cluster::DeviceId device = cluster::device_at(bench.cluster, 0, next++);
        replica.devices.push_back(device);
      }
      stage.replicas.push_back(std::move(replica));
    }
    plan.stages.push_back(std::move(stage));
  }
  plan::fill_roles(plan, bench.graph, kBucketBytes);
  return plan;
}

std::string refusal_of(const Bench& bench, const plan::Plan& plan) {
  const auto problems = plan::validate(plan, bench.graph, bench.cluster);
  return problems.empty() ? "" : problems.front().message + " (" + problems.front().path + ")";
}

std::filesystem::path write_plan(const Bench& bench, const plan::Plan& plan, const std::string& name) {
  const auto file = bench.folder / (name + ".json");
  or_end(write_file(file.string(), to_text(Json(JsonObject{{"plan", plan::to_json(plan)}}), 2) + "\n"));
  return file;
}

double largest(const std::vector<double>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

}  // namespace coxswain::bench
