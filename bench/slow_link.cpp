// Two agents in two network namespaces, joined without a limit and at 50 Mbit/s: the planner must choose another plan
// for the slow link (fewer bytes over it), and over that link it must beat the plan chosen for the fast one. Issue row
// h. Needs root, ip and tc. Namespaces are this program's own and are removed at its end.
#include <cstdio>

#include "bench/support/network_link.h"
#include "common/bytes_io.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

std::string plan_of(const TrainRun& run) {
  const auto text = read_file(run.run_dir / "plan-1.json");
  return text ? *text : "";
}

/// What the link carries decides whether two plans differ, not their estimates.
Json shape_of(const TrainRun& run) {
  const auto json = parse_json(plan_of(run));
  if (!json) return {};
  const Json& plan = (*json)["plan"].is_object() ? (*json)["plan"] : *json;
  return JsonObject{{"stages", plan["stages"]}, {"batch", plan["batch"]}};
}

}  // namespace

int main(int argc, char** argv) {
  const Options options =
      parse_options(argc, argv, "plan for a slow link against the plan for a fast one", {"--rate", "--devices"});
  const std::string rate = options.other.contains("--rate") ? options.other.at("--rate") : "50mbit";
  const std::string devices = options.other.contains("--devices") ? options.other.at("--devices") : "cpu@1.0";
  Report report("slow_link", options);
  const auto example = make_example({.layers = 4, .width = 256, .heads = 8, .context = 128, .dropout = 0.1});
  NetworkLink link;
  TrainJob job{.example = example, .context = 128, .global_batch = 8, .steps = options.quick ? 8 : 14, .plan = ""};
  const TrainRun fast = run_over(link, job, devices);
  link.limit(rate);
  const int pairs = options.quick ? 1 : 3;
  std::vector<double> slow_times, fast_plan_times;
  TrainRun slow;
  TrainJob fixed = job;
  fixed.plan = (fast.run_dir / "plan-1.json").string();
  for (int pair = 0; pair < pairs; ++pair) {
    slow = run_over(link, job, devices);
    slow_times.push_back(slow.measured_step);
    const TrainRun other = run_over(link, fixed, devices);
    fast_plan_times.push_back(other.measured_step);
    std::printf(
        "pair %d over %s: plan for it %.1f ms (predicted %.1f), plan for the fast link %.1f ms (predicted %.1f)\n",
        pair + 1, rate.c_str(), slow.measured_step * 1e3, slow.predicted_step * 1e3, other.measured_step * 1e3,
        other.predicted_step * 1e3);
    std::fflush(stdout);
  }
  const bool differs = !(shape_of(slow) == shape_of(fast));
  report.add({"another plan than for the fast link", differs ? 1.0 : 0.0, 1, 1, "yes/no", "differs", differs});
  const double ratio = median(fast_plan_times) / median(slow_times);
  report.add({"over " + rate + ", against the fast link's plan", median(slow_times), median(fast_plan_times), ratio,
              "s a step", ">= 1.5", ratio >= 1.5});
  return report.finish();
}
