// The planner against every plan of small spaces, through the same simulator: 4 blocks on 4 devices of two classes with
// all axes, 6 blocks on 6 devices with ZeRO and recompute by stage; random rates, links, sizes and memory limits.
// The enumeration (tests/planner/plan_space.h) is exact and shares no code with the search. Issue row g.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "bench/support/bench.h"
#include "common/clock.h"
#include "tests/planner/plan_space.h"
#include "tests/planner/space_instance.h"

using namespace coxswain;
using namespace coxswain::bench;
using namespace coxswain::test_support;

namespace {

double seconds_since(TimePoint start) { return std::chrono::duration<double>(steady_clock().now() - start).count(); }

/// Steps are sums of nanoseconds, each rounded: so far apart they are one.
constexpr double kEqual = 1e-6;

struct Space {
  std::string name;
  int num_blocks, num_devices, instances, quick_instances;
  SpaceAxes axes;
};

std::vector<Space> all_spaces() {
  SpaceAxes flat;
  flat.max_zero_stage = 3;
  return {{"4x4", 4, 4, 100, 12, full_axes(4)}, {"6x6", 6, 6, 60, 4, flat}};
}

struct Outcome {
  bool feasible = false, agree = true, complete = true, bounded = true;
  double step = 0, optimum = 0, lower = 0;
  std::int64_t simulated = 0, left_out = 0;
  double search_seconds = 0, oracle_seconds = 0;
};

std::string describe(const SpaceInstance& instance) {
  std::string text = "devices";
  for (std::size_t c = 0; c < instance.resources.device_classes.size(); ++c) {
    text += " " + std::to_string(cluster::num_devices(instance.resources, static_cast<int>(c))) + "x" +
            instance.resources.device_classes[c].name;
  }
  return text + " on " + std::to_string(cluster::num_nodes(instance.resources)) + " nodes, global " +
         std::to_string(instance.global);
}

/// What a summary leaves out: "[0,2) a0 a1 | a2 b0, samples 2+1, zero 1, offload none, recompute n f; ...".
std::string detail(const plan::Plan& plan, const cluster::ResourceGraph& resources) {
  std::string text;
  for (const plan::Stage& stage : plan.stages) {
    text +=
        (text.empty() ? "[" : "; [") + std::to_string(stage.first_block) + "," + std::to_string(stage.end_block) + ")";
    std::string samples, recompute;
    for (const plan::Replica& replica : stage.replicas) {
      text += samples.empty() ? "" : " |";
      for (const plan::DeviceId device : replica.devices)
        text += " " + resources.device_classes[static_cast<std::size_t>(device.device_class)].name +
                std::to_string(device.index);
      samples += (samples.empty() ? "" : "+") + std::to_string(replica.samples);
    }
    for (const plan::Recompute kind : stage.recompute) recompute += " " + std::string(plan::to_text(kind).substr(0, 1));
    text += ", samples " + samples + ", zero " + std::to_string(stage.zero_stage) + ", offload " +
            std::string(plan::to_text(stage.offload)) + ", recompute" + recompute;
  }
  return text;
}

Outcome compare(const Space& space, std::uint64_t seed, std::int64_t max_simulations, bool plain) {
  std::mt19937 random(static_cast<std::mt19937::result_type>(seed));
  const auto instance = InstanceMaker(random).make(space.num_blocks, space.num_devices);
  Outcome outcome;
  TimePoint start = steady_clock().now();
  const auto found = planner::find_plan(instance->request(capabilities_of(space.axes)));
  outcome.search_seconds = seconds_since(start);
  start = steady_clock().now();
  const double at_most = found ? found->estimate.step.value : std::numeric_limits<double>::infinity();
  PlanSpace plans(*instance->cost, instance->global, space.axes);
  plans.set_plain(plain);
  const PlanSpace::Best best = plans.run(at_most, max_simulations);
  outcome.oracle_seconds = seconds_since(start);
  outcome.simulated = best.simulated;
  outcome.left_out = best.bounded;
  outcome.complete = best.complete;
  outcome.optimum = best.step;
  if (!found) {
    outcome.agree = std::isinf(best.step);
    if (!outcome.agree)
      std::printf("  %s seed %llu (%s): found none (%s), optimum %.6f s %s\n", space.name.c_str(),
                  static_cast<unsigned long long>(seed), describe(*instance).c_str(), found.error().message.c_str(),
                  best.step, planner::summarize(best.plan).c_str());
    return outcome;
  }
  outcome.feasible = true;
  outcome.step = found->estimate.step.value;
  outcome.lower = found->lower_bound_step.value;
  outcome.bounded = outcome.lower <= best.step * (1 + 1e-9);
  if (outcome.step > best.step * (1 + kEqual) || best.step > outcome.step * (1 + 1e-6) || !outcome.bounded) {
    std::printf(
        "  %s seed %llu (%s)\n    found   %.6f s %s\n            %s\n    optimum %.6f s %s\n            %s\n    +%.3f "
        "%%, lower bound %.6f s%s\n",
        space.name.c_str(), static_cast<unsigned long long>(seed), describe(*instance).c_str(), outcome.step,
        found->summary.c_str(), detail(found->plan, instance->resources).c_str(), best.step,
        std::isinf(best.step) ? "-" : planner::summarize(best.plan).c_str(),
        detail(best.plan, instance->resources).c_str(), (outcome.step / best.step - 1) * 100, outcome.lower,
        outcome.bounded ? "" : " ABOVE THE OPTIMUM");
    std::fflush(stdout);
  }
  return outcome;
}

void run_space(Space space, const Options& options, Report& report) {
  const auto number = [&](const char* flag, int otherwise) {
    return options.other.contains(flag) ? std::stoi(options.other.at(flag)) : otherwise;
  };
  // To find out which axis a difference comes from.
  space.axes.max_zero_stage = number("--zero", space.axes.max_zero_stage);
  space.axes.max_tensor = number("--tensor", space.axes.max_tensor);
  space.axes.offload = number("--offload", space.axes.offload ? 1 : 0) != 0;
  space.axes.selective = number("--selective", space.axes.selective ? 1 : 0) != 0;
  space.axes.recompute = number("--recompute", space.axes.recompute ? 1 : 0) != 0;
  space.axes.schedules.resize(
      std::min<std::size_t>(space.axes.schedules.size(), static_cast<std::size_t>(number("--schedules", 9))));
  const int instances = number("--instances", options.quick ? space.quick_instances : space.instances);
  const int first = number("--first", 0);
  const bool plain = number("--plain", 0) != 0;
  const std::int64_t max_simulations = number("--max-simulations", 20'000'000);
  int feasible = 0, agree = 0, equal = 0, bounded = 0, complete = 0, inside = 0;
  double worst = 0, search_seconds = 0, oracle_seconds = 0;
  std::int64_t simulated = 0, bounded_plans = 0;
  std::vector<double> gap_of_optimum, gap_of_found;
  JsonArray rows;
  for (int i = first; i < first + instances; ++i) {
    const std::uint64_t seed = options.seed * 1000 + static_cast<std::uint64_t>(i);
    const Outcome one = compare(space, seed, max_simulations, plain);
    complete += one.complete ? 1 : 0;
    agree += one.agree ? 1 : 0;
    simulated += one.simulated;
    bounded_plans += one.left_out;
    search_seconds += one.search_seconds;
    oracle_seconds += one.oracle_seconds;
    if (!one.feasible) continue;
    ++feasible;
    const double excess = one.step / one.optimum - 1;
    worst = std::max(worst, excess);
    equal += excess <= kEqual ? 1 : 0;
    inside += one.optimum <= one.step * (1 + 1e-6) ? 1 : 0;
    bounded += one.bounded ? 1 : 0;
    gap_of_optimum.push_back(one.optimum / one.lower - 1);
    gap_of_found.push_back(one.step / one.lower - 1);
    rows.push_back(JsonObject{{"seed", static_cast<std::int64_t>(seed)},
                              {"found_seconds", one.step},
                              {"optimum_seconds", one.optimum},
                              {"lower_bound_seconds", one.lower},
                              {"simulated", one.simulated}});
  }
  std::printf(
      "%s: %d instances, %d with a plan; %lld plans simulated, %lld left out by their bound; search %.1f s, "
      "enumeration "
      "%.1f s\n",
      space.name.c_str(), instances, feasible, static_cast<long long>(simulated), static_cast<long long>(bounded_plans),
      search_seconds, oracle_seconds);
  const auto of = [&](const std::string& what, double ours, double peer, const std::string& unit,
                      const std::string& goal, bool pass) {
    report.add({space.name + ": " + what, ours, peer, peer == 0 ? 0 : ours / peer, unit, goal, pass});
  };
  of("enumerated to the end", complete, instances, "instances", "all", complete == instances);
  of("plan where there is one, none where there is none", agree, instances, "instances", "all", agree == instances);
  of("plan found lies in the space enumerated", inside, feasible, "instances", "all", inside == feasible);
  of("worst above the optimum", worst, 0, "fraction", "<= 0.01", worst <= 0.01);
  of("equal to the optimum", equal, feasible, "instances", ">= 0.95", equal >= 0.95 * feasible);
  of("lower bound at most the optimum", bounded, feasible, "instances", "all", bounded == feasible);
  if (!gap_of_found.empty()) {
    const double optimum = median(gap_of_optimum), found = median(gap_of_found);
    of("median gap, optimum to lower bound", optimum, 0, "fraction", "<= 0.05", optimum <= 0.05);
    of("median gap, found to lower bound", found, 0, "fraction", "<= 0.05", found <= 0.05);
  }
  report.extra()[space.name] = rows;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv, "the planner against every plan of small spaces",
                                        {"--space", "--instances", "--first", "--max-simulations", "--zero", "--tensor",
                                         "--offload", "--selective", "--recompute", "--schedules", "--plain"});
  Report report("brute_force", options);
  for (const Space& space : all_spaces()) {
    if (!options.other.contains("--space") || options.other.at("--space") == space.name)
      run_space(space, options, report);
  }
  return report.finish();
}
