// Two agents in two network namespaces, joined without a limit and at 50 Mbit/s: the planner must choose another plan
// for the slow link (fewer bytes over it), and over that link it must beat the plan chosen for the fast one. Issue row
// h. Needs root, ip and tc. Namespaces are this program's own and are removed at its end.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "bench/support/train_runs.h"
#include "common/bytes_io.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

void shell(const std::string& command, bool must_work = true) {
  const auto result = run_process({"sh", "-c", command}, 20);
  if (result.exit_code == 0 || !must_work) return;
  std::fprintf(stderr, "slow_link: `%s` failed: %s\nthis bench needs root with ip and tc\n", command.c_str(),
               result.errors.c_str());
  std::exit(77);
}

/// Two namespaces joined by a veth pair.
class Link {
 public:
  Link() : a_("cox-a-" + std::to_string(getpid())), b_("cox-b-" + std::to_string(getpid())) {
    shell("ip netns add " + a_ + " && ip netns add " + b_);
    shell("ip link add va netns " + a_ + " type veth peer name vb netns " + b_);
    shell("ip -n " + a_ + " addr add 10.77.0.1/24 dev va && ip -n " + a_ + " link set va up && ip -n " + a_ +
          " link set lo up");
    shell("ip -n " + b_ + " addr add 10.77.0.2/24 dev vb && ip -n " + b_ + " link set vb up && ip -n " + b_ +
          " link set lo up");
  }
  ~Link() {
    shell("ip netns del " + a_, false);
    shell("ip netns del " + b_, false);
  }
  void limit(const std::string& rate) {
    shell("tc -n " + a_ + " qdisc replace dev va root tbf rate " + rate + " burst 32kb latency 100ms");
    shell("tc -n " + b_ + " qdisc replace dev vb root tbf rate " + rate + " burst 32kb latency 100ms");
  }
  [[nodiscard]] const std::string& a() const { return a_; }
  [[nodiscard]] const std::string& b() const { return b_; }

 private:
  std::string a_, b_;
};

TrainRun run_on(const Link& link, const TrainJob& job, const std::string& devices) {
  const auto folder = make_scratch_folder("slow-link");
  const auto job_file = write_job(job, folder).string();
  std::ofstream(folder / "token") << "a token of this bench alone\n";
  shell("chmod 600 " + (folder / "token").string());
  const auto start = [&](int rank, const std::string& name, const std::string& address) {
    // Not `ip netns exec`: it mounts another /sys, in which no cgroup is to be found.
    return start_process({"nsenter", "--net=/run/netns/" + name, (program_folder() / "launch").string(), "train",
                          job_file, "--nnodes", "2", "--node-rank", std::to_string(rank), "--rdzv-endpoint",
                          "10.77.0.1:29400", "--local-addr", address, "--token-file", (folder / "token").string(),
                          "--devices", devices, "--run-dir", (folder / ("run" + std::to_string(rank))).string()},
                         folder / ("output" + std::to_string(rank)));
  };
  const int first = start(0, link.a(), "10.77.0.1");
  const int second = start(1, link.b(), "10.77.0.2");
  const int code = wait_process(first, 500);
  wait_process(second, 30);
  TrainRun run = code == 0 ? read_run(folder / "run0") : TrainRun{};
  if (!run.ok) {
    const auto errors = read_file(folder / "output0.errors");
    std::fprintf(stderr, "slow_link: run failed (%d): %s\n", code, errors ? errors->c_str() : "");
    std::exit(1);
  }
  return run;
}

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
  Link link;
  TrainJob job{.example = example, .context = 128, .global_batch = 8, .steps = options.quick ? 8 : 14, .plan = ""};
  const TrainRun fast = run_on(link, job, devices);
  link.limit(rate);
  const int pairs = options.quick ? 1 : 3;
  std::vector<double> slow_times, fast_plan_times;
  TrainRun slow;
  TrainJob fixed = job;
  fixed.plan = (fast.run_dir / "plan-1.json").string();
  for (int pair = 0; pair < pairs; ++pair) {
    slow = run_on(link, job, devices);
    slow_times.push_back(slow.measured_step);
    const TrainRun other = run_on(link, fixed, devices);
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
