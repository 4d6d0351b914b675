// Faults into real runs, at random instants: a run of a small GPT over four ranks is repeated, disturbed, until so many
// faults were made; each time its losses must be those of an undisturbed run, to the bit, and nothing may be left
// behind. Times are from the fault to the line in events.jsonl that says that the run goes on. Ends only processes that
// it started, found beneath its own `launch`.
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "bench/support/train_runs.h"
#include "common/clock.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

/// `victim`: a word of the command line of the process that `signal` goes to. `sign`: the event by which the run goes
/// on; `then`: a second victim, killed within 1.5 s of the first.
struct Kind {
  const char* name;
  const char* victim;
  int signal;
  const char* sign;
  const char* then = nullptr;
};
constexpr Kind kKinds[] = {
    {"coordinator-killed", "coordinator", SIGKILL, "coordinator_restarted"},
    {"coordinator-aborted", "coordinator", SIGABRT, "coordinator_restarted"},
    {"coordinator-stopped", "coordinator", SIGSTOP, "coordinator_restarted"},
    {"rank-killed", "worker", SIGKILL, "recovered"},
    {"rank-segfault", "worker", SIGSEGV, "recovered"},
    {"rank-aborted", "worker", SIGABRT, "recovered"},
    {"rank-stopped", "worker", SIGSTOP, "recovered"},
    {"rank-then-coordinator", "worker", SIGKILL, "recovered", "coordinator"},
    {"rank-then-rank", "worker", SIGKILL, "recovered", "worker"},
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

struct Settings {
  std::filesystem::path example, plan;
  std::string devices;
  int steps = 0, save_every = 0;
  double pause = 0;  // between faults, mean seconds
  std::vector<Kind> kinds;
};

std::filesystem::path write_chaos_job(const Settings& settings, const std::filesystem::path& folder) {
  std::ofstream(folder / "job.yaml")
      << "name: chaos\nmodel: {pt2: " << (settings.example / "gpt.pt2").string()
      << "}\ndata: {text: " << (settings.example / "kjv.txt").string()
      << ", sequence_length: 64, seed: 7}\nbatch: {global: 8}\ntrain: {steps: " << settings.steps
      << ", seed: 1234, log_every: 50}\noptimizer: {name: adamw, learning_rate: 1.0e-3}\n"
      << "checkpoint: {every_steps: " << settings.save_every << "}\nelastic: {max_restarts: 100000}\n"
      << "plan: {data: 2, pipeline: 2}\n";
  return folder / "job.yaml";
}

int start_launch(const Settings& settings, const std::filesystem::path& folder) {
  std::vector<std::string> line{"env",
                                "TMPDIR=" + (folder / "tmp").string(),
                                (program_folder() / "launch").string(),
                                "train",
                                write_chaos_job(settings, folder).string(),
                                "--devices",
                                settings.devices,
                                "--run-dir",
                                (folder / "run").string()};
  if (!settings.plan.empty()) line.insert(line.end(), {"--plan", settings.plan.string()});
  std::filesystem::create_directories(folder / "tmp");
  return start_process(line, folder / "output");
}

class Disturber {
 public:
  Disturber(const Settings& settings, std::mt19937_64& random, int launch, std::filesystem::path run)
      : settings_(settings), random_(random), launch_(launch), run_(std::move(run)) {}

  /// One fault, and the wait until the run goes on. False: the run has ended.
  bool disturb() {
    wait(std::exponential_distribution<double>(1 / settings_.pause)(random_));
    const Kind& kind = settings_.kinds[random_() % settings_.kinds.size()];
    if (!lives(launch_)) return false;
    const std::string sign = kind.sign;
    // What needs a generation waits for one that steps.
    if (sign == "recovered" && count_events(run_, "generation_started") == 0) return true;
    const int before = count_events(run_, sign);
    if (!strike(kind.victim, kind.signal)) return lives(launch_);
    const TimePoint struck = steady_clock().now();
    if (kind.then != nullptr) {
      wait(std::uniform_real_distribution<double>(0, 1.5)(random_));
      strike(kind.then, SIGKILL);
    }
    while (count_events(run_, sign) == before) {
      if (!lives(launch_)) break;
      if (seconds_since(struck) > kSignSeconds) {
        std::printf("  %s: no %s within %.0f s\n", kind.name, kind.sign, kSignSeconds);
        ++lost;
        kill(launch_, SIGKILL);
        return false;
      }
      wait(kLookSeconds);
    }
    ++made[kind.name];
    // A fault in a run's last steps has nothing to go on with.
    if (count_events(run_, sign) > before) seconds[kind.name].push_back(seconds_since(struck));
    return lives(launch_);
  }

  std::map<std::string, std::vector<double>> seconds;
  std::map<std::string, int> made;
  int lost = 0;

 private:
  bool strike(const std::string& victim, int signal) {
    const std::vector<int> pids = victims(launch_, victim);
    if (pids.empty()) return false;
    return kill(pids[random_() % pids.size()], signal) == 0;
  }

  const Settings& settings_;
  std::mt19937_64& random_;
  int launch_;
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
  Options options = parse_options(argc, argv, "faults into real runs",
                                  {"--faults", "--kinds", "--pause", "--steps", "--devices", "--save-every"});
  const auto flag = [&](const char* name, const char* otherwise) {
    return options.other.contains(name) ? options.other.at(name) : std::string(otherwise);
  };
  Report report("chaos", options);
  Settings settings;
  settings.example = make_example({.layers = 4, .width = 64, .heads = 4, .context = 64, .dropout = 0.1});
  settings.devices = flag("--devices", "4xcpu");
  settings.steps = std::atoi(flag("--steps", "300").c_str());
  settings.save_every = std::atoi(flag("--save-every", "10").c_str());
  settings.pause = std::atof(flag("--pause", "1.5").c_str());
  settings.kinds = kinds_of(flag("--kinds", "all"));
  const int wanted = std::atoi(flag("--faults", options.quick ? "10" : "200").c_str());

  const auto calm = make_scratch_folder("calm");
  if (wait_process(start_launch(settings, calm), 300) != 0) {
    std::fprintf(stderr, "the undisturbed run failed:\n%s", read_text(calm / "output.errors").c_str());
    return 1;
  }
  const Steps expected = read_steps(calm / "run");
  const auto before = shared_memory();
  std::mt19937_64 random(options.seed);
  std::map<std::string, std::vector<double>> seconds;
  std::map<std::string, int> made;
  int faults = 0, runs = 0, failed = 0, unlike = 0, left = 0;
  std::size_t rows = 0;
  while (faults < wanted && failed < 5) {
    // Every fourth run measures and plans anew, so that faults come then too.
    settings.plan = runs % 4 == 3 ? std::filesystem::path() : calm / "run" / "plan-1.json";
    const auto folder = make_scratch_folder("disturbed");
    const int launch = start_launch(settings, folder);
    Disturber disturber(settings, random, launch, folder / "run");
    std::set<int> pids;
    while (disturber.disturb())
      for (const int pid : family(launch)) pids.insert(pid);
    const int code = wait_process(launch, 120);
    const Steps got = read_steps(folder / "run");
    ++runs;
    rows += got.rows;
    for (const auto& [name, values] : disturber.seconds)
      seconds[name].insert(seconds[name].end(), values.begin(), values.end());
    int here = 0;
    for (const auto& [name, count] : disturber.made) {
      made[name] += count;
      here += count;
    }
    faults += here;
    if (code != 0) ++failed;
    const bool same = got.whole && got.losses == expected.losses;
    if (code == 0 && !same) ++unlike;
    left += static_cast<int>(std::count_if(pids.begin(), pids.end(), lives));
    for (const auto& entry : std::filesystem::directory_iterator(folder / "tmp")) {
      static_cast<void>(entry);
      ++left;
    }
    std::printf("run %d: %d faults, exit %d, %zu rows of %zu steps, losses %s\n", runs, here, code, got.rows,
                got.losses.size(), same ? "equal" : "UNLIKE");
    if (code != 0) std::printf("%s", read_text(folder / "output.errors").c_str());
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
    if (name == "rank-killed") {
      report.add({name + ": goes on, median", middle, 1.5, middle / 1.5, "s", "<= 1.5", middle <= 1.5});
      report.add({name + ": goes on, 95 %", most, 3, most / 3, "s", "<= 3", most <= 3});
    }
  }
  report.add({"runs that ended otherwise than with exit 0", 1.0 * failed, 0, 0, "runs", "0", failed == 0});
  report.add({"runs with other losses than undisturbed", 1.0 * unlike, 0, 0, "runs", "0", unlike == 0});
  report.add({"processes, files, segments left behind", 1.0 * left, 0, 0, "things", "0", left == 0});
  const bool only_coordinator = std::all_of(settings.kinds.begin(), settings.kinds.end(), [](const Kind& kind) {
    return std::string(kind.sign) == "coordinator_restarted";
  });
  if (only_coordinator) {
    const double again = static_cast<double>(rows) - static_cast<double>(runs) * settings.steps;
    report.add({"steps taken twice or lost", again, 0, 0, "steps", "0", again == 0});
  }
  return report.finish();
}
