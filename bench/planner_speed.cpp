// Seconds of a search: GPT-3 13B from a configuration on 64 nodes of eight 80 GB devices, bfloat16, global batch 1,024.
// The plan must fit every device and be the same bytes for any number of threads. Issue row k.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "bench/support/bench.h"
#include "common/clock.h"
#include "model/load.h"
#include "plan/program.h"
#include "planner/planner.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

double seconds_since(TimePoint start) { return std::chrono::duration<double>(steady_clock().now() - start).count(); }

[[noreturn]] void fail(const Error& error) {
  std::fputs(to_text(error).c_str(), stderr);
  std::exit(1);
}

/// GPT-3 13B of Brown et al. 2020, table 2.1 (with head_dim 128: 40 heads).
Json gpt3_13b() {
  return JsonObject{{"model_type", "gpt2"},
                    {"n_layer", 40},
                    {"n_embd", 5120},
                    {"n_head", 40},
                    {"n_positions", 2048},
                    {"vocab_size", 50257},
                    {"activation_function", "gelu_new"}};
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv, "seconds of a search for 512 devices", {"--cluster"});
  Report report("planner_speed", options);
  const std::string path = options.other.contains("--cluster")
                               ? options.other.at("--cluster")
                               : std::string(COX_SOURCE_DIR) + "/examples/clusters/a100_64x8.json";
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  const auto json = parse_json(text.str());
  if (!json) fail(json.error());
  const auto resources = cluster::resource_graph_from_json(*json);
  if (!resources) fail(resources.error());
  const auto graph = model::build_from_config(gpt3_13b(), {});
  if (!graph) fail(graph.error());

  std::vector<double> seconds;
  std::string first;
  bool same = true;
  for (const int threads : {1, 2, 4}) {
    const TimePoint start = steady_clock().now();
    const auto cost = cost_model::make_cost_model(*graph, *resources, nullptr);
    planner::Request request;
    request.cost = cost.get();
    request.global_batch = 1024;
    request.tokens_per_sample = 2048;
    request.precision = plan::Precision::BFloat16;
    request.threads = threads;
    const auto found = planner::find_plan(request);
    seconds.push_back(seconds_since(start));
    if (!found) fail(found.error());
    const std::string bytes = to_text(planner::to_json(*found));
    if (first.empty()) {
      first = bytes;
      const TimePoint checked = steady_clock().now();
      const auto problems = plan::validate(found->plan, *graph, *resources);
      for (const Error& problem : problems) std::fputs(to_text(problem).c_str(), stderr);
      std::printf("%s\nstep %.2f s, bound %.2f s, mfu %.3f, %s; validated in %.2f s\n", found->summary.c_str(),
                  found->estimate.step.value, found->lower_bound_step.value, found->estimate.model_flops_utilization,
                  found->binding_constraint.c_str(), seconds_since(checked));
      for (const auto& runner : found->runners_up)
        std::printf("  %s: %.2f s\n", runner.summary.c_str(), runner.estimate.step.value);
      double fullest = 0;
      for (const auto& device : found->estimate.devices) {
        fullest = std::max(
            fullest, static_cast<double>(device.parts.total().value) / static_cast<double>(device.capacity.value));
      }
      report.add({"fullest device", fullest, 1.0, fullest, "of capacity", "<= 1", fullest <= 1.0 && problems.empty()});
    }
    same = same && bytes == first;
  }
  // What one thread takes; the others show that they change nothing.
  report.add({"search, one thread", seconds[0], 2.0, seconds[0] / 2.0, "s", "< 2 s", seconds[0] < 2.0});
  report.add({"search, two threads", seconds[1], seconds[0], seconds[1] / seconds[0], "s", "", true});
  report.add({"same bytes for 1, 2, 4 threads", same ? 1.0 : 0.0, 1.0, same ? 1.0 : 0.0, "", "equal", same});
  return report.finish();
}
