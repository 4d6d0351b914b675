// Our worker processes beside PyTorch's own distributed training, two ranks on this machine: data parallel beside DDP,
// fully sharded beside FSDP2, a 1F1B pipeline beside torch.distributed.pipelining, tensor and sequence parallel beside
// DTensor. Issue row d.
//
// Both sides train the example GPT from the weights in one archive, on the same windows, micro-batches, learning rates,
// clipping and AdamW, in float32 without dropout, with one thread a rank, each rank held to one core by a cgroup of the
// same kind (by affinity where there is none). Ours is a plan made by hand that `launch train` runs; the peer is
// bench/peers/torch_layouts.py. Whole runs take turns, and who begins alternates; a side's step is the slowest rank's,
// a run's figure the median over its steps after warm-up, and the ratio the median over pairs.
//
// Memory is the peak of bytes in tensors on the fullest rank, by our worker's own allocator on both sides: it is loaded
// into the peer for a run of its own, so that it does not change the peer's speed. The resident set would compare
// Python with no Python, what malloc gives back with what a cache keeps, and pages that two ranks share twice; bytes
// of tensors are what a layout decides, exact and repeatable. Neither side counts buffers inside the communication
// library; gradients that ours keeps in shared memory are counted. Ours counts from its first byte, the peer from its
// second step, when buckets and moments are made. The resident set is in the JSON.
//
// A layout that validation refuses is "not run", which fails.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <sstream>

#include "bench/support/hand_made.h"
#include "cluster/cpu_share.h"
#include "common/bytes_io.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr int kRanks = 2, kContext = 128, kGlobalBatch = 32, kHeads = 8;
constexpr int kFirstMeasuredStep = 4;
constexpr double kLossTolerance = 1e-5;

struct Layout {
  std::string name, title;
  HandMade plan;
  std::vector<std::string> peer_flags;
};

/// The model has four layers between prologue and epilogue: six blocks.
std::vector<Layout> layouts() {
  using plan::ScheduleKind;
  return {{"ddp", "data parallel, DDP", {.ends = {6}, .samples = {4, 4}, .count = 4}, {}},
          {"fsdp", "ZeRO 3, FSDP2", {.ends = {6}, .samples = {4, 4}, .zero_stage = 3, .count = 4}, {}},
          {"pipeline", "1F1B, pipelining", {.ends = {3, 6}, .samples = {4}, .count = 8}, {"--cut", "2"}},
          {"tensor", "tensor parallel, DTensor", {.ends = {6}, .samples = {8}, .tensor = 2, .count = 4}, {}}};
}

struct Side {
  double step_seconds = 0, peak_bytes = 0, resident_bytes = 0;
  std::vector<double> losses;
};

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "runtime: %s\n", what.c_str());
  std::exit(1);
}

/// What holds a rank of the peer to its core, as the agent holds ours.
class Cores {
 public:
  Cores() {
    for (int rank = 0; rank < kRanks; ++rank) {
      auto share = cluster::make_cpu_share("peer-" + std::to_string(getpid()) + "-" + std::to_string(rank), 1.0);
      if (!share) {
        shares_.clear();
        return;
      }
      shares_.push_back(std::move(*share));
    }
  }
  [[nodiscard]] std::vector<std::string> hold(int rank, const std::vector<std::string>& command) const {
    std::vector<std::string> words{"taskset", "-c", std::to_string(rank)};
    if (!shares_.empty())
      words = {"sh", "-c", "echo $$ > \"$1\" && shift && exec \"$@\"", "sh", shares_[rank]->tasks_file()};
    words.insert(words.end(), command.begin(), command.end());
    return words;
  }

 private:
  std::vector<std::unique_ptr<cluster::CpuShare>> shares_;
};

class Peer {
 public:
  explicit Peer(std::filesystem::path example) : example_(std::move(example)) {}

  /// `allocator`: memory is measured, and time is not to be taken from it.
  [[nodiscard]] Side run(const Layout& layout, int steps, bool allocator) {
    const auto folder = make_scratch_folder("peer");
    const Cores cores;
    std::vector<int> processes;
    for (int rank = 0; rank < kRanks; ++rank)
      processes.push_back(start_process(cores.hold(rank, command(layout, steps, allocator, rank, folder)),
                                        folder / std::to_string(rank)));
    Side side;
    bool failed = false;
    for (const int process : processes) failed = wait_process(process, 300) != 0 || failed;
    std::vector<double> seconds(steps);
    side.losses.assign(steps, 0);
    for (int rank = 0; rank < kRanks; ++rank) {
      const auto file = folder / std::to_string(rank);
      if (failed) fail(layout.name + " of PyTorch: " + text_of(file.string() + ".errors"));
      std::istringstream lines(text_of(file));
      for (std::string line; std::getline(lines, line);) read_line(line, seconds, side);
    }
    seconds.erase(seconds.begin(), seconds.begin() + std::min(steps, kFirstMeasuredStep) - 1);
    side.step_seconds = median(seconds);
    return side;
  }
  [[nodiscard]] const std::string& version() const { return version_; }

 private:
  static std::string text_of(const std::filesystem::path& file) {
    auto text = read_file(file.string());
    return text ? *text : "";
  }

  [[nodiscard]] std::vector<std::string> command(const Layout& layout, int steps, bool allocator, int rank,
                                                 const std::filesystem::path& folder) const {
    std::vector<std::string> words{"env",
                                   "RANK=" + std::to_string(rank),
                                   "WORLD_SIZE=" + std::to_string(kRanks),
                                   "OMP_NUM_THREADS=1",
                                   source_folder() / ".venv/bin/python",
                                   source_folder() / "bench/peers/torch_layouts.py",
                                   layout.name,
                                   example_ / "gpt.pt2",
                                   example_ / "kjv.txt",
                                   "--store",
                                   folder / "store",
                                   "--steps",
                                   std::to_string(steps),
                                   "--micro",
                                   std::to_string(kGlobalBatch / layout.plan.count),
                                   "--count",
                                   std::to_string(layout.plan.count),
                                   "--sequence",
                                   std::to_string(kContext),
                                   "--heads",
                                   std::to_string(kHeads)};
    words.insert(words.end(), layout.peer_flags.begin(), layout.peer_flags.end());
    if (allocator) words.insert(words.end(), {"--allocator", program_folder() / "libtensor_memory.so"});
    return words;
  }

  void read_line(const std::string& line, std::vector<double>& seconds, Side& side) {
    const auto json = parse_json(line);
    if (!json || !json->is_object()) return;
    if ((*json)["step"].is_number()) {
      const std::size_t step = static_cast<std::size_t>((*json)["step"].integer()) - 1;
      seconds.at(step) = std::max(seconds.at(step), (*json)["seconds"].number());
      side.losses.at(step) += (*json)["loss"].number();
    } else {
      side.peak_bytes = std::max(side.peak_bytes, (*json)["peak_memory_bytes"].number());
      side.resident_bytes = std::max(side.resident_bytes, (*json)["resident_bytes"].number());
      version_ = (*json)["torch"].string();
    }
  }

  std::filesystem::path example_;
  std::string version_;
};

Side run_ours(const TrainJob& job, const std::filesystem::path& plan) {
  const TrainRun run = run_train(job, {"--devices", "2xcpu", "--plan", plan.string()}, 300);
  if (!run.ok) fail(run.failure);
  return {run.measured_step, largest(run.measured_peak), largest(run.resident), run.losses};
}

/// Largest relative difference over the steps.
double loss_error(const Side& ours, const Side& peer) {
  if (ours.losses.size() != peer.losses.size()) fail("the two sides ran other numbers of steps");
  double worst = 0;
  for (std::size_t s = 0; s < ours.losses.size(); ++s) {
    const double error = std::fabs(ours.losses[s] - peer.losses[s]) / peer.losses[s];
    worst = std::isfinite(error) ? std::max(worst, error) : error;
  }
  return worst;
}

class Comparison {
 public:
  Comparison(Report& report, TrainJob job, const Bench& bench, int pairs)
      : report_(report), job_(std::move(job)), bench_(bench), peer_(job_.example), pairs_(pairs) {}

  void compare(const Layout& layout) {
    const plan::Plan plan = make_plan(bench_, layout.plan);
    if (const std::string refusal = refusal_of(bench_, plan); !refusal.empty()) {
      report_.add({layout.title + ": not run", 0, 0, 0, "", "runs", false});
      std::printf("    %s\n", refusal.c_str());
      return;
    }
    const auto file = write_plan(bench_, plan, layout.name);
    const double tokens = kGlobalBatch * kContext;
    std::vector<double> ours_rate, peer_rate, ratios;
    Side ours, peer;
    double worst_loss = 0;
    for (int pair = 0; pair < pairs_; ++pair) {
      if (pair % 2 == 0) ours = run_ours(job_, file);
      peer = peer_.run(layout, job_.steps, false);
      if (pair % 2 != 0) ours = run_ours(job_, file);
      ours_rate.push_back(tokens / ours.step_seconds);
      peer_rate.push_back(tokens / peer.step_seconds);
      ratios.push_back(ours_rate.back() / peer_rate.back());
      worst_loss = std::max(worst_loss, loss_error(ours, peer));
      std::printf("    %s pair %d: ours %.0f tokens/s, peer %.0f, ratio %.3f\n", layout.name.c_str(), pair + 1,
                  ours_rate.back(), peer_rate.back(), ratios.back());
      std::fflush(stdout);
    }
    const double peer_peak = peer_.run(layout, kFirstMeasuredStep, true).peak_bytes;
    constexpr double kMebibyte = 1 << 20;
    report_.add({layout.title + ", speed", median(ours_rate), median(peer_rate), median(ratios), "tokens/s", ">= 1.0",
                 median(ratios) >= 1});
    report_.add({layout.title + ", peak memory", ours.peak_bytes / kMebibyte, peer_peak / kMebibyte,
                 ours.peak_bytes / peer_peak, "MiB", "<= 1.0", ours.peak_bytes <= peer_peak});
    report_.add({layout.title + ", loss of " + std::to_string(ours.losses.size()) + " steps", worst_loss, 0,
                 worst_loss / kLossTolerance, "relative", "<= 1e-5", worst_loss <= kLossTolerance});
    report_.extra()[layout.name] = JsonObject{{"ours_resident_bytes", ours.resident_bytes},
                                              {"peer_resident_bytes", peer.resident_bytes},
                                              {"pairs", pairs_},
                                              {"steps", job_.steps}};
    report_.peer("PyTorch", peer_.version());
  }

 private:
  Report& report_;
  const TrainJob job_;
  const Bench& bench_;
  Peer peer_;
  const int pairs_;
};

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv, "our worker beside PyTorch's distributed training, two ranks",
                                        {"--pairs", "--steps", "--only"});
  const auto option = [&](const char* name, const std::string& otherwise) {
    return options.other.contains(name) ? options.other.at(name) : otherwise;
  };
  const int pairs = std::stoi(option("--pairs", options.quick ? "1" : "7"));
  const int steps = std::stoi(option("--steps", options.quick ? "8" : "14"));
  if (steps < kFirstMeasuredStep) fail("--steps: at least " + std::to_string(kFirstMeasuredStep));
  const std::string only = option("--only", "");
  Report report("runtime", options);
  const auto example = make_example({.layers = 4, .width = 256, .heads = kHeads, .context = kContext, .dropout = 0});
  const TrainJob job{.example = example,
                     .context = kContext,
                     .global_batch = kGlobalBatch,
                     .steps = steps,
                     .plan = "",
                     .first_measured_step = kFirstMeasuredStep};
  const Bench bench = measure_bench(job, "2xcpu");
  Comparison comparison(report, job, bench, pairs);
  for (const Layout& layout : layouts())
    if (only.empty() || only == layout.name) comparison.compare(layout);
  return report.finish();
}
