#include "bench/support/network_link.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "common/bytes_io.h"

namespace coxswain::bench {
namespace {

void shell(const std::string& command, bool must_work = true) {
  const auto result = run_process({"sh", "-c", command}, 20);
  if (result.exit_code == 0 || !must_work) return;
  std::fprintf(stderr, "`%s` failed: %s\nthis bench needs root with ip and tc\n", command.c_str(),
               result.errors.c_str());
  std::exit(77);
}

}  // namespace

NetworkLink::NetworkLink() : a_("cox-a-" + std::to_string(getpid())), b_("cox-b-" + std::to_string(getpid())) {
  shell("ip netns add " + a_ + " && ip netns add " + b_);
  shell("ip link add va netns " + a_ + " type veth peer name vb netns " + b_);
  shell("ip -n " + a_ + " addr add 10.77.0.1/24 dev va && ip -n " + a_ + " link set va up && ip -n " + a_ +
        " link set lo up");
  shell("ip -n " + b_ + " addr add 10.77.0.2/24 dev vb && ip -n " + b_ + " link set vb up && ip -n " + b_ +
        " link set lo up");
}

NetworkLink::~NetworkLink() {
  shell("ip netns del " + a_, false);
  shell("ip netns del " + b_, false);
}

void NetworkLink::limit(const std::string& rate) {
  shell("tc -n " + a_ + " qdisc replace dev va root tbf rate " + rate + " burst 32kb latency 100ms");
  shell("tc -n " + b_ + " qdisc replace dev vb root tbf rate " + rate + " burst 32kb latency 100ms");
}

void NetworkLink::lift_limit() {
  shell("tc -n " + a_ + " qdisc del dev va root", false);
  shell("tc -n " + b_ + " qdisc del dev vb root", false);
}

TrainRun run_over(const NetworkLink& link, const TrainJob& job, const std::string& devices,
                  const std::vector<std::string>& flags) {
  const auto folder = make_scratch_folder("over-link");
  const auto job_file = write_job(job, folder).string();
  std::ofstream(folder / "token") << "a token of this bench alone\n";
  shell("chmod 600 " + (folder / "token").string());
  const auto start = [&](int rank, const std::string& name, const std::string& address) {
    // Not `ip netns exec`: it mounts another /sys, in which no cgroup is to be found.
    std::vector<std::string> words{"nsenter",
                                   "--net=/run/netns/" + name,
                                   (program_folder() / "launch").string(),
                                   "train",
                                   job_file,
                                   "--nnodes",
                                   "2",
                                   "--node-rank",
                                   std::to_string(rank),
                                   "--rdzv-endpoint",
                                   "10.77.0.1:29400",
                                   "--local-addr",
                                   address,
                                   "--token-file",
                                   (folder / "token").string(),
                                   "--devices",
                                   devices,
                                   "--run-dir",
                                   (folder / ("run" + std::to_string(rank))).string()};
    if (rank == 0) words.insert(words.end(), flags.begin(), flags.end());
    return start_process(words, folder / ("output" + std::to_string(rank)));
  };
  const int first = start(0, link.a(), "10.77.0.1");
  const int second = start(1, link.b(), "10.77.0.2");
  const int code = wait_process(first, 500);
  static_cast<void>(wait_process(second, 30));
  TrainRun run = code == 0 ? read_run(folder / "run0", job.first_measured_step) : TrainRun{};
  if (!run.ok) {
    const auto errors = read_file(folder / "output0.errors");
    std::fprintf(stderr, "run over a link failed (%d): %s\n", code, errors ? errors->c_str() : "");
    std::exit(1);
  }
  return run;
}

}  // namespace coxswain::bench
