// Seconds, memory and gap of a search of the whole space on large clusters: examples/scale/, one thread. Each instance
// runs in a process of its own, so that its peak memory is its own. Issue row f.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "bench/support/bench.h"
#include "common/clock.h"
#include "model/load.h"
#include "planner/planner.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

struct Instance {
  const char* name;
  double max_seconds;
};
constexpr Instance kInstances[] = {{"two_classes_1024", 1.0}, {"four_zones_16384", 10.0}, {"hundred_thousand", 60.0}};
constexpr double kMaxBytes = 2.0 * 1024 * 1024 * 1024;
constexpr double kMaxGap = 0.15;

struct Outcome {
  double seconds = 0, gap = 0;
  long peak_kibibytes = 0;
};

[[noreturn]] void fail(const Error& error) {
  std::fputs(to_text(error).c_str(), stderr);
  std::exit(1);
}

Json read_json(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  auto json = parse_json(text.str());
  if (!json) fail(json.error());
  return std::move(*json);
}

Outcome search(const std::string& folder, const std::string& name, int threads) {
  const Json job = read_json(folder + name + ".json");
  const auto resources = cluster::resource_graph_from_json(read_json(folder + job.object().at("cluster").string()));
  if (!resources) fail(resources.error());
  const std::int64_t sequence = job.object().at("data").object().at("sequence_length").integer();
  const auto graph =
      model::build_from_config(job.object().at("model").object().at("config"), {.sequence_length = sequence});
  if (!graph) fail(graph.error());

  const TimePoint start = steady_clock().now();
  const auto cost = cost_model::make_cost_model(*graph, *resources, nullptr);
  planner::Request request;
  request.cost = cost.get();
  request.global_batch = job.object().at("batch").object().at("global").integer();
  request.tokens_per_sample = sequence;
  request.precision = plan::Precision::BFloat16;
  request.capabilities = plan::kPlannable;
  request.threads = threads;
  const auto found = planner::find_plan(request);
  Outcome outcome;
  outcome.seconds = std::chrono::duration<double>(steady_clock().now() - start).count();
  if (!found) fail(found.error());
  outcome.gap = found->optimality_gap;
  std::printf("%s: %s\n  step %.3f s, bound %.3f s, mfu %.3f, bubble %.3f, %lld costed; binds: %s\n", name.c_str(),
              found->summary.c_str(), found->estimate.step.value, found->lower_bound_step.value,
              found->estimate.model_flops_utilization, found->estimate.bubble_fraction,
              static_cast<long long>(found->candidates_costed), found->binding_constraint.c_str());
  const auto print = [](const std::string& summary, const plan::Estimate& estimate) {
    std::printf(
        "    %s: %.3f s = forward %.3f + backward %.3f + recompute %.3f + communication %.3f + bubble %.3f + "
        "optimizer %.3f\n",
        summary.c_str(), estimate.step.value, estimate.forward.value, estimate.backward.value, estimate.recompute.value,
        estimate.communication_exposed.value, estimate.bubble.value, estimate.optimizer.value);
  };
  print("found", found->estimate);
  for (const auto& runner : found->runners_up) print(runner.summary, runner.estimate);
  std::fflush(stdout);
  return outcome;
}

/// `search` in a child process.
Outcome search_apart(const std::string& folder, const std::string& name, int threads) {
  int ends[2];
  if (pipe(ends) != 0) std::exit(1);
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    const Outcome outcome = search(folder, name, threads);
    if (write(ends[1], &outcome, sizeof outcome) != static_cast<ssize_t>(sizeof outcome)) _exit(1);
    _exit(0);
  }
  close(ends[1]);
  Outcome outcome;
  const bool read_all = read(ends[0], &outcome, sizeof outcome) == static_cast<ssize_t>(sizeof outcome);
  close(ends[0]);
  int status = 0;
  rusage usage{};
  wait4(child, &status, 0, &usage);
  if (!read_all || status != 0) std::exit(1);
  outcome.peak_kibibytes = usage.ru_maxrss;
  return outcome;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv, "searches for large clusters", {"--only", "--threads"});
  const int threads = options.other.contains("--threads") ? std::atoi(options.other.at("--threads").c_str()) : 1;
  Report report("planner_scale", options);
  const std::string folder = std::string(COX_SOURCE_DIR) + "/examples/scale/";
  for (const Instance& instance : kInstances) {
    if (options.other.contains("--only") && options.other.at("--only") != instance.name) continue;
    const Outcome outcome = search_apart(folder, instance.name, threads);
    const std::string name = instance.name;
    report.add({name + ": search", outcome.seconds, instance.max_seconds, outcome.seconds / instance.max_seconds, "s",
                "within the limit", outcome.seconds < instance.max_seconds});
    const double bytes = 1024.0 * static_cast<double>(outcome.peak_kibibytes);
    report.add({name + ": peak memory", bytes, kMaxBytes, bytes / kMaxBytes, "bytes", "< 2 GiB", bytes < kMaxBytes});
    report.add({name + ": gap to the lower bound", outcome.gap, kMaxGap, outcome.gap / kMaxGap, "", "<= 0.15",
                outcome.gap <= kMaxGap});
  }
  return report.finish();
}
