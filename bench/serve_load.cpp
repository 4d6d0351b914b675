// `launch serve` under load (issue 7, rows a and b): the dry run of a 175B model on 1,024 devices over HTTP beside
// `launch plan`, asked for anew and asked for again; then many clients that ask for small plans, nine in ten of them
// known, one in ten new: at how many a second none has to be refused, what half of that costs, what it does above that;
// and a job that trains on another core, beside that load and without, by turns.
//   serve_load [JOB.json CLUSTER.json] [--clients N] [--seconds S]
// JOB and CLUSTER: of the large dry run, examples/scale/two_classes_1024.json and two_classes_1024_cluster.json.
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "bench/support/bench.h"
#include "bench/support/http_load.h"
#include "bench/support/run_files.h"
#include "bench/support/waits.h"
#include "common/bytes_io.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr int kKnownPlans = 40;
constexpr double kStartSeconds = 30, kLargeSeconds = 60;
constexpr int kRounds = 5;
constexpr double kFirstRate = 20, kMostRefused = 0.01;
constexpr int kFillPlans = 400, kMostFills = 20;
constexpr double kFillGrowth = 0.01;
constexpr int kBisections = 4, kBlocks = 10, kMostDoublings = 12;

/// A server of our own; ended by SIGTERM.
class Served {
 public:
  explicit Served(const std::filesystem::path& root) : folder_(make_scratch_folder("serve")) {
    pid_ = start_process({(program_folder() / "launch").string(), "serve", "--listen", "127.0.0.1:0", "--state",
                          (folder_ / "state").string(), "--root", root.string()},
                         folder_ / "output");
    const TimePoint began = steady_clock().now();
    while (port_ == 0 && seconds_since(began) < kStartSeconds) {
      wait(kLookSeconds);
      std::ifstream in(folder_ / "output");
      for (std::string line; std::getline(in, line);) {
        if (line.starts_with("  plan ")) token_ = line.substr(line.find("cox-"));
        if (line.starts_with("serving ")) port_ = std::atoi(line.c_str() + line.rfind(':') + 1);
      }
    }
    if (port_ == 0) {
      std::fprintf(stderr, "launch serve did not start: %s\n", or_end(read_file(folder_ / "output.errors")).c_str());
      std::exit(1);
    }
  }
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;
  ~Served() {
    kill(pid_, SIGTERM);
    (void)wait_process(pid_, 60);
  }

  [[nodiscard]] int port() const { return port_; }
  [[nodiscard]] std::string ask(const std::string& body) const {
    return "POST /v1/plans HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(port_) + "\r\nAuthorization: Bearer " +
           token_ + "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n\r\n" + body;
  }
  [[nodiscard]] std::int64_t resident_bytes() const {
    std::ifstream in("/proc/" + std::to_string(pid_) + "/status");
    for (std::string line; std::getline(in, line);)
      if (line.starts_with("VmRSS:")) return std::atoll(line.c_str() + 6) * 1024;
    return 0;
  }

 private:
  std::filesystem::path folder_;
  int pid_ = -1, port_ = 0;
  std::string token_;
};

/// A small model on a few devices; the seed makes it another request of the same work.
std::string small_plan(int kind, int seed) {
  const char* const clusters[] = {"1x1xt4", "1x2xt4", "1x4xt4", "1x2xl4"};
  return R"({"job": {"name": "small", "model": {"config": {"model_type": "gpt2", "n_layer": )" +
         std::to_string(2 + kind % 3) +
         R"(, "n_head": 2, "n_embd": 64, "vocab_size": 256, "n_positions": 64}}, "data": {"text": "none", "sequence_length": 64},
           "batch": {"global": )" +
         std::to_string(4 << (kind % 2)) + R"(}, "train": {"steps": 1, "seed": )" + std::to_string(seed) +
         R"(}}, "cluster": ")" + clusters[kind % 4] + R"("})";
}

class Mixture {
 public:
  explicit Mixture(const Served& served) : served_(served) {}
  std::string next() {
    const int number = count_++;
    const bool is_new = number % 10 == 9;
    const int known = number % kKnownPlans;
    return served_.ask(is_new ? small_plan(number, kKnownPlans + number) : small_plan(known, known));
  }
  /// One that was never asked for.
  std::string fresh() {
    const int number = count_++;
    return served_.ask(small_plan(number, kKnownPlans + number));
  }

 private:
  const Served& served_;
  int count_ = 0;
};

void print(const char* what, const LoadResult& result) {
  std::printf("%-28s %8d answers in %.0f s, %.1f a second; median %.2f ms, 99 %% %.1f ms;", what, result.answers(),
              result.seconds, result.answers() / result.seconds, result.percentile(0.5) * 1e3,
              result.percentile(0.99) * 1e3);
  for (const auto& [status, count] : result.statuses) std::printf(" %d: %d", status, count);
  std::printf("\n");
  std::fflush(stdout);
}

int of(const LoadResult& result, int status) {
  const auto found = result.statuses.find(status);
  return found == result.statuses.end() ? 0 : found->second;
}
/// Neither found, nor to be looked for later, nor refused.
int errors(const LoadResult& result) { return result.answers() - of(result, 200) - of(result, 202) - of(result, 429); }
double not_found(const LoadResult& result) {
  return result.answers() == 0 ? 1 : 1 - static_cast<double>(of(result, 200)) / result.answers();
}

/// Row a.
void measure_large(const Served& served, const std::string& job, const std::string& cluster, Report& report) {
  Json body = JsonObject{{"job", or_end(parse_json(or_end(read_file(job))))},
                         {"cluster", or_end(parse_json(or_end(read_file(cluster))))}};
  // The seed makes it another request of the same work; the name within its configuration another model alike.
  const auto seconds = [&](int seed, const std::string& model = "known") {
    body["job"].object()["train"].object()["seed"] = seed;
    body["job"].object()["model"].object()["config"].object()["_name_or_path"] = model;
    LoadSettings settings;
    settings.port = served.port();
    settings.seconds = kLargeSeconds;
    settings.requests = 1;
    settings.next_request = [&] { return served.ask(to_text(body)); };
    const LoadResult result = run_load(settings);
    if (of(result, 200) == 1) return result.latencies.front();
    print("not answered at once", result);
    return kLargeSeconds;
  };
  (void)seconds(1);  // warm
  std::vector<double> anew, again, unknown;
  for (int seed = 2; seed < 2 + kRounds; ++seed) {
    anew.push_back(seconds(seed));
    again.push_back(seconds(seed));
    unknown.push_back(seconds(seed, "model " + std::to_string(seed)));
  }
  report.add(
      {"175B on 1,024 devices, anew", median(anew), 1.2, median(anew) / 1.2, "s", "<= 1.2", median(anew) <= 1.2});
  report.add({"of a model that is new to it", median(unknown), 1.2, median(unknown) / 1.2, "s", "<= 1.2",
              median(unknown) <= 1.2});
  report.add({"the same, known", median(again), 0.01, median(again) / 0.01, "s", "<= 0.01", median(again) <= 0.01});
}

void stay_off_the_last_core() {
  const long cores_there = sysconf(_SC_NPROCESSORS_ONLN);
  cpu_set_t cores;
  CPU_ZERO(&cores);
  for (long core = 0; core < std::max(1L, cores_there - 1); ++core) CPU_SET(static_cast<int>(core), &cores);
  if (sched_setaffinity(0, sizeof cores, &cores) != 0) std::perror("sched_setaffinity");
}

/// A job on the last core while the service and whoever asks it share the others; its steps are counted in blocks with
/// load and without, by turns. Requires: two cores.
void measure_neighbour(LoadSettings settings, double rate, double seconds, Report& report) {
  const int last = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)) - 1;
  if (last < 1) return;
  const std::filesystem::path folder = make_scratch_folder("neighbour"), run = folder / "run";
  std::ofstream(folder / "text.txt") << std::string(1 << 20, 'a');
  std::ofstream(folder / "job.yaml")
      << R"({"name": "neighbour", "model": {"config": {"model_type": "gpt2", "n_layer": 2,
    "n_head": 4, "n_embd": 128, "vocab_size": 256, "n_positions": 128}}, "data": {"text": "text.txt",
    "sequence_length": 128}, "batch": {"global": 8}, "train": {"steps": 1000000}, "checkpoint": {"every_steps": 1000000}})";
  const int pid = start_process({"taskset", "-c", std::to_string(last), (program_folder() / "launch").string(), "train",
                                 (folder / "job.yaml").string(), "--devices", "1xcpu", "--run-dir", run.string()},
                                folder / "output");
  const TimePoint began = steady_clock().now();
  while (count_steps(run) < 20 && seconds_since(began) < 4 * kStartSeconds) wait(kLookSeconds);
  settings.per_second = rate;
  settings.seconds = seconds / kBlocks;
  std::vector<double> with_load, without;
  for (int block = 0; block < 2 * kBlocks; ++block) {
    const int before = count_steps(run);
    const TimePoint block_began = steady_clock().now();
    if (block % 2 == 0)
      (void)run_load(settings);
    else
      wait(settings.seconds);
    const double step = seconds_since(block_began) / std::max(1, count_steps(run) - before);
    (block % 2 == 0 ? with_load : without).push_back(step);
  }
  kill(pid, SIGTERM);
  (void)wait_process(pid, 60);
  if (count_steps(run) < 20) std::printf("the job on the other core trained no step: %s\n", folder.c_str());
  const double ratio = count_steps(run) < 20 ? 2 : median(with_load) / median(without);
  report.add({"a job's step on another core, with load / without", ratio, 1.05, ratio / 1.05, "ratio", "< 1.05",
              ratio < 1.05});
}

/// The largest rate at which but one in a hundred is answered at once: doubled until it is not, then bisected.
double find_capacity(LoadSettings settings) {
  const auto holds = [&settings](double rate) {
    // What the try before left waiting is not this one's.
    LoadSettings one = settings;
    one.clients = 1;
    one.requests = 10;  // one of them new
    one.per_second = 0;
    for (int i = 0; i < kMostDoublings * 10 && not_found(run_load(one)) > 0; ++i) {}
    settings.per_second = rate;
    const LoadResult result = run_load(settings);
    print(("at " + std::to_string(static_cast<int>(rate)) + " a second").c_str(), result);
    // Whoever asks must have kept up too.
    return result.answers() / result.seconds > 0.9 * rate && not_found(result) <= kMostRefused;
  };
  double low = 0, high = kFirstRate;
  for (int i = 0; i < kMostDoublings && holds(high); ++i) {
    low = high;
    high *= 2;
  }
  for (int i = 0; i < kBisections; ++i) {
    const double middle = (low + high) / 2;
    (holds(middle) ? low : high) = middle;
  }
  return low;
}

/// New plans until the service keeps as many answers as it may: a service that has run for a while keeps no more.
void fill_kept(const Served& served, Mixture& mixture, LoadSettings settings) {
  settings.clients = 1;
  settings.per_second = 0;
  settings.requests = kFillPlans;
  settings.seconds = kLargeSeconds;
  settings.next_request = [&] { return mixture.fresh(); };
  auto after = static_cast<double>(served.resident_bytes());
  int batches = 0;
  for (double before = 0; batches < kMostFills && after > (1 + kFillGrowth) * before; ++batches) {
    before = after;
    (void)run_load(settings);
    after = static_cast<double>(served.resident_bytes());
  }
  std::printf("%d new plans until memory stays at %.0f MiB\n", batches * kFillPlans, after / (1 << 20));
}

/// Row b.
void measure_small(const Served& served, int clients, double seconds, Report& report) {
  Mixture mixture(served);
  LoadSettings settings;
  settings.port = served.port();
  settings.clients = clients;
  settings.next_request = [&] { return mixture.next(); };
  settings.seconds = kStartSeconds;
  settings.requests = kKnownPlans + kKnownPlans / 10;
  settings.clients = 1;  // one after the other: none is left to be searched
  print("to know the known ones", run_load(settings));
  settings.clients = clients;
  settings.requests = 0;
  settings.seconds = seconds / 6;
  const double capacity = find_capacity(settings);

  fill_kept(served, mixture, settings);
  settings.seconds = seconds;
  settings.per_second = capacity / 2;
  const std::int64_t before = served.resident_bytes();
  const LoadResult half = run_load(settings);
  const double grown = static_cast<double>(served.resident_bytes()) / static_cast<double>(before);
  print("at half of that", half);

  settings.seconds = seconds / 4;
  settings.per_second = capacity * 2;
  const LoadResult above = run_load(settings);
  print("at twice of all", above);

  const double refused = not_found(half);
  report.extra()["capacity_per_second"] = capacity;
  report.add({"at half of the capacity: refused", refused, kMostRefused, refused / kMostRefused, "fraction", "<= 0.01",
              refused <= kMostRefused});
  const int odd = errors(half) + errors(above);
  report.add({"answers that are neither a plan nor 202 nor 429", 1.0 * odd, 0, 0, "answers", "0", odd == 0});
  const double middle = half.percentile(0.5), late = half.percentile(0.99);
  report.add({"at half of the capacity: median", middle, 0.05, middle / 0.05, "s", "< 0.05", middle < 0.05});
  report.add({"at half of the capacity: 99 %", late, 0.5, late / 0.5, "s", "< 0.5", late < 0.5});
  report.add(
      {"at half of the capacity: memory after / before", grown, 1.05, grown / 1.05, "ratio", "<= 1.05", grown <= 1.05});
  measure_neighbour(settings, capacity / 2, seconds, report);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> files;
  std::vector<char*> rest{argv[0]};
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]).ends_with(".json") && (i == 1 || std::string_view(argv[i - 1]) != "--json"))
      files.emplace_back(argv[i]);
    else
      rest.push_back(argv[i]);
  }
  const Options options = parse_options(static_cast<int>(rest.size()), rest.data(), "`launch serve` under load",
                                        {"--clients", "--seconds"});
  const auto number = [&](const char* name, double otherwise) {
    return options.other.contains(name) ? std::atof(options.other.at(name).c_str()) : otherwise;
  };
  Report report("serve_load", options);
  if (files.size() == 2) measure_large(Served(source_folder()), files[0], files[1], report);
  // Before the service starts, which inherits it: the last core is the neighbour's.
  stay_off_the_last_core();
  const Served served(source_folder());
  measure_small(served, static_cast<int>(number("--clients", 200)), number("--seconds", options.quick ? 8 : 60),
                report);
  return report.finish();
}
