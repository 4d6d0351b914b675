// The memory model against the caching allocator: the predicted peak of every replica of random valid plans beside the
// one that the process of its fullest rank measures (issue row b). Ranks are forked processes over the `host` backend,
// since the allocator counts a process. Every degree of freedom that runs is mixed. `memory_truth [MODEL.pt2 ...]
// --plans N`; without models two sizes of examples/gpt; samples of others lie beside them (MODEL.safetensors).
// `--actions PLAN` prints what each action of that plan holds instead.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <sstream>

#include "bench/support/random_plans.h"
#include "bench/support/train_runs.h"
#include "collective/backend.h"
#include "cost_model/cost_model.h"
#include "executor/executor.h"
#include "plan/layout/mesh_groups.h"
#include "plan/program.h"
#include "worker/engine/caching_allocator.h"
#include "worker/engine/engine.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr std::int64_t kGlobalBatch = 24;
/// Moments exist from the start and every buffer has its size in the first step; the second sees what stays.
constexpr int kSteps = 2;
constexpr double kMedianGoal = 0.08, kWorstGoal = 0.20;

Deadline soon() { return Deadline::after(steady_clock(), Seconds(120)); }

/// The engine with what each of its compute actions holds written down.
class WatchedCompute final : public executor::Compute {
 public:
  WatchedCompute(executor::Compute& engine, std::string& lines) : engine_(engine), lines_(lines) {}
  Result<void> start(const plan::Action& action) override {
    peak_ = std::max(peak_, worker::memory_peak());  // while what comes and goes was made room for
    worker::reset_memory_peak();
    const Bytes before = worker::memory_in_use();
    auto result = engine_.start(action);
    std::ostringstream line;
    line << to_text(action) << ": " << before.value << " -> " << worker::memory_in_use().value << ", peak "
         << worker::memory_peak().value << "\n";
    peak_ = std::max(peak_, worker::memory_peak());
    lines_ += line.str();
    return result;
  }
  Result<bool> finished() override { return engine_.finished(); }
  Result<executor::Communication> prepare(const plan::Action& action) override { return engine_.prepare(action); }
  Result<void> finish(const plan::Action& action) override { return engine_.finish(action); }
  [[nodiscard]] Bytes peak() const { return peak_; }

 private:
  Bytes peak_{0};
  executor::Compute& engine_;
  std::string& lines_;
};

void write_text_to(int file, const std::string& text) {
  const std::int64_t size = static_cast<std::int64_t>(text.size());
  const std::string all = std::string(reinterpret_cast<const char*>(&size), sizeof size) + text;
  for (std::size_t done = 0; done < all.size();) {
    const ssize_t count = write(file, all.data() + done, all.size() - done);
    if (count <= 0) std::exit(1);
    done += static_cast<std::size_t>(count);
  }
}

/// Empty when the other side ended.
std::string read_text_from(int file) {
  const auto read_all = [file](char* data, std::size_t size) {
    for (std::size_t done = 0; done < size;) {
      const ssize_t count = read(file, data + done, size - done);
      if (count <= 0) return false;
      done += static_cast<std::size_t>(count);
    }
    return true;
  };
  std::int64_t size = 0;
  if (!read_all(reinterpret_cast<char*>(&size), sizeof size)) return "";
  std::string text(static_cast<std::size_t>(size), '\0');
  return read_all(text.data(), text.size()) ? text : "";
}

struct Measured {
  Bytes peak{0};
  std::string actions;  // a line each, where asked for
};

/// Every rank of a plan, each in a process of its own.
class RankProcesses {
 public:
  RankProcesses(const model::ModelGraph& graph, const plan::Plan& plan, const worker::TrainSettings& settings,
                bool watch)
      : graph_(graph), plan_(plan), settings_(settings), watch_(watch), scratch_(make_scratch_folder("memory")) {}

  std::vector<Measured> run() {
    const int size = plan::num_ranks(plan_);
    std::vector<Child> children;
    for (int rank = 0; rank < size; ++rank) children.push_back(start(rank, children));
    std::string addresses;
    for (const Child& child : children) addresses += read_text_from(child.from) + "\n";
    for (const Child& child : children) write_text_to(child.to, addresses);
    std::vector<Measured> measured;
    for (const Child& child : children) {
      const std::string peak = read_text_from(child.from);
      if (peak.empty()) {
        std::fprintf(stderr, "a rank ended before it was done\n");
        std::exit(1);
      }
      measured.push_back({Bytes(std::stoll(peak)), read_text_from(child.from)});
      close(child.from);
      close(child.to);
      waitpid(child.pid, nullptr, 0);
    }
    return measured;
  }

 private:
  struct Child {
    pid_t pid = 0;
    int to = -1, from = -1;
  };

  Child start(int rank, const std::vector<Child>& others) {
    int down[2], up[2];
    if (pipe(down) != 0 || pipe(up) != 0) std::exit(1);
    const pid_t pid = fork();
    if (pid == 0) {
      for (const Child& other : others) {
        close(other.to);
        close(other.from);
      }
      close(down[1]);
      close(up[0]);
      const auto result = train(rank, down[0], up[1]);
      if (!result) std::fputs(to_text(result.error()).c_str(), stderr);
      std::fflush(nullptr);
      _exit(result ? 0 : 1);
    }
    close(down[0]);
    close(up[1]);
    return {pid, down[1], up[0]};
  }

  Result<void> train(int rank, int in, int out) {
    collective::CompletionSignal signal;
    collective::EndpointOptions options;
    options.rank = rank;
    options.size = plan::num_ranks(plan_);
    options.node = "node";
    options.job_key = "key of this bench";
    options.run_id = "memory";
    options.scratch_dir = scratch_;
    options.signal = &signal;
    COX_TRY(const auto endpoint, collective::open_endpoint(options));
    write_text_to(out, endpoint->address());
    std::vector<std::string> addresses;
    std::istringstream lines(read_text_from(in));
    for (std::string line; std::getline(lines, line);) addresses.push_back(line);
    COX_TRY(const auto world, endpoint->connect(addresses, soon()));
    std::vector<std::unique_ptr<collective::Communicator>> owned;
    std::vector<collective::Communicator*> communicators;
    for (const plan::Group& group : plan::rank_groups(plan_, graph_, rank)) {
      if (group.kind == plan::GroupKind::World) {
        communicators.push_back(world.get());
        continue;
      }
      const bool member = std::find(group.ranks.begin(), group.ranks.end(), rank) != group.ranks.end();
      COX_TRY(auto communicator, world->split(member ? group.ranks : std::vector<int>{}, soon()));
      communicators.push_back(communicator.get());
      owned.push_back(std::move(communicator));
    }
    Measured measured;
    {
      COX_TRY(const auto engine, worker::make_engine({&graph_, &plan_, rank, settings_, communicators}));
      WatchedCompute watched(*engine, measured.actions);
      const plan::RankProgram program = plan::make_rank_program(plan_, graph_, rank);
      executor::Executor executor(program, watch_ ? static_cast<executor::Compute&>(watched) : *engine, communicators,
                                  steady_clock());
      for (std::int64_t step = 1; step <= kSteps; ++step) {
        measured.actions.clear();
        COX_TRY_VOID(engine->begin_step(step));
        executor.begin_step();
        COX_TRY_VOID(executor.run_step(signal, soon()));
        COX_TRY(const auto numbers, engine->end_step());
        static_cast<void>(numbers);
      }
      measured.peak = std::max(engine->peak_memory(), watched.peak());
      // No rank takes its memory away while another still reads from it.
      COX_TRY_VOID(world->barrier(soon()).wait(soon()));
    }
    write_text_to(out, std::to_string(measured.peak.value));
    write_text_to(out, measured.actions + " ");
    return {};
  }

  const model::ModelGraph& graph_;
  const plan::Plan& plan_;
  const worker::TrainSettings& settings_;
  const bool watch_;
  const std::filesystem::path scratch_;
};

std::string text_of(const plan::MemoryParts& parts) {
  std::ostringstream text;
  text << "parameters " << parts.parameters.value << " gradients " << parts.gradients.value << " optimizer "
       << parts.optimizer.value << " activations " << parts.activations.value << " transfers " << parts.transfers.value
       << " workspace " << parts.workspace.value;
  return text.str();
}

struct Settings {
  int num_plans = 20, only = -1, max_ranks = 6;
};

void compare_model(const std::filesystem::path& path, const Settings& how, const Options& options, Report& report) {
  const model::ModelGraph graph = or_end(model::load_pt2(path));
  const cluster::ResourceGraph cluster = make_flat_cluster(how.max_ranks);
  worker::TrainSettings settings;
  std::filesystem::path tensors = path;
  tensors.replace_extension(".safetensors");
  if (std::filesystem::exists(tensors)) {
    settings.data.tensors = tensors;
  } else {
    settings.data.text = make_scratch_folder("text") / "text";
    write_text(settings.data.text, options.seed);
    settings.data.sequence_length = graph.values[graph.inputs[0].value].dims.at(1).constant();
  }
  settings.data.seed = settings.seed = options.seed;
  settings.steps = kSteps;
  const auto cost = cost_model::make_cost_model(graph, cluster, nullptr);
  RandomPlanOptions drawing;
  drawing.seed = options.seed;
  drawing.max_ranks = how.max_ranks;
  drawing.global_batch = kGlobalBatch;
  std::vector<double> errors;
  for (int i = std::max(0, how.only); i < how.num_plans; ++i) {
    const plan::Plan plan = draw_plan(graph, cluster, drawing, static_cast<std::uint64_t>(i));
    const std::vector<Measured> measured = RankProcesses(graph, plan, settings, how.only >= 0).run();
    std::printf("%3d %s\n", i, describe(plan).c_str());
    for (const ReplicaRanks& of : replica_ranks(plan)) {
      const plan::MemoryParts parts = cost_model::estimate_memory(*cost, plan, of.stage, of.replica);
      const double predicted = static_cast<double>((parts.total() - parts.margin).value);
      std::printf("      stage %d replica %d: predicted %10.0f measured", of.stage, of.replica, predicted);
      Bytes fullest{0};
      for (const int rank : of.ranks) {
        fullest = std::max(fullest, measured[rank].peak);
        std::printf(" %10lld", static_cast<long long>(measured[rank].peak.value));
      }
      const double ratio = predicted / static_cast<double>(fullest.value);
      errors.push_back(std::fabs(ratio - 1));
      std::printf(" ratio %.3f\n", ratio);
      if (how.only < 0) continue;
      std::printf("%s\n", text_of(parts).c_str());
      for (const int rank : of.ranks) std::printf("rank %d\n%s", rank, measured[rank].actions.c_str());
    }
    std::fflush(stdout);
  }
  const std::string name = path.filename().string() + ", " + std::to_string(errors.size()) + " replicas: ";
  const double middle = median(errors), worst = *std::max_element(errors.begin(), errors.end());
  report.add({name + "median error", middle, 0, middle / kMedianGoal, "fraction", "<= 0.08", middle <= kMedianGoal});
  report.add({name + "worst error", worst, 0, worst / kWorstGoal, "fraction", "<= 0.20", worst <= kWorstGoal});
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::filesystem::path> models;
  std::vector<char*> rest;
  for (int i = 0; i < argc; ++i) {
    if (i > 0 && std::string_view(argv[i]).ends_with(".pt2")) {
      models.emplace_back(argv[i]);
    } else {
      rest.push_back(argv[i]);
    }
  }
  const Options options = parse_options(static_cast<int>(rest.size()), rest.data(),
                                        "predicted peak memory of random valid plans beside the measured one",
                                        {"--plans", "--actions", "--ranks-max"});
  Settings how;
  if (options.quick) how.num_plans = 4;
  if (options.other.contains("--plans")) how.num_plans = std::stoi(options.other.at("--plans"));
  if (options.other.contains("--ranks-max")) how.max_ranks = std::stoi(options.other.at("--ranks-max"));
  if (options.other.contains("--actions")) {
    how.only = std::stoi(options.other.at("--actions"));
    how.num_plans = how.only + 1;
  }
  Report report("memory_truth", options);
  if (models.empty()) {
    models.push_back(make_example({.layers = 4, .width = 128, .heads = 4, .context = 64, .dropout = 0.1}) / "gpt.pt2");
    models.push_back(make_example({.layers = 4, .width = 64, .heads = 2, .context = 128, .dropout = 0}) / "gpt.pt2");
  }
  for (const auto& model : models) compare_model(model, how, options, report);
  return report.finish();
}
