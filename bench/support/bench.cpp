#include "bench/support/bench.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>

#include "common/bytes_io.h"
#include "common/clock.h"
#include "common/ensure.h"

extern char** environ;

namespace coxswain::bench {
namespace {

std::string first_line_of(const std::string& file, const std::string& prefix) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);)
    if (line.starts_with(prefix)) return line.substr(line.find(':') + 2);
  return "";
}

std::string machine() {
  return std::to_string(sysconf(_SC_NPROCESSORS_ONLN)) + " cores, " + first_line_of("/proc/cpuinfo", "model name") +
         ", shared";
}

std::vector<char*> pointers(const std::vector<std::string>& arguments) {
  std::vector<char*> result;
  for (const auto& a : arguments) result.push_back(const_cast<char*>(a.c_str()));
  result.push_back(nullptr);
  return result;
}

std::string read_whole(const std::filesystem::path& file) {
  auto text = read_file(file);
  return text ? *text : "";
}

struct ScratchFolders {
  std::vector<std::filesystem::path> folders;
  ~ScratchFolders() {
    std::error_code code;
    for (const auto& folder : folders) std::filesystem::remove_all(folder, code);
  }
};

// Ranks of values; equal ones share the mean of theirs.
std::vector<double> ranks_of(const std::vector<double>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (std::size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    for (std::size_t i = begin; i < end; ++i) ranks[order[i]] = (static_cast<double>(begin + end) - 1) / 2;
  }
  return ranks;
}

}  // namespace

Options parse_options(int argc, char** argv, const std::string& what, const std::vector<std::string>& own) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const bool has_value = i + 1 < argc;
    if (flag == "--quick")
      options.quick = true;
    else if (flag == "--seed" && has_value)
      options.seed = std::strtoull(argv[++i], nullptr, 10);
    else if (flag == "--json" && has_value)
      options.json = argv[++i];
    else if (std::find(own.begin(), own.end(), flag) != own.end() && has_value)
      options.other[flag] = argv[++i];
    else {
      std::string usage = std::string(argv[0]) + ": " + what + "\nflags: --quick, --seed N, --json FILE";
      for (const auto& name : own) usage += ", " + name + " VALUE";
      std::fprintf(flag == "--help" ? stdout : stderr, "%s\n", usage.c_str());
      std::exit(flag == "--help" ? 0 : 64);
    }
  }
  return options;
}

Report::Report(std::string program, const Options& options) : program_(std::move(program)), options_(options) {}

void Report::add(Check check) {
  std::printf("  %-52s ours %12.5g  peer %12.5g  ratio %8.4f  %-14s goal %-18s %s\n", check.name.c_str(), check.ours,
              check.peer, check.ratio, check.unit.c_str(), check.goal.c_str(), check.pass ? "pass" : "FAIL");
  std::fflush(stdout);
  checks_.push_back(std::move(check));
}

int Report::finish() const {
  JsonArray rows;
  bool all = true;
  for (const auto& c : checks_) {
    all = all && c.pass;
    rows.push_back(JsonObject{{"name", c.name},
                              {"ours", c.ours},
                              {"peer", c.peer},
                              {"ratio", c.ratio},
                              {"unit", c.unit},
                              {"goal", c.goal},
                              {"pass", c.pass}});
  }
  JsonObject peers;
  for (const auto& [name, version] : peers_) peers[name] = version;
  const Json json =
      JsonObject{{"program", program_}, {"commit", source_commit()}, {"machine", machine()}, {"peers", peers},
                 {"checks", rows},      {"seed", options_.seed},     {"extra", extra_}};
  std::printf("%s: %zu checks, %s; commit %s; %s\n", program_.c_str(), checks_.size(),
              all ? "all passed" : "SOME FAILED", source_commit().c_str(), machine().c_str());
  if (!options_.json.empty()) {
    const auto written = write_file(options_.json, to_text(json, 2) + "\n");
    if (!written) std::fputs(to_text(written.error()).c_str(), stderr);
  }
  return all ? 0 : 1;
}

double median(std::vector<double> values) {
  COX_ENSURE(!values.empty());
  std::sort(values.begin(), values.end());
  const auto half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double spearman(const std::vector<double>& a, const std::vector<double>& b) {
  const std::vector<double> x = ranks_of(a), y = ranks_of(b);
  const double mean = (static_cast<double>(x.size()) - 1) / 2;
  double xy = 0, xx = 0, yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean) * (y[i] - mean);
    xx += (x[i] - mean) * (x[i] - mean);
    yy += (y[i] - mean) * (y[i] - mean);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 0;
}

int start_process(const std::vector<std::string>& arguments, const std::filesystem::path& output_file) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, output_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_addopen(&actions, 2, (output_file.string() + ".errors").c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0600);
  pid_t pid = -1;
  // A bench that is ended leaves nothing running.
  std::vector<std::string> line{"setpriv", "--pdeathsig", "TERM"};
  line.insert(line.end(), arguments.begin(), arguments.end());
  auto argv = pointers(line);
  const int code = posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  COX_ENSURE(code == 0, arguments[0], code);
  return pid;
}

int wait_process(int pid, double limit_seconds) {
  const int handle = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  pollfd entry{handle, POLLIN, 0};
  const bool ended = poll(&entry, 1, static_cast<int>(limit_seconds * 1000)) > 0;
  close(handle);
  if (!ended) kill(pid, SIGKILL);
  int status = 0;
  waitpid(pid, &status, 0);
  if (!ended) return kEndedByBench;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

ProcessResult run_process(const std::vector<std::string>& arguments, double limit_seconds) {
  const auto output = make_scratch_folder("process") / "output";
  ProcessResult result;
  result.exit_code = wait_process(start_process(arguments, output), limit_seconds);
  result.output = read_whole(output);
  result.errors = read_whole(output.string() + ".errors");
  std::error_code code;
  std::filesystem::remove_all(output.parent_path(), code);
  return result;
}

std::filesystem::path program_folder() {
  // Kept: in a mount namespace of its own a program may find the link without the mounts above it.
  static const std::filesystem::path folder = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  return folder;
}

std::filesystem::path source_folder() { return COX_SOURCE_DIR; }

std::string source_commit() {
  auto result = run_process({"git", "-C", source_folder().string(), "rev-parse", "--short", "HEAD"}, 10);
  while (!result.output.empty() && result.output.back() == '\n') result.output.pop_back();
  return result.exit_code == 0 ? result.output : "unknown";
}

std::filesystem::path make_scratch_folder(const std::string& name) {
  static ScratchFolders folders;
  std::string pattern = (std::filesystem::temp_directory_path() / ("coxswain-" + name + "-XXXXXX")).string();
  COX_ENSURE(mkdtemp(pattern.data()) != nullptr, pattern);
  folders.folders.emplace_back(pattern);
  return pattern;
}

}  // namespace coxswain::bench
