// Faults into real runs, at random instants: a run of a small GPT over four ranks is repeated, disturbed, until so many
// faults were made; each time its losses must be those of an undisturbed run (to the bit, and where a node was lost
// within 1e-5 for 20 steps), and nothing may be left behind. Times are from the fault to the line in events.jsonl that
// says that the run goes on. Ends only processes that it started, found beneath its own `launch`.
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "bench/support/node_namespaces.h"
#include "bench/support/train_runs.h"
#include "common/clock.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

/// `victim`: a word of the command line of the process that `signal` goes to, or "node": a whole one, but the first.
/// "link": the network of one, but the first. `sign`: the event by which the run goes on; `then`: a second victim,
/// killed within 1.5 s of the first.
struct Kind {
  const char* name;
  const char* victim;
  int signal;
  const char* sign;
  const char* cause = nullptr;  // that the run must name, with the rank or the node
  const char* then = nullptr;
  bool returns = false;  // the node starts again
};
constexpr Kind kKinds[] = {
    {"coordinator-killed", "coordinator", SIGKILL, "coordinator_restarted"},
    {"coordinator-aborted", "coordinator", SIGABRT, "coordinator_restarted"},
    {"coordinator-stopped", "coordinator", SIGSTOP, "coordinator_restarted"},
    {"rank-killed", "worker", SIGKILL, "recovered", "signal 9"},
    {"rank-segfault", "worker", SIGSEGV, "recovered", "signal 11"},
    {"rank-aborted", "worker", SIGABRT, "recovered", "signal 6"},
    {"rank-terminated", "worker", SIGTERM, "recovered", "signal 15"},
    {"rank-stopped", "worker", SIGSTOP, "recovered", "stopped (SIGSTOP) for 3 s"},
    {"rank-then-coordinator", "worker", SIGKILL, "recovered", nullptr, "coordinator"},
    {"rank-then-rank", "worker", SIGKILL, "recovered", nullptr, "worker"},
    {"rank-then-node", "worker", SIGKILL, "recovered", nullptr, "node"},
    {"node-lost", "node", SIGKILL, "recovered", "its agent died"},
    {"agent-killed", "local-agent", SIGKILL, "recovered", "its agent died"},
    {"node-then-coordinator", "node", SIGKILL, "recovered", nullptr, "coordinator"},
    {"node-returns", "node", SIGKILL, "recovered", "its agent died", nullptr, true},
    {"network-cut", "link", 0, "recovered", "its agent fell silent"},
};

constexpr double kSignSeconds = 60;  // a run that does not go on within this is given up
constexpr double kLookSeconds = 0.005;

std::string read_text(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

void wait(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

double seconds_since(TimePoint begin) { return std::chrono::duration<double>(steady_clock().now() - begin).count(); }

bool lives(int pid) {
  const std::string text = read_text("/proc/" + std::to_string(pid) + "/stat");
  const auto name_end = text.rfind(')');
  return name_end != std::string::npos && name_end + 2 < text.size() && text[name_end + 2] != 'Z';
}

/// `launch` and everything beneath it.
std::vector<int> family(int launch) {
  std::vector<int> all{launch};
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::string task = "/proc/" + std::to_string(all[i]) + "/task";
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(task, error)) {
      std::ifstream children(entry.path() / "children");
      for (int child = 0; children >> child;) all.push_back(child);
    }
  }
  return all;
}

std::vector<int> victims(int launch, const std::string& word) {
  std::vector<int> found;
  for (const int pid : family(launch)) {
    const std::string line = read_text("/proc/" + std::to_string(pid) + "/cmdline");
    const bool is = word == "worker"
                        ? line.find("worker") != std::string::npos && line.find("--agent") != std::string::npos
                        : line.find('\0' + word + '\0') != std::string::npos;
    if (is && lives(pid)) found.push_back(pid);
  }
  return found;
}

/// Events of a run so far, by type.
int count_events(const std::filesystem::path& run, const std::string& type) {
  const std::string text = read_text(run / "events.jsonl");
  const std::string mark = "\"type\":\"" + type + "\"";
  int count = 0;
  for (auto at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) ++count;
  return count;
}

/// The last event of a run that names a failure.
Json last_failure(const std::filesystem::path& run) {
  std::ifstream in(run / "events.jsonl");
  Json last;
  for (std::string line; std::getline(in, line);) {
    auto json = parse_json(line);
    if (json && ((*json)["type"] == Json("worker_failed") || (*json)["type"] == Json("node_lost")))
      last = std::move(*json);
  }
  return last;
}

/// The rank that a worker is.
int rank_of(int pid) {
  const std::string text = '\0' + read_text("/proc/" + std::to_string(pid) + "/environ");
  const std::string mark = std::string(1, '\0') + "RANK=";
  const auto at = text.find(mark);
  return at == std::string::npos ? -1 : std::atoi(text.c_str() + at + mark.size());
}

/// Seconds by class, as the run's own report has them.
void add_goodput(const std::filesystem::path& run, std::map<std::string, double>& seconds) {
  std::ifstream in(run / "events.jsonl");
  for (std::string line; std::getline(in, line);) {
    const auto json = parse_json(line);
    if (!json || (*json)["type"] != Json("goodput")) continue;
    for (const auto& [name, value] : json->object())
      if (name.ends_with("_seconds") && value.is_number()) seconds[name] += value.number();
  }
}

/// The loss of every step as text, the last time that it was taken; how often steps were taken.
struct Steps {
  std::map<std::int64_t, std::string> losses;
  std::size_t rows = 0;
  bool whole = true;  // every line can be read
};
Steps read_steps(const std::filesystem::path& run) {
  Steps steps;
  std::ifstream in(run / "metrics.jsonl");
  for (std::string line; std::getline(in, line); ++steps.rows) {
    const auto json = parse_json(line);
    steps.whole = steps.whole && json.has_value();
    if (json) steps.losses[(*json)["step"].integer()] = to_text((*json)["loss"]);
  }
  return steps;
}

/// First steps of each plan after the first; 0 where there is one only.
std::vector<std::int64_t> after_changes(const std::filesystem::path& run) {
  std::vector<std::int64_t> first{0};
  std::ifstream in(run / "events.jsonl");
  bool changes = false;
  for (std::string line; std::getline(in, line);) {
    const auto json = parse_json(line);
    if (!json) continue;
    if ((*json)["type"] == Json("replanned")) changes = true;
    if (changes && (*json)["type"] == Json("generation_started")) first.push_back((*json)["after_step"].integer() + 1);
    if ((*json)["type"] == Json("generation_started")) changes = false;
  }
  return first;
}

/// The largest relative difference of a loss within 20 steps of a change of plan.
double farthest(const Steps& got, const Steps& expected, const std::vector<std::int64_t>& changes) {
  double far = 0;
  for (const std::int64_t first : changes) {
    for (std::int64_t step = first; step < first + 20; ++step) {
      const auto a = got.losses.find(step), b = expected.losses.find(step);
      if (a == got.losses.end() || b == expected.losses.end()) continue;
      const double x = std::atof(a->second.c_str()), y = std::atof(b->second.c_str());
      far = std::max(far, std::fabs(x - y) / std::fabs(y));
    }
  }
  return far;
}

/// "dp2 pp2 ..., then dp2 ...".
std::string plans_of(const std::filesystem::path& run) {
  std::string text;
  std::ifstream in(run / "events.jsonl");
  for (std::string line; std::getline(in, line);) {
    const auto json = parse_json(line);
    if (json && (*json)["summary"].is_string()) text += (text.empty() ? "" : ", then ") + (*json)["summary"].string();
  }
  return text;
}

struct Settings {
  std::filesystem::path example, plan;
  std::string devices;
  int steps = 0, save_every = 0;
  double pause = 0;  // between faults, mean seconds
  int nodes = 1;
  const NodeNamespaces* apart = nullptr;  // nodes share no network and no disk but through it
  std::vector<Kind> kinds;
};

/// Where each node has a disk of its own, if they are apart.
std::filesystem::path disk_of(const std::filesystem::path& folder) { return folder / "disk"; }

std::filesystem::path write_chaos_job(const Settings& settings, const std::filesystem::path& folder) {
  std::ofstream(folder / "job.yaml") << "name: chaos\nmodel: {pt2: " << (settings.example / "gpt.pt2").string()
                                     << "}\ndata: {text: " << (settings.example / "kjv.txt").string()
                                     << ", sequence_length: 64, seed: 7}\nbatch: {global: 8}\ntrain: {steps: "
                                     << settings.steps
                                     << ", seed: 1234, log_every: 50}\noptimizer: {name: adamw, learning_rate: 1.0e-4, "
                                        "warmup_steps: 100, clip_grad_norm: 1.0}\n"
                                     << "checkpoint: {every_steps: " << settings.save_every
                                     << (settings.apart == nullptr ? "" : ", directory: " + disk_of(folder).string())
                                     << "}\nelastic: {max_restarts: 100000}\n"
                                     << (settings.nodes == 1 ? "plan: {data: 2, pipeline: 2}\n" : "");
  return folder / "job.yaml";
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

/// A run over nodes, each a `launch train`; the first coordinates.
struct Nodes {
  std::filesystem::path folder;
  std::string endpoint;
  std::vector<int> launches;
};

int start_node(const Settings& settings, const Nodes& nodes, int node) {
  const std::filesystem::path& folder = nodes.folder;
  const auto temporary = folder / ("tmp" + std::to_string(node));
  std::filesystem::create_directories(temporary);
  std::vector<std::string> line;
  if (settings.apart != nullptr) line = settings.apart->on(node, disk_of(folder));
  const std::string run = node == 0 ? "run" : "node" + std::to_string(node);
  line.insert(line.end(),
              {"env", "TMPDIR=" + temporary.string(), (program_folder() / "launch").string(), "train",
               (folder / "job.yaml").string(), "--devices", settings.devices, "--run-dir", (folder / run).string()});
  if (settings.apart != nullptr) line.insert(line.end(), {"--local-addr", settings.apart->address(node)});
  if (node == 0 && !settings.plan.empty()) line.insert(line.end(), {"--plan", settings.plan.string()});
  if (settings.nodes > 1)
    line.insert(line.end(), {"--nnodes", std::to_string(settings.nodes), "--node-rank", std::to_string(node),
                             "--rdzv-endpoint", nodes.endpoint, "--token-file", (folder / "token").string()});
  return start_process(line, folder / ("output" + std::to_string(node)));
}

Nodes start_nodes(const Settings& settings, const std::filesystem::path& folder) {
  write_chaos_job(settings, folder);
  const NodeNamespaces* apart = settings.apart;
  const std::string endpoint = apart != nullptr ? apart->address(0) + ":29400"  // nobody else is in there
                                                : "127.0.0.1:" + std::to_string(free_port());
  std::filesystem::create_directories(disk_of(folder));
  std::ofstream(folder / "token") << "a token of this bench alone\n";
  std::filesystem::permissions(folder / "token", std::filesystem::perms::owner_read);
  Nodes nodes{folder, endpoint, {}};
  for (int node = 0; node < settings.nodes; ++node) nodes.launches.push_back(start_node(settings, nodes, node));
  return nodes;
}

/// Exit code of the first node; the others end with it, or were killed.
int wait_nodes(const Nodes& nodes, double limit_seconds) {
  const std::vector<int>& launches = nodes.launches;
  const int code = wait_process(launches.front(), limit_seconds);
  for (std::size_t node = 1; node < launches.size(); ++node) static_cast<void>(wait_process(launches[node], 30));
  return code;
}

class Disturber {
 public:
  Disturber(const Settings& settings, std::mt19937_64& random, Nodes& nodes)
      : settings_(settings), random_(random), nodes_(nodes), launches_(nodes.launches), run_(nodes.folder / "run") {}

  /// One fault, and the wait until the run goes on. False: the run has ended.
  bool disturb() {
    wait(std::exponential_distribution<double>(1 / settings_.pause)(random_));
    const Kind& kind = settings_.kinds[random_() % settings_.kinds.size()];
    if (!lives(launches_.front())) return false;
    const std::string sign = kind.sign;
    // What needs a generation waits for one that steps. Before there is a plan a run writes nothing, so that what it
    // makes of a fault then cannot be timed.
    const bool trains = count_events(run_, "generation_started") > 0;
    if (sign == "recovered" && !trains) return true;
    const int before = count_events(run_, sign);
    if (!strike(kind.victim, kind.signal)) return lives(launches_.front());
    const TimePoint struck = steady_clock().now();
    if (kind.then != nullptr) {
      wait(std::uniform_real_distribution<double>(0, 1.5)(random_));
      strike(kind.then, SIGKILL);
    }
    while (count_events(run_, sign) == before) {
      if (!lives(launches_.front())) break;
      if (seconds_since(struck) > kSignSeconds) {
        std::printf("  %s: no %s within %.0f s\n", kind.name, kind.sign, kSignSeconds);
        kill(launches_.front(), SIGKILL);
        if (cut_ > 0) end_cut();
        return false;
      }
      wait(kLookSeconds);
    }
    ++made[kind.name];
    // A fault in a run's last steps has nothing to go on with.
    if (kind.cause != nullptr && count_events(run_, sign) > before) check_cause(kind);
    if (cut_ > 0) end_cut();
    if (kind.returns) return_node();
    if (trains && count_events(run_, sign) > before) seconds[kind.name].push_back(seconds_since(struck));
    return lives(launches_.front());
  }

  std::map<std::string, std::vector<double>> seconds;
  std::map<std::string, int> made;
  int named = 0, named_rightly = 0;
  std::vector<double> used_again;  // from the start of a node that returns to the generation that has it
  bool lost_nodes = false;
  std::set<int> killed_nodes;  // pids of their `launch`

 private:
  bool strike(const std::string& victim, int signal) {
    std::vector<int> pids;
    for (std::size_t node = 0; node < launches_.size(); ++node) {
      const bool first = node == 0;
      // Not yet: the first node's own end.
      if (victim == "node" && !first && lives(launches_[node])) pids.push_back(launches_[node]);
      if (victim == "local-agent" && first) continue;
      if (victim == "node" || victim == "link") continue;
      for (const int pid : victims(launches_[node], victim)) pids.push_back(pid);
    }
    if (victim == "link") return cut_network();
    lost_nodes = lost_nodes || victim == "node" || victim == "local-agent";
    if (pids.empty()) return false;
    const int pid = pids[random_() % pids.size()];
    if (victim == "node") killed_nodes.insert(pid);
    struck_rank_ = victim == "worker" ? rank_of(pid) : -1;
    return kill(pid, signal) == 0;
  }

  void check_cause(const Kind& kind) {
    const Json failure = last_failure(run_);
    const bool right =
        failure.is_object() && failure["cause"] == Json(kind.cause) &&
        (struck_rank_ < 0 ? failure["type"] == Json("node_lost")
                          : failure["type"] == Json("worker_failed") && failure["rank"] == Json(struck_rank_));
    ++named;
    named_rightly += right ? 1 : 0;
    if (!right) std::printf("  %s of rank %d was named %s\n", kind.name, struck_rank_, to_text(failure).c_str());
  }

  /// A node that nobody reaches ends its ranks by itself; it goes on as a killed one would.
  bool cut_network() {
    std::vector<int> nodes;
    for (int node = 1; settings_.apart != nullptr && node < settings_.nodes; ++node)
      if (lives(launches_[static_cast<std::size_t>(node)])) nodes.push_back(node);
    if (nodes.empty()) return false;
    struck_rank_ = -1;
    cut_ = nodes[random_() % nodes.size()];
    settings_.apart->cut(cut_);
    lost_nodes = true;
    return true;
  }
  /// Once the others go on it is ended, so that the next run finds the network whole.
  void end_cut() {
    const int launch = launches_[static_cast<std::size_t>(cut_)];
    killed_nodes.insert(launch);
    kill(launch, SIGKILL);
    settings_.apart->join(cut_);
    cut_ = 0;
  }

  /// The node that was killed last starts again, and the run moves to a plan with it, unless it ends before.
  void return_node() {
    const std::string sign = "generation_started";
    const int before = count_events(run_, sign);
    const auto killed = std::find_if(launches_.begin() + 1, launches_.end(), [](int launch) { return !lives(launch); });
    if (killed == launches_.end()) return;
    static_cast<void>(wait_process(*killed, 10));
    const auto node = static_cast<int>(killed - launches_.begin());
    std::error_code ignored;
    std::filesystem::remove_all(nodes_.folder / ("tmp" + std::to_string(node)), ignored);  // of the one that was killed
    const TimePoint began = steady_clock().now();
    *killed = start_node(settings_, nodes_, node);
    while (lives(launches_.front()) && seconds_since(began) < kSignSeconds && count_events(run_, sign) == before)
      wait(kLookSeconds);
    if (count_events(run_, sign) > before) used_again.push_back(seconds_since(began));
    if (lives(launches_.front())) return;
    killed_nodes.insert(*killed);  // it came too late
    kill(*killed, SIGKILL);
  }

  const Settings& settings_;
  std::mt19937_64& random_;
  int cut_ = 0;           // the node whose network is cut; 0: none
  int struck_rank_ = -1;  // -1: another process
  Nodes& nodes_;
  std::vector<int>& launches_;
  std::filesystem::path run_;
};

std::set<std::string> shared_memory() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) names.insert(entry.path().filename());
  return names;
}

double at_share(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<std::size_t>(share * static_cast<double>(values.size())))];
}

/// Seconds of each kill of a rank under torchrun, until all of its ranks step again.
std::vector<double> peer_seconds(int kills, std::uint64_t seed, Report& report) {
  const auto source = source_folder();
  const auto result =
      run_process({(source / ".venv/bin/python").string(), (source / "bench/peers/torchrun_recovery.py").string(),
                   "--kills", std::to_string(kills), "--ranks", "4", "--seed", std::to_string(seed)},
                  60.0 + 40.0 * kills);
  const auto json = parse_json(result.output);
  if (result.exit_code != 0 || !json) {
    std::fprintf(stderr, "the peer failed (%d): %s\n", result.exit_code, result.errors.c_str());
    std::exit(1);
  }
  report.peer("torchrun", (*json)["version"].string());
  std::vector<double> seconds;
  for (const Json& one : (*json)["seconds"].array()) seconds.push_back(one.number());
  return seconds;
}

std::vector<Kind> kinds_of(const std::string& names) {
  std::vector<Kind> kinds;
  std::stringstream words(names);
  for (std::string word; std::getline(words, word, ',');) {
    for (const Kind& kind : kKinds) {
      if (word == kind.name || word == "all") kinds.push_back(kind);
    }
  }
  if (kinds.empty()) {
    std::fprintf(stderr, "no such kind of fault: %s; there are:", names.c_str());
    for (const Kind& kind : kKinds) std::fprintf(stderr, " %s", kind.name);
    std::fprintf(stderr, "\n");
    std::exit(64);
  }
  return kinds;
}

}  // namespace

int main(int argc, char** argv) {
  Options options = parse_options(
      argc, argv, "faults into real runs",
      {"--faults", "--kinds", "--pause", "--steps", "--devices", "--save-every", "--nodes", "--peer-kills", "--apart"});
  const auto flag = [&](const char* name, const char* otherwise) {
    return options.other.contains(name) ? options.other.at(name) : std::string(otherwise);
  };
  Report report("chaos", options);
  Settings settings;
  settings.nodes = std::atoi(flag("--nodes", "1").c_str());
  settings.devices = flag("--devices", settings.nodes == 1 ? "4xcpu" : "2xcpu");
  std::optional<NodeNamespaces> apart;
  if (flag("--apart", "0") != "0") settings.apart = &apart.emplace(settings.nodes);
  settings.steps = std::atoi(flag("--steps", "300").c_str());
  settings.save_every = std::atoi(flag("--save-every", "10").c_str());
  settings.pause = std::atof(flag("--pause", "1.5").c_str());
  settings.kinds = kinds_of(flag("--kinds", "all"));
  const int wanted = std::atoi(flag("--faults", options.quick ? "10" : "200").c_str());

  // Over several nodes one that is worth them: the plan is the planner's.
  settings.example = settings.nodes == 1
                         ? make_example({.layers = 4, .width = 64, .heads = 4, .context = 64, .dropout = 0.1})
                         : make_example({.layers = 8, .width = 256, .heads = 8, .context = 64, .dropout = 0.1});
  const auto calm = make_scratch_folder("calm");
  if (wait_nodes(start_nodes(settings, calm), 300) != 0) {
    std::fprintf(stderr, "the undisturbed run failed:\n%s", read_text(calm / "output0.errors").c_str());
    return 1;
  }
  const Steps expected = read_steps(calm / "run");
  const auto before = shared_memory();
  std::mt19937_64 random(options.seed);
  std::map<std::string, std::vector<double>> seconds;
  std::map<std::string, int> made;
  std::vector<double> used_again;
  std::map<std::string, double> goodput;
  int named = 0, named_rightly = 0;
  double worst_change = 0;
  int faults = 0, runs = 0, failed = 0, unlike = 0, left = 0;
  std::size_t rows = 0;
  while (faults < wanted && failed < 5) {
    // Every fourth run measures and plans anew, so that faults come then too.
    settings.plan = runs % 4 == 3 ? std::filesystem::path() : calm / "run" / "plan-1.json";
    const auto folder = make_scratch_folder("disturbed");
    Nodes nodes = start_nodes(settings, folder);
    const std::vector<int>& launches = nodes.launches;
    Disturber disturber(settings, random, nodes);
    std::set<int> pids;
    do {
      for (const int launch : launches)
        for (const int pid : family(launch)) pids.insert(pid);
    } while (disturber.disturb());
    const int code = wait_nodes(nodes, 120);
    const Steps got = read_steps(folder / "run");
    ++runs;
    rows += got.rows;
    for (const auto& [name, values] : disturber.seconds)
      seconds[name].insert(seconds[name].end(), values.begin(), values.end());
    named += disturber.named;
    named_rightly += disturber.named_rightly;
    add_goodput(folder / "run", goodput);
    used_again.insert(used_again.end(), disturber.used_again.begin(), disturber.used_again.end());
    int here = 0;
    for (const auto& [name, count] : disturber.made) {
      made[name] += count;
      here += count;
    }
    faults += here;
    if (code != 0) ++failed;
    // A run that planned anew, or plans for fewer nodes, adds up in another order.
    const bool same_plan = !settings.plan.empty() && !disturber.lost_nodes;
    const double far = farthest(got, expected, after_changes(folder / "run"));
    const bool same = got.whole && (same_plan ? got.losses == expected.losses
                                              : got.losses.size() == expected.losses.size() && far <= 1e-5);
    if (!same_plan) worst_change = std::max(worst_change, far);
    if (code == 0 && !same) ++unlike;
    left += static_cast<int>(std::count_if(pids.begin(), pids.end(), lives));
    // A node that was killed as a whole took its temporary files with it.
    for (std::size_t node = 0; node < launches.size(); ++node) {
      if (disturber.killed_nodes.contains(launches[node])) continue;
      const std::filesystem::directory_iterator files(folder / ("tmp" + std::to_string(node)));
      left += static_cast<int>(std::distance(begin(files), end(files)));
    }
    std::printf("run %d: %d faults, exit %d, %zu rows of %zu steps, losses %s (%.1e); %s\n", runs, here, code, got.rows,
                got.losses.size(), same ? "equal" : "UNLIKE", far, plans_of(folder / "run").c_str());
    if (code != 0) std::printf("%s", read_text(folder / "output0.errors").c_str());
    std::fflush(stdout);
    std::error_code ignored;
    if (code == 0 && same) std::filesystem::remove_all(folder, ignored);
  }
  for (const auto& name : shared_memory()) left += before.contains(name) ? 0 : 1;
  for (const auto& [name, values] : seconds) {
    const double middle = median(values), most = at_share(values, 0.95);
    std::printf("%-24s %4d faults, %4zu seen to go on: median %.2f s, 95 %% %.2f s, worst %.2f s\n", name.c_str(),
                made[name], values.size(), middle, most, at_share(values, 1));
    report.extra()[name] = JsonObject{{"faults", made[name]}, {"median", middle}, {"share_95", most}};
    if (name.starts_with("coordinator")) report.add({name + ": back, 95 %", most, 5, most / 5, "s", "<= 5", most <= 5});
    if (name.starts_with("node") || name == "agent-killed")
      report.add({name + ": goes on under a new plan, 95 %", most, 5, most / 5, "s", "<= 5", most <= 5});
    if (name != "rank-killed") continue;
    const int kills = std::atoi(flag("--peer-kills", "0").c_str());
    const auto peer = kills > 0 ? peer_seconds(kills, options.seed, report) : std::vector<double>{HUGE_VAL};
    report.add({name + ": goes on, median", middle, median(peer), middle / median(peer), "s", "<= 1.5", middle <= 1.5});
    report.add(
        {name + ": goes on, 95 %", most, at_share(peer, 0.95), most / at_share(peer, 0.95), "s", "<= 3", most <= 3});
  }
  if (!used_again.empty()) {
    const double most = at_share(used_again, 0.95);
    std::printf("%-24s %4zu times: median %.2f s, 95 %% %.2f s, worst %.2f s\n", "node used again", used_again.size(),
                median(used_again), most, at_share(used_again, 1));
    report.add({"node that is back: used again, 95 %", most, 10, most / 10, "s", "<= 10", most <= 10});
  }
  std::string classes;
  for (const auto& [name, value] : goodput)
    classes += (classes.empty() ? "" : ", ") + name + " " + std::to_string(value);
  std::printf("seconds by class: %s\n", classes.c_str());
  if (named > 0) {
    const double share = static_cast<double>(named_rightly) / named;
    report.add({"root causes named rightly, of " + std::to_string(named), share, 0.99, share / 0.99, "fraction",
                ">= 0.99", share >= 0.99});
  }
  report.add({"runs that ended otherwise than with exit 0", 1.0 * failed, 0, 0, "runs", "0", failed == 0});
  report.add({"runs with other losses than undisturbed", 1.0 * unlike, 0, 0, "runs", "0", unlike == 0});
  report.add({"processes, files, segments left behind", 1.0 * left, 0, 0, "things", "0", left == 0});
  report.extra()["worst_loss_difference_after_a_new_plan"] = worst_change;
  const bool only_coordinator = std::all_of(settings.kinds.begin(), settings.kinds.end(), [](const Kind& kind) {
    return std::string(kind.sign) == "coordinator_restarted";
  });
  if (only_coordinator) {
    const double again = static_cast<double>(rows) - static_cast<double>(runs) * settings.steps;
    report.add({"steps taken twice or lost", again, 0, 0, "steps", "0", again == 0});
  }
  return report.finish();
}
