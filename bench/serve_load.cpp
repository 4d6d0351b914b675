// `launch serve` under load (issue 7, rows a and b): the dry run of a 175B model on 1,024 devices over HTTP beside
// `launch plan`, asked for anew and asked for again; then many clients that ask for small plans, nine in ten of them
// known, one in ten new: how many it answers when each client asks again at once, what half of that costs, what it does
// above that.
//   serve_load [JOB.json CLUSTER.json] [--clients N] [--seconds S]
// JOB and CLUSTER: of the large dry run, examples/scale/two_classes_1024.json and two_classes_1024_cluster.json.
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "bench/support/bench.h"
#include "bench/support/http_load.h"
#include "bench/support/waits.h"
#include "common/bytes_io.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr int kKnownPlans = 40;
constexpr double kStartSeconds = 30, kLargeSeconds = 60;
constexpr int kRounds = 5;

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
    return served_.ask(small_plan(number, is_new ? kKnownPlans + number : number % kKnownPlans));
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
int others(const LoadResult& result) { return result.answers() - of(result, 200) - of(result, 429); }

/// Row a.
void measure_large(const Served& served, const std::string& job, const std::string& cluster, Report& report) {
  Json body = JsonObject{{"job", or_end(parse_json(or_end(read_file(job))))},
                         {"cluster", or_end(parse_json(or_end(read_file(cluster))))}};
  // The seed makes it another request of the same work.
  const auto seconds = [&](int seed) {
    body["job"].object()["train"].object()["seed"] = seed;
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
  std::vector<double> anew, again;
  for (int seed = 2; seed < 2 + kRounds; ++seed) {
    anew.push_back(seconds(seed));
    again.push_back(seconds(seed));
  }
  report.add(
      {"175B on 1,024 devices, anew", median(anew), 1.2, median(anew) / 1.2, "s", "<= 1.2", median(anew) <= 1.2});
  report.add({"the same, known", median(again), 0.01, median(again) / 0.01, "s", "<= 0.01", median(again) <= 0.01});
}

/// Row b.
void measure_small(const Served& served, int clients, double seconds, Report& report) {
  Mixture mixture(served);
  LoadSettings settings;
  settings.port = served.port();
  settings.clients = clients;
  settings.next_request = [&] { return mixture.next(); };
  settings.seconds = seconds / 4;
  print("each asks again at once", run_load(settings));  // warm: the known ones are known
  const LoadResult full = run_load(settings);
  print("each asks again at once", full);
  const double capacity = of(full, 200) / full.seconds;

  settings.seconds = seconds;
  settings.per_second = capacity / 2;
  const std::int64_t before = served.resident_bytes();
  const LoadResult half = run_load(settings);
  const double grown = static_cast<double>(served.resident_bytes()) / static_cast<double>(before);
  print("at half of that", half);

  settings.seconds = seconds / 4;
  settings.per_second = capacity * 2;
  const LoadResult above = run_load(settings);
  print("at twice of that", above);

  const double refused = static_cast<double>(of(half, 429)) / half.answers();
  report.extra()["capacity_per_second"] = capacity;
  report.add(
      {"at half of the capacity: refused", refused, 0.01, refused / 0.01, "fraction", "<= 0.01", refused <= 0.01});
  const int odd = others(full) + others(half) + others(above);
  report.add({"answers that are neither 200 nor 429", 1.0 * odd, 0, 0, "answers", "0", odd == 0});
  const double middle = half.percentile(0.5), late = half.percentile(0.99);
  report.add({"at half of the capacity: median", middle, 0.05, middle / 0.05, "s", "< 0.05", middle < 0.05});
  report.add({"at half of the capacity: 99 %", late, 0.5, late / 0.5, "s", "< 0.5", late < 0.5});
  report.add(
      {"at half of the capacity: memory after / before", grown, 1.05, grown / 1.05, "ratio", "<= 1.05", grown <= 1.05});
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
  const Served served(source_folder());
  if (files.size() == 2) measure_large(served, files[0], files[1], report);
  measure_small(served, static_cast<int>(number("--clients", 200)), number("--seconds", options.quick ? 8 : 60),
                report);
  return report.finish();
}
