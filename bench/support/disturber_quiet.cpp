// Faults of Disturber that are no failure of a rank or a node: what the run has to bear, to refuse, or to tell.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "bench/support/bench.h"
#include "bench/support/disturber.h"
#include "bench/support/processes.h"
#include "bench/support/rank_faults.h"
#include "bench/support/waits.h"
#include "common/exit_code.h"

namespace coxswain::bench {
namespace {

namespace fs = std::filesystem;

constexpr double kSlowSeconds = 4;  // longer than any silence that is taken for a failure
constexpr int kSlowPart = 5;        // so many times less of the processor
constexpr const char* kSlowRate = "100mbit";
constexpr double kSignSeconds = 60;
constexpr double kStopSeconds = 90;
constexpr int kLeastQuota = 1000;    // microseconds; the kernel takes no less
constexpr int kClockSeconds = 5000;  // more than an hour, either way

/// The file of the process's own cgroup that limits its processor; empty: it has none.
fs::path quota_file(int pid) {
  std::istringstream lines(read_text("/proc/" + std::to_string(pid) + "/cgroup"));
  for (std::string line; std::getline(lines, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos || line.substr(second + 1) == "/") continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (controllers == "cpu" || controllers == "cpu,cpuacct")
      return fs::path("/sys/fs/cgroup") / controllers / ("." + line.substr(second + 1)) / "cpu.cfs_quota_us";
    if (const fs::path file = fs::path("/sys/fs/cgroup") / ("." + line.substr(second + 1)) / "cpu.max";
        controllers.empty() && fs::exists(file))
      return file;
  }
  return "";
}

/// A fraction of what `text` allows; what it says behind the first number stays.
std::string slower(const std::string& text) {
  const auto quota = std::atol(text.c_str());
  const auto behind = text.find(' ');
  return std::to_string(std::max<long>(kLeastQuota, quota / kSlowPart)) +
         (behind == std::string::npos ? "" : text.substr(behind));
}

void flip_bit(const fs::path& file, std::uintmax_t size, std::uint64_t random) {
  std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
  const auto at = static_cast<std::streamoff>(random % size);
  bytes.seekg(at);
  const char changed = static_cast<char>(bytes.get() ^ (1 << (random % 8)));
  bytes.seekp(at);
  bytes.put(changed);
}

}  // namespace

/// Of the newest checkpoint of a node, of which it may also hold copies of others' files. False: there is none yet.
bool Disturber::damage_checkpoint(Act act) {
  const int node = settings_.apart == nullptr || random_() % 2 == 0 ? 0 : living_node();
  const fs::path disk = disk_seen(settings_, run_.folder, node);
  const std::int64_t step = newest_checkpoint(disk);
  if (step < 0) return false;
  std::vector<fs::path> files;
  std::error_code gone;  // a newer one took its place
  for (const auto& entry : fs::directory_iterator(disk / ("step_" + std::to_string(step)), gone))
    files.push_back(entry.path());
  if (files.empty()) return false;
  std::sort(files.begin(), files.end());
  const fs::path& file = files[random_() % files.size()];
  const auto size = fs::file_size(file, gone);
  if (gone || size == 0) return false;
  if (act == Act::TearCheckpoint)
    fs::resize_file(file, random_() % size, gone);
  else
    flip_bit(file, size, random_());
  damaged_step_ = step;
  return true;
}

/// It tells that a checkpoint failed and of what, and goes on; then there is room again.
bool Disturber::fill_disk(const FaultKind& kind) {
  const int node = random_() % 2 == 0 ? 0 : living_node();
  const fs::path disk = disk_seen(settings_, run_.folder, node);
  const std::string sign = kind.sign;
  const int before = count_events(run_.run(), sign), failures = count_failures(run_.run());
  if (!settings_.apart->limit_disk(disk, 64)) return true;
  const bool told = await(sign, before, kind);
  static_cast<void>(settings_.apart->limit_disk(disk, -1));
  ++result_.made[kind.name];
  if (!told) return false;
  result_.seconds[kind.name].push_back(seconds_since(struck_));
  const Json event = last_event(run_.run(), {sign});
  const std::string text = to_text(event);
  return steps_on(kind, failures, text.find("o space left") != std::string::npos ? "" : "was told as " + text);
}

/// Until it has taken another step. No failure may be told meanwhile, and not since `failures` were; else that is a
/// false alarm. `so_far`: what was wrong before; empty: nothing.
bool Disturber::steps_on(const FaultKind& kind, int failures, std::string so_far) {
  const int steps = count_steps(run_.run());
  const TimePoint began = steady_clock().now();
  while (still_lives() && count_steps(run_.run()) <= steps && seconds_since(began) < kSignSeconds) wait(kLookSeconds);
  const bool stands = still_lives() && count_steps(run_.run()) <= steps;
  if (count_failures(run_.run()) > failures)
    so_far += " was taken for " + to_text(last_event(run_.run(), {"worker_failed", "node_lost"}));
  if (stands) so_far += " no step within 60 s";
  judge(kind, so_far.empty(), so_far);
  if (stands) kill(run_.launches.front(), SIGKILL);
  return still_lives();
}

bool Disturber::slow_down(const FaultKind& kind) {
  const int failures = count_failures(run_.run());
  if (kind.act == Act::SlowLink) {
    const int node = living_node();
    if (node == 0) return true;
    settings_.apart->slow(node, kSlowRate);
    while (still_lives() && seconds_since(struck_) < kSlowSeconds) wait(kLookSeconds);
    settings_.apart->mend(node);
  } else {
    std::vector<int> pids;
    for (const int launch : run_.launches)
      for (const int pid : victims_of(launch, Victim::Rank)) pids.push_back(pid);
    if (pids.empty()) return true;
    const fs::path file = quota_file(pids[random_() % pids.size()]);
    if (file.empty()) return true;  // devices without a quota of their own
    const std::string quota = read_text(file);
    std::ofstream(file) << slower(quota);
    while (still_lives() && seconds_since(struck_) < kSlowSeconds) wait(kLookSeconds);
    std::ofstream(file) << quota;  // gone where its node has ended
  }
  ++result_.made[kind.name];
  return steps_on(kind, failures, "");
}

bool Disturber::jump_clock(const FaultKind& kind) {
  const int failures = count_failures(run_.run());
  std::vector<int> pids;
  for (const int launch : run_.launches)
    if (lives(launch))
      for (const int pid : family_of(launch))
        if (catches(pid, rank_fault_signals().clock)) pids.push_back(pid);
  sigval seconds{};
  seconds.sival_int = static_cast<int>(random_() % (2 * kClockSeconds)) - kClockSeconds;
  if (pids.empty() || sigqueue(pids[random_() % pids.size()], rank_fault_signals().clock, seconds) != 0) return true;
  while (still_lives() && seconds_since(struck_) < kSlowSeconds) wait(kLookSeconds);
  ++result_.made[kind.name];
  return steps_on(kind, failures, "");
}

/// As a scheduler takes the machines and gives them again.
bool Disturber::stop_run(const FaultKind& kind) {
  kill(run_.launches.front(), kind.signal);
  const int code = wait_process(run_.launches.front(), kStopSeconds);
  bool all = code == static_cast<int>(ExitCode::Stopped);
  for (std::size_t node = 1; node < run_.launches.size(); ++node) {
    const bool was_killed = result_.killed_nodes.contains(run_.launches[node]);
    const int other = wait_process(run_.launches[node], 30);
    all = all && (was_killed || other == code);
  }
  result_.exit_code = code;
  if (code == 0) return false;  // it came to its end
  ++result_.made[kind.name];
  judge(kind, all, "exit " + std::to_string(code) + ": " + read_text(run_.folder / "output0.errors"));
  if (static_cast<int>(read_steps(run_.runs).losses.size()) >= settings_.steps) {
    result_.exit_code = 0;
    return false;
  }
  if (code != static_cast<int>(ExitCode::Stopped)) return false;
  const TimePoint began = steady_clock().now();
  start_again(settings_, run_);
  result_.exit_code.reset();
  while (still_lives() && count_steps(run_.run()) == 0 && seconds_since(began) < kSignSeconds) wait(kLookSeconds);
  result_.seconds[kind.name].push_back(seconds_since(began));
  return still_lives();
}

/// Another one wants the coordinator's port, or a place that is taken: it is told so, and the run does not notice.
bool Disturber::intrude(const FaultKind& kind) {
  const bool agent = kind.act == Act::DuplicateAgent;
  const int node = agent ? living_node() : 0;
  if (agent && node == 0) return true;
  const int failures = count_failures(run_.run());
  const std::string name = std::string(agent ? "agent" : "port") + std::to_string(result_.intruders.size());
  result_.intruders.push_back(name);
  const int code = wait_process(start_intruder(settings_, run_, node, name), kSignSeconds);
  if (!still_lives()) return false;  // the run ended meanwhile: who comes then is another case
  ++result_.made[kind.name];
  const std::string text = read_text(run_.folder / ("output" + name + ".errors"));
  const std::string words = agent ? "all its nodes" : "cannot listen";
  const bool refused = code != 0 && code != kEndedByBench && text.find(words) != std::string::npos;
  return steps_on(kind, failures, refused ? "" : "exit " + std::to_string(code) + ": " + text);
}

}  // namespace coxswain::bench
