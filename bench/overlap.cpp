// How much of a pipeline's transfers over a slow link lies beside compute: two nodes in network namespaces, 50 Mbit/s
// between them, the plan that the planner makes for a pipeline there. Issue row f. Needs root, ip and tc.
//
// Three runs take turns: the plan over the slow link, the same plan with one receive buffer an edge (credits 1) over
// the slow link, and the plan over a link without a limit, which stands for an infinitely fast one. The transfer time
// of a step is all bytes of its activations and gradients, both ways, over the link's nominal rate (headers not
// counted, so it is rather too short, and the share with it). What is hidden of it:
//     1 - (step over the slow link - step without a limit) / transfer time.
#include <cstdio>
#include <numeric>

#include "bench/support/hand_made.h"
#include "bench/support/network_link.h"
#include "common/bytes_io.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr double kRateBytesPerSecond = 50e6 / 8;

/// Bytes that cross the link in a step: what every stage sends on, and the gradients that come back.
double bytes_of_step(const Bench& bench, const plan::Plan& plan) {
  double bytes = 0;
  for (int part = 0; part + 1 < plan::num_parts(plan); ++part) {
    const auto place = plan::place_of_part(plan.schedule, part, static_cast<int>(plan.stages.size()));
    const plan::Stage& stage = plan.stages[static_cast<std::size_t>(place.stage)];
    if (!plan::has_edge_out(plan, place.stage, place.chunk)) continue;
    const plan::BlockRun run = plan::run_of(stage, place.chunk);
    for (const model::ValueId v : model::slice_stage(bench.graph, run.first_block, run.end_block).sent) {
      const int directions = bench.graph.values[v].requires_grad ? 2 : 1;
      bytes += directions * static_cast<double>(model::value_bytes(bench.graph, v, plan.batch.global).value);
    }
  }
  return bytes;
}

struct Case {
  const char* name;
  std::vector<std::string> flags = {};
  bool slow = true;
  std::vector<double> steps = {};
};

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv, "transfers of a pipeline hidden behind compute over 50 Mbit/s",
                                        {"--devices", "--pairs", "--steps", "--constraints"});
  const auto option = [&](const char* name, const std::string& otherwise) {
    return options.other.contains(name) ? options.other.at(name) : otherwise;
  };
  const std::string devices = option("--devices", "cpu@1.0");
  const int pairs = std::stoi(option("--pairs", options.quick ? "1" : "5"));
  const int steps = std::stoi(option("--steps", options.quick ? "6" : "10"));
  Report report("overlap", options);
  const auto example = make_example({.layers = 8, .width = 256, .heads = 8, .context = 128, .dropout = 0.1});
  TrainJob job{.example = example,
               .context = 128,
               .global_batch = 16,
               .steps = steps,
               .plan = option("--constraints", "{pipeline: 2, data: 1}"),
               .first_measured_step = 3};
  NetworkLink link;
  link.limit("50mbit");
  // Its cluster.json and profile.json are beside its plan, so that the runs below measure nothing anew.
  const TrainRun found = run_over(link, job, devices);
  job.plan = "";
  const Bench bench = bench_of_run(job, found.run_dir);
  const auto json = parse_json(*read_file((found.run_dir / "plan-1.json").string()));
  plan::Plan plan = *plan::plan_from_json((*json)["plan"]);
  const int planned_credits = plan.receive_credits;
  std::printf("    plan: %s, %lld micro-batches of %lld, credits %d; predicted %.1f ms\n",
              std::string(plan::to_text(plan.schedule)).c_str(), static_cast<long long>(plan.batch.count),
              static_cast<long long>(plan.batch.micro), planned_credits, found.predicted_step * 1e3);
  const std::string planned = write_plan(bench, plan, "planned").string();
  plan.receive_credits = 1;
  const std::string one = write_plan(bench, plan, "one").string();
  std::vector<Case> cases{{"planned credits, 50 Mbit/s", {"--plan", planned}},
                          {"credits 1, 50 Mbit/s", {"--plan", one}},
                          {"planned credits, no limit", {"--plan", planned}, false}};
  const double transfer = bytes_of_step(bench, plan) / kRateBytesPerSecond;
  std::vector<double> hidden, hidden_by_one;
  for (int pair = 0; pair < pairs; ++pair) {
    for (std::size_t i = 0; i < cases.size(); ++i) {
      Case& one_case = cases[(i + static_cast<std::size_t>(pair)) % cases.size()];
      if (one_case.slow) {
        link.limit("50mbit");
      } else {
        link.lift_limit();
      }
      const TrainRun run = run_over(link, job, devices, one_case.flags);
      one_case.steps.push_back(run.measured_step);
      std::printf("    %-28s predicted for the slow link %8.1f ms  measured %8.1f ms\n", one_case.name,
                  run.predicted_step * 1e3, run.measured_step * 1e3);
      std::fflush(stdout);
    }
    const double fast = cases[2].steps.back();
    hidden.push_back(1 - (cases[0].steps.back() - fast) / transfer);
    hidden_by_one.push_back(1 - (cases[1].steps.back() - fast) / transfer);
  }
  report.extra()["transfer_seconds"] = transfer;
  report.extra()["planned_credits"] = planned_credits;
  report.extra()["schedule"] = std::string(plan::to_text(plan.schedule));
  report.add({"step, planned credits beside credits 1", median(cases[0].steps), median(cases[1].steps),
              median(cases[1].steps) / median(cases[0].steps), "s a step", "<= 1.02 of it",
              median(cases[0].steps) <= 1.02 * median(cases[1].steps)});
  report.add({"transfer time hidden, planned beside credits 1", median(hidden), median(hidden_by_one),
              median(hidden) - median(hidden_by_one), "of a step's", ">= 0.7", median(hidden) >= 0.7});
  return report.finish();
}
