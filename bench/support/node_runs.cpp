#include "bench/support/node_runs.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "bench/support/bench.h"
#include "bench/support/processes.h"

namespace coxswain::bench {
namespace {

namespace fs = std::filesystem;

void write_job(const RunSettings& settings, const fs::path& folder) {
  std::ofstream(folder / "job.yaml") << "name: disturbed\nmodel: {pt2: " << (settings.example / "gpt.pt2").string()
                                     << "}\ndata: {text: " << (settings.example / "kjv.txt").string()
                                     << ", sequence_length: 64, seed: 7}\nbatch: {global: 8}\ntrain: {steps: "
                                     << settings.steps
                                     << ", seed: 1234, log_every: 50}\noptimizer: {name: adamw, learning_rate: 1.0e-4, "
                                        "warmup_steps: 100, clip_grad_norm: 1.0}\n"
                                     << "checkpoint: {every_steps: " << settings.save_every
                                     << ", directory: " << disk_of(folder).string()
                                     << "}\nelastic: {max_restarts: 100000}\n"
                                     << (settings.nodes == 1 ? "plan: {data: 2, pipeline: 2}\n" : "");
}

int free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  const bool bound = ::bind(socket, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  ::close(socket);
  return bound ? ntohs(address.sin_port) : 29400;
}

std::vector<std::string> node_line(const RunSettings& settings, const NodeRun& run, int node, const std::string& name,
                                   const fs::path& run_folder) {
  const auto temporary = temporary_of(run.folder, name);
  fs::create_directories(temporary);
  std::vector<std::string> line{"env",
                                "TMPDIR=" + temporary.string(),
                                "LD_PRELOAD=" + (program_folder() / "rank_faults.so").string(),
                                (program_folder() / "launch").string(),
                                "train",
                                (run.folder / "job.yaml").string(),
                                "--devices",
                                settings.devices,
                                "--run-dir",
                                run_folder.string()};
  if (node == 0 && !settings.plan.empty()) line.insert(line.end(), {"--plan", settings.plan.string()});
  if (settings.nodes > 1)
    line.insert(line.end(), {"--nnodes", std::to_string(settings.nodes), "--node-rank", std::to_string(node),
                             "--rdzv-endpoint", run.endpoint, "--token-file", (run.folder / "token").string()});
  return line;
}

void start_nodes(const RunSettings& settings, NodeRun& run) {
  run.runs.push_back(run.folder / (run.runs.empty() ? "run" : "run" + std::to_string(run.runs.size() + 1)));
  run.launches.clear();
  for (int node = 0; node < settings.nodes; ++node) run.launches.push_back(start_node(settings, run, node));
}

}  // namespace

fs::path disk_of(const fs::path& folder) { return folder / "disk"; }

fs::path disk_seen(const RunSettings& settings, const fs::path& folder, int node) {
  return settings.apart == nullptr ? disk_of(folder) : folder / ("disk" + std::to_string(node));
}

fs::path temporary_of(const fs::path& folder, const std::string& node) { return folder / ("tmp" + node); }

int start_node(const RunSettings& settings, const NodeRun& run, int node) {
  const std::string name = std::to_string(node);
  std::vector<std::string> line;
  if (settings.apart != nullptr)
    line = settings.apart->on(node, disk_seen(settings, run.folder, node), disk_of(run.folder));
  // Logs of an earlier start stay where they are.
  const fs::path own_folder = run.folder / ("node" + name + "-" + std::to_string(run.runs.size()));
  const auto own = node_line(settings, run, node, name, node == 0 ? run.run() : own_folder);
  line.insert(line.end(), own.begin(), own.end());
  if (settings.apart != nullptr) line.insert(line.end(), {"--local-addr", settings.apart->address(node)});
  return start_process(line, run.folder / ("output" + name));
}

int start_intruder(const RunSettings& settings, const NodeRun& run, int node, const std::string& name) {
  std::vector<std::string> line;
  if (settings.apart != nullptr) line = settings.apart->in_network(0);
  const auto own = node_line(settings, run, node, name, run.folder / name);
  line.insert(line.end(), own.begin(), own.end());
  return start_process(line, run.folder / ("output" + name));
}

NodeRun start_run(const RunSettings& settings, const fs::path& folder) {
  write_job(settings, folder);
  const NodeNamespaces* apart = settings.apart;
  const std::string endpoint = apart != nullptr ? apart->address(0) + ":29400"  // nobody else is in there
                                                : "127.0.0.1:" + std::to_string(free_port());
  fs::create_directories(disk_of(folder));
  std::ofstream(folder / "token") << "a token of this bench alone\n";
  fs::permissions(folder / "token", fs::perms::owner_read);
  for (int node = 0; apart != nullptr && node < settings.nodes; ++node) {
    fs::create_directories(disk_seen(settings, folder, node));
    apart->mount_disk(disk_seen(settings, folder, node));
  }
  NodeRun run{folder, endpoint, {}, {}};
  start_nodes(settings, run);
  return run;
}

void end_run(const RunSettings& settings, const NodeRun& run) {
  for (int node = 0; settings.apart != nullptr && node < settings.nodes; ++node)
    settings.apart->unmount_disk(disk_seen(settings, run.folder, node));
}

void start_again(const RunSettings& settings, NodeRun& run) { start_nodes(settings, run); }

int wait_run(const NodeRun& run, double limit_seconds) {
  int code = wait_process(run.launches.front(), limit_seconds);
  for (std::size_t node = 1; node < run.launches.size(); ++node)
    if (wait_process(run.launches[node], 30) == kEndedByBench) code = kEndedByBench;
  return code;
}

bool lives(int pid) {
  const std::string text = read_text("/proc/" + std::to_string(pid) + "/stat");
  const auto name_end = text.rfind(')');
  return name_end != std::string::npos && name_end + 2 < text.size() && text[name_end + 2] != 'Z';
}

std::vector<int> victims_of(int launch, Victim victim) {
  if (victim == Victim::Node || victim == Victim::Agent) return {launch};
  const std::string role = victim == Victim::Coordinator ? "coordinator" : "worker";
  std::vector<int> found;
  for (const int pid : family_of(launch))
    if (role_of(pid) == role && lives(pid)) found.push_back(pid);
  return found;
}

int rank_of(int pid) {
  const std::string text = '\0' + read_text("/proc/" + std::to_string(pid) + "/environ");
  const std::string mark = std::string(1, '\0') + "RANK=";
  const auto at = text.find(mark);
  return at == std::string::npos ? -1 : std::atoi(text.c_str() + at + mark.size());
}

}  // namespace coxswain::bench
