// The engine beside PyTorch eager: the demo model on one rank with all cores, same data, dropout on, AdamW fused on
// both sides. Both processes live at the same time and take turns, step block by step block (issue row l).
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <sstream>
#include <thread>

#include "bench/support/train_runs.h"
#include "plan/program.h"
#include "worker/engine/engine.h"

extern char** environ;

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr std::int64_t kBatch = 32, kSteps = 100000;

double seconds_now() { return std::chrono::duration<double>(steady_clock().now().time_since_epoch()).count(); }

/// bench/peers/eager_gpt.py --serve: a line with a number of steps in, a line of JSON out.
class Peer {
 public:
  explicit Peer(const std::vector<std::string>& arguments) {
    int in[2], out[2];
    if (pipe(in) != 0 || pipe(out) != 0) std::exit(71);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    for (const int fd : {in[0], in[1], out[0], out[1]}) posix_spawn_file_actions_addclose(&actions, fd);
    std::vector<char*> words;
    for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
    words.push_back(nullptr);
    const int failed = posix_spawn(&pid_, words[0], &actions, nullptr, words.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    if (failed != 0) {
      std::fprintf(stderr, "cannot start %s\n", words[0]);
      std::exit(71);
    }
    input_ = fdopen(in[1], "w");
    output_ = fdopen(out[0], "r");
  }
  ~Peer() {
    std::fclose(input_);  // end of its input ends it
    std::fclose(output_);
    waitpid(pid_, nullptr, 0);
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  Json read() {
    char line[4096];
    if (!std::fgets(line, sizeof line, output_)) {
      std::fputs("the peer ended early\n", stderr);
      std::exit(1);
    }
    return or_end(parse_json(line));
  }
  double run(int steps) {
    std::fprintf(input_, "%d\n", steps);
    std::fflush(input_);
    return read()["seconds"].number();
  }

 private:
  pid_t pid_ = -1;
  std::FILE *input_ = nullptr, *output_ = nullptr;
};

/// One rank that holds the whole model.
class Ours {
 public:
  Ours(const std::filesystem::path& example, int threads) : graph_(or_end(model::load_pt2(example / "gpt.pt2"))) {
    plan::Stage stage;
    stage.end_block = graph_.num_blocks();
    stage.replicas = {{{{0, 0}}, 1, 1, 1, kBatch}};
    stage.recompute.assign(graph_.num_blocks(), plan::Recompute::None);
    plan_.batch = {kBatch, kBatch, 1};
    plan_.stages = {stage};
    plan::fill_roles(plan_, graph_, Bytes(std::int64_t{1} << 24));
    worker::EngineOptions options;
    options.graph = &graph_;
    options.plan = &plan_;
    options.settings.data.text = example / "kjv.txt";
    options.settings.data.sequence_length = 128;
    options.settings.data.seed = 7;
    options.settings.data.validation_fraction = 0.05;
    options.settings.optimizer.warmup_steps = 20;
    options.settings.steps = kSteps;
    options.settings.seed = 1234;
    options.settings.threads = threads;
    // The world of one rank: the executor sees only actions that need no group.
    engine_ = or_end(worker::make_engine(options));
    program_ = plan::make_rank_program(plan_, graph_, 0);
  }

  double run(int steps) {
    const double start = seconds_now();
    for (int i = 0; i < steps; ++i) {
      or_end(engine_->begin_step(++step_));
      for (const plan::Action& action : program_.actions) {
        if (plan::is_compute(action.kind)) {
          or_end(engine_->start(action));
        } else {
          static_cast<void>(or_end(engine_->prepare(action)));
          or_end(engine_->finish(action));
        }
      }
      loss_ = or_end(engine_->end_step()).loss;
    }
    return seconds_now() - start;
  }
  [[nodiscard]] double loss() const { return loss_; }

 private:
  model::ModelGraph graph_;
  plan::Plan plan_;
  plan::RankProgram program_;
  std::unique_ptr<worker::Engine> engine_;
  std::int64_t step_ = 0;
  double loss_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv, "tokens per second of the engine beside PyTorch eager",
                                        {"--pairs", "--steps", "--threads"});
  const auto number = [&](const char* name, int otherwise) {
    return options.other.contains(name) ? std::stoi(options.other.at(name)) : otherwise;
  };
  const int pairs = number("--pairs", options.quick ? 3 : 15), steps = number("--steps", options.quick ? 1 : 3);
  const int threads = number("--threads", static_cast<int>(std::thread::hardware_concurrency()));
  Report report("engine", options);
  const ModelSize size;
  const auto example = make_example(size);
  Peer peer({source_folder() / ".venv/bin/python", source_folder() / "bench/peers/eager_gpt.py", example / "gpt.pt2",
             example / "kjv.txt", "--serve", "--fused", "--dropout", "--heads", std::to_string(size.heads), "--threads",
             std::to_string(threads), "--total-steps", std::to_string(kSteps)});
  report.peer("PyTorch eager", peer.read()["torch"].string());
  Ours ours(example, threads);
  static_cast<void>(ours.run(2));
  static_cast<void>(peer.run(2));
  std::vector<double> our_rates, peer_rates, ratios;
  const double tokens = static_cast<double>(steps) * kBatch * 128;
  for (int pair = 0; pair < pairs; ++pair) {
    // Who goes first alternates, so that neither always has the warmer machine.
    double mine = 0, theirs = 0;
    if (pair % 2 == 0) {
      mine = ours.run(steps);
      theirs = peer.run(steps);
    } else {
      theirs = peer.run(steps);
      mine = ours.run(steps);
    }
    our_rates.push_back(tokens / mine);
    peer_rates.push_back(tokens / theirs);
    ratios.push_back(theirs / mine);
    std::printf("pair %2d: engine %8.0f tokens/s, eager %8.0f tokens/s, ratio %.3f\n", pair + 1, our_rates.back(),
                peer_rates.back(), ratios.back());
    std::fflush(stdout);
  }
  report.extra()["pairs"] = pairs;
  report.extra()["threads"] = threads;
  report.add({"training, one rank, all cores", median(our_rates), median(peer_rates), median(ratios), "tokens/s",
              ">= 0.98", median(ratios) >= 0.98});
  return report.finish();
}
