// All-reduce of the host backend beside PyTorch's Gloo: both sets of ranks live at the same time and take turns, one
// pair of measurements after the other, so that a busy machine slows both. The idle set sleeps on a pipe.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>

#include "bench/support/bench.h"
#include "collective/backend.h"
#include "common/ensure.h"

extern char** environ;

using namespace coxswain;
using namespace coxswain::bench;
using namespace coxswain::collective;

namespace {

Deadline soon() { return Deadline::after(steady_clock(), Seconds(60)); }

// ---- a rank: `collectives --serve RANK/SIZE/NODES/FOLDER`
// -------------------------------------------------------------

/// Buffers of one size: plain, and registered where the backend can.
struct Buffers {
  std::vector<float> plain;
  std::shared_ptr<void> registered;
};

double time_all_reduce(Communicator& communicator, Buffers& buffers, std::int64_t count, int iterations,
                       bool registered) {
  if (registered && !buffers.registered) {
    buffers.registered = or_end(communicator.allocate_registered(Bytes(count * 4)));
    std::memset(buffers.registered.get(), 0, static_cast<std::size_t>(count) * 4);
  }
  if (!registered && buffers.plain.empty()) buffers.plain.assign(static_cast<std::size_t>(count), 0.0f);
  void* data = registered ? buffers.registered.get() : buffers.plain.data();
  or_end(communicator.barrier(soon()).wait(soon()));
  const TimePoint start = steady_clock().now();
  for (int i = 0; i < iterations; ++i)
    or_end(communicator.all_reduce({data, count, DType::Float32}, ReduceOp::Sum, soon()).wait(soon()));
  return std::chrono::duration<double>(steady_clock().now() - start).count() / iterations;
}

std::vector<std::string> split_text(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

int serve(const std::string& place) {
  const auto parts = split_text(place, ':');
  EndpointOptions options;
  options.rank = std::stoi(parts.at(0));
  options.size = std::stoi(parts.at(1));
  options.node = parts.at(2) == "one" ? "node" : "node" + parts.at(0);
  options.scratch_dir = parts.at(3);
  options.job_key = "key of this bench";
  auto endpoint = or_end(open_endpoint(options));
  std::cout << endpoint->address() << std::endl;
  std::string line;
  std::getline(std::cin, line);
  auto communicator = or_end(endpoint->connect(split_text(line, '\t'), soon()));
  std::cout << "ready" << std::endl;
  std::map<std::int64_t, Buffers> buffers;
  while (std::getline(std::cin, line)) {
    std::istringstream command(line);
    std::int64_t bytes = 0;
    int iterations = 0;
    std::string kind;
    command >> bytes >> iterations >> kind;
    std::printf("%.9f\n", time_all_reduce(*communicator, buffers[bytes], bytes / 4, iterations, kind == "registered"));
    std::fflush(stdout);
  }
  return 0;
}

// ---- the parent ---------------------------------------------------------------------------------------------------

class RankProcess {
 public:
  explicit RankProcess(const std::vector<std::string>& arguments) {
    int to[2], from[2];
    COX_ENSURE(::pipe2(to, O_CLOEXEC) == 0 && ::pipe2(from, O_CLOEXEC) == 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[0], 0);
    posix_spawn_file_actions_adddup2(&actions, from[1], 1);
    std::vector<char*> words;
    for (const auto& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
    words.push_back(nullptr);
    COX_ENSURE(posix_spawnp(&process_, words[0], &actions, nullptr, words.data(), environ) == 0, arguments[0]);
    posix_spawn_file_actions_destroy(&actions);
    ::close(to[0]);
    ::close(from[1]);
    input_ = ::fdopen(to[1], "w");
    output_ = ::fdopen(from[0], "r");
  }
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;
  ~RankProcess() {
    std::fclose(input_);  // the end of its input is the end of the rank
    std::fclose(output_);
    (void)wait_process(process_, 20);
  }

  void tell(const std::string& line) {
    std::fputs((line + "\n").c_str(), input_);
    std::fflush(input_);
  }
  std::string hear() {
    char line[4096];
    COX_ENSURE(std::fgets(line, sizeof(line), output_) != nullptr, "a rank ended early");
    std::string text = line;
    text.pop_back();
    return text;
  }

 private:
  pid_t process_ = -1;
  std::FILE* input_ = nullptr;
  std::FILE* output_ = nullptr;
};

/// All ranks of one side.
class Team {
 public:
  static Team ours(int size, bool one_node, const std::filesystem::path& folder) {
    Team team;
    const std::string program = std::filesystem::read_symlink("/proc/self/exe");
    for (int rank = 0; rank < size; ++rank) {
      const std::string place =
          std::to_string(rank) + ":" + std::to_string(size) + (one_node ? ":one:" : ":each:") + folder.string();
      team.ranks_.push_back(std::make_unique<RankProcess>(std::vector<std::string>{program, "--serve", place}));
    }
    std::string addresses;
    for (auto& rank : team.ranks_) addresses += (addresses.empty() ? "" : "\t") + rank->hear();
    for (auto& rank : team.ranks_) rank->tell(addresses);
    for (auto& rank : team.ranks_) rank->hear();
    return team;
  }
  static Team gloo(int size, const std::filesystem::path& folder, std::string& version) {
    Team team;
    const std::string python = source_folder() / ".venv/bin/python";
    const std::string script = source_folder() / "bench/peers/gloo_allreduce.py";
    const std::string store = folder / "store";
    for (int rank = 0; rank < size; ++rank) {
      team.ranks_.push_back(std::make_unique<RankProcess>(std::vector<std::string>{
          python, script, "--rank", std::to_string(rank), "--size", std::to_string(size), "--store", store}));
    }
    for (auto& rank : team.ranks_) version = rank->hear().substr(6);
    return team;
  }
  /// Seconds of one all-reduce on the slowest rank.
  double measure(std::int64_t bytes, int iterations, const std::string& kind) {
    for (auto& rank : ranks_) rank->tell(std::to_string(bytes) + " " + std::to_string(iterations) + " " + kind);
    double slowest = 0;
    for (auto& rank : ranks_) slowest = std::max(slowest, std::stod(rank->hear()));
    return slowest;
  }

 private:
  std::vector<std::unique_ptr<RankProcess>> ranks_;
};

struct Size {
  std::int64_t bytes;
  int iterations;
  const char* name;
};

/// `goal`: how many times as fast as Gloo; 0 = shown, not judged.
void compare(Report& report, Team& ours, Team& gloo, const Size& size, int num_ranks, int num_pairs,
             const std::string& kind, double goal, const std::string& only) {
  const std::string name =
      "all_reduce " + std::string(size.name) + ", " + std::to_string(num_ranks) + " ranks, " + kind;
  if (name.find(only) == std::string::npos) return;
  std::vector<double> our_times, gloo_times, ratios;
  for (int pair = -1; pair < num_pairs; ++pair) {
    // Whoever went second goes first in the next pair.
    double first = 0, second = 0;
    const bool ours_first = pair % 2 == 0;
    first =
        ours_first ? ours.measure(size.bytes, size.iterations, kind) : gloo.measure(size.bytes, size.iterations, "");
    second =
        ours_first ? gloo.measure(size.bytes, size.iterations, "") : ours.measure(size.bytes, size.iterations, kind);
    if (pair < 0) continue;  // pages are touched for the first time
    our_times.push_back((ours_first ? first : second) * 1e3);
    gloo_times.push_back((ours_first ? second : first) * 1e3);
    ratios.push_back(gloo_times.back() / our_times.back());
  }
  char wanted[32];
  std::snprintf(wanted, sizeof(wanted), goal > 0 ? ">= %.1f" : "shown", goal);
  const double ratio = median(ratios);
  report.add({name, median(our_times), median(gloo_times), ratio, "ms", wanted, ratio >= goal});
}

}  // namespace

int main(int argc, char** argv) {
  const Options options =
      parse_options(argc, argv, "the host backend's all-reduce beside PyTorch's Gloo", {"--serve", "--only"});
  if (const auto place = options.other.find("--serve"); place != options.other.end()) return serve(place->second);
  Report report("collectives", options);
  const std::vector<Size> sizes{{4 << 10, 200, "4 KiB"}, {1 << 20, 20, "1 MiB"}, {64 << 20, 1, "64 MiB"}};
  const int num_pairs = options.quick ? 3 : 15;
  // Part of a row's name: measures those rows alone.
  const auto given = options.other.find("--only");
  const std::string only = given == options.other.end() ? "" : given->second;
  for (const int num_ranks : {2, 4}) {
    const auto folder = make_scratch_folder("collectives");
    std::string version;
    Team gloo = Team::gloo(num_ranks, folder, version);
    report.peer("PyTorch Gloo", version);
    Team shared = Team::ours(num_ranks, true, folder);
    Team tcp = Team::ours(num_ranks, false, folder);
    for (const Size& size : sizes) {
      const bool large = size.bytes > (1 << 20);
      compare(report, shared, gloo, size, num_ranks, num_pairs, "shared", large ? 2.0 : 1.0, only);
      if (size.bytes > (4 << 10))
        compare(report, shared, gloo, size, num_ranks, num_pairs, "registered", large ? 2.0 : 1.0, only);
      compare(report, tcp, gloo, size, num_ranks, num_pairs, "tcp", 0, only);
    }
  }
  return report.finish();
}
