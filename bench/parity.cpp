// Random valid plans against one rank: same losses, same parameters (issue row e). Ranks are threads of this process
// over the `host` backend; `parity [MODEL.pt2 ...] --plans N`, without a model a small GPT of examples/gpt.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "bench/support/train_runs.h"
#include "collective/backend.h"
#include "executor/executor.h"
#include "plan/layout/mesh_groups.h"
#include "plan/program.h"
#include "worker/engine/engine.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr std::int64_t kGlobalBatch = 24;
constexpr int kMaxRanks = 6;
constexpr double kLossTolerance = 1e-5, kParameterTolerance = 1e-4, kParameterFloor = 1e-6;

template <class T>
T or_end(Result<T> result) {
  if (!result) {
    std::fputs(to_text(result.error()).c_str(), stderr);
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

Deadline soon() { return Deadline::after(steady_clock(), Seconds(120)); }

cluster::ResourceGraph make_cluster() {
  using cluster::Source;
  cluster::ResourceGraph graph;
  cluster::DeviceClass device;
  device.name = "cpu";
  device.cores = 1;
  device.memory = {Bytes(std::int64_t{1} << 36), Source::Assumed};
  device.memory_bandwidth = {BytesPerSecond(1e10), Source::Assumed};
  device.peak_float32 = device.peak_bfloat16 = {FlopPerSecond(1e11), Source::Assumed};
  device.launch_overhead = {Seconds(1e-5), Source::Assumed};
  graph.device_classes = {device};
  cluster::NodeClass node;
  node.name = "node";
  node.devices = {{0, kMaxRanks}};
  node.link = {"shared-memory", {Seconds(1e-5), Source::Assumed}, {BytesPerSecond(1e9), Source::Assumed}, 0};
  node.host_memory = {Bytes(std::int64_t{1} << 38), Source::Assumed};
  node.cores = kMaxRanks;
  graph.node_classes = {node};
  graph.nodes = {{0, 1}};
  return graph;
}

/// Bytes below 32 with some order in them: every model with that many tokens can learn it.
void write_text(const std::filesystem::path& path, std::uint64_t seed) {
  std::ofstream out(path, std::ios::binary);
  std::mt19937_64 random(seed);
  for (int i = 0; i < 60000; ++i) out.put(static_cast<char>((i * 5 + random() % 4) % 32));
}

class RandomPlans {
 public:
  RandomPlans(const model::ModelGraph& graph, const cluster::ResourceGraph& cluster, std::uint64_t seed)
      : graph_(graph), cluster_(cluster), random_(seed) {}

  /// Draws until one validates.
  plan::Plan next() {
    while (true) {
      plan::Plan plan = draw();
      if (plan::num_ranks(plan) <= kMaxRanks && plan::num_ranks(plan) > 1 &&
          plan::validate(plan, graph_, cluster_).empty())
        return plan;
    }
  }
  plan::Plan one_rank() {
    plan::Plan plan = empty(1);
    add_stage(plan, {kGlobalBatch});
    add_parts(plan, {graph_.num_blocks()});
    plan.stages[0].recompute.assign(graph_.num_blocks(), plan::Recompute::None);
    plan::fill_roles(plan, graph_, Bytes(1 << 24));
    return plan;
  }

 private:
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(bound));
  }

  plan::Plan empty(std::int64_t count) {
    plan::Plan plan;
    plan.model_hash = model::model_hash(graph_);
    plan.cluster_hash = cluster::cluster_hash(cluster_);
    plan.batch = {kGlobalBatch, kGlobalBatch / count, count};
    return plan;
  }

  static void add_stage(plan::Plan& plan, const std::vector<std::int64_t>& samples) {
    plan::Stage stage;
    std::int64_t device = plan::num_ranks(plan);
    for (const std::int64_t count : samples) stage.replicas.push_back({{{0, device++}}, 1, 1, 1, count});
    plan.stages.push_back(std::move(stage));
  }

  /// `ends`: of every part, in model order.
  void add_parts(plan::Plan& plan, const std::vector<int>& ends) {
    for (std::size_t part = 0; part < ends.size(); ++part) {
      const plan::BlockRun run{part == 0 ? 0 : ends[part - 1], ends[part]};
      const auto place =
          plan::place_of_part(plan.schedule, static_cast<int>(part), static_cast<int>(plan.stages.size()));
      plan::Stage& stage = plan.stages[place.stage];
      if (place.chunk > 0) {
        stage.chunks.push_back(run);
      } else {
        stage.first_block = run.first_block;
        stage.end_block = run.end_block;
      }
      for (int b = run.first_block; b < run.end_block; ++b)
        stage.recompute.push_back(below(3) == 0 ? plan::Recompute::Full : plan::Recompute::None);
    }
  }

  plan::Plan draw() {
    const std::int64_t counts[] = {1, 2, 3, 4, 6};
    plan::Plan plan = empty(counts[below(5)]);
    plan.schedule = static_cast<plan::ScheduleKind>(below(6));
    plan.receive_credits = 1 + static_cast<int>(below(3));
    const int num_stages = 1 + static_cast<int>(below(std::min(4, graph_.num_blocks())));
    int num_chunks = 1;
    if (plan::has_chunks(plan.schedule)) {
      const auto choices = plan::chunk_choices(plan.schedule, num_stages, graph_.num_blocks(), 3);
      if (choices.empty()) return plan;  // which does not validate
      num_chunks = choices[below(static_cast<std::int64_t>(choices.size()))];
    }
    for (int s = 0; s < num_stages; ++s) {
      std::vector<std::int64_t> samples(1 + below(3), 1);
      if (static_cast<std::int64_t>(samples.size()) > plan.batch.micro) samples.resize(1);
      for (auto left = plan.batch.micro - static_cast<std::int64_t>(samples.size()); left > 0; --left)
        ++samples[below(static_cast<std::int64_t>(samples.size()))];
      add_stage(plan, samples);
    }
    std::vector<int> ends;
    for (int b = 1; b < graph_.num_blocks(); ++b) ends.push_back(b);
    std::shuffle(ends.begin(), ends.end(), random_);
    ends.resize(num_stages * num_chunks - 1);
    ends.push_back(graph_.num_blocks());
    std::sort(ends.begin(), ends.end());
    add_parts(plan, ends);
    plan::fill_roles(plan, graph_, Bytes(std::int64_t{1} << (10 + below(12))));
    return plan;
  }

  const model::ModelGraph& graph_;
  const cluster::ResourceGraph& cluster_;
  std::mt19937_64 random_;
};

struct Run {
  std::vector<double> losses;
  std::map<std::string, std::vector<float>> parameters;
  int num_unequal_copies = 0;  // of a parameter, on two ranks: other bits
};

class Ranks {
 public:
  Ranks(const model::ModelGraph& graph, const plan::Plan& plan, const worker::TrainSettings& settings)
      : graph_(graph), plan_(plan), settings_(settings) {}

  Run train() {
    const int size = plan::num_ranks(plan_);
    const auto scratch = make_scratch_folder("parity");
    std::vector<collective::CompletionSignal> signals(size);
    std::vector<std::unique_ptr<collective::Endpoint>> endpoints;
    std::vector<std::string> addresses;
    for (int rank = 0; rank < size; ++rank) {
      collective::EndpointOptions options;
      options.rank = rank;
      options.size = size;
      options.node = "node";
      options.job_key = "key of this bench";
      options.run_id = "parity";
      options.scratch_dir = scratch;
      options.signal = &signals[rank];
      endpoints.push_back(or_end(collective::open_endpoint(options)));
      addresses.push_back(endpoints.back()->address());
    }
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank)
      threads.emplace_back([&, rank] { or_end(train_rank(rank, *endpoints[rank], addresses, signals[rank])); });
    for (auto& thread : threads) thread.join();
    return std::move(run_);
  }

 private:
  Result<void> train_rank(int rank, collective::Endpoint& endpoint, const std::vector<std::string>& addresses,
                          collective::CompletionSignal& signal) {
    COX_TRY(const auto world, endpoint.connect(addresses, soon()));
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
    {
      COX_TRY(const auto engine, worker::make_engine({&graph_, &plan_, rank, settings_, communicators}));
      const plan::RankProgram program = plan::make_rank_program(plan_, graph_, rank);
      executor::Executor executor(program, *engine, communicators, steady_clock());
      for (std::int64_t step = 1; step <= settings_.steps; ++step) {
        COX_TRY_VOID(engine->begin_step(step));
        executor.begin_step();
        COX_TRY_VOID(executor.run_step(signal, soon()));
        COX_TRY(const auto numbers, engine->end_step());
        if (rank == 0) run_.losses.push_back(numbers.loss);
      }
      const std::lock_guard lock(mutex_);
      for (const model::Parameter& parameter : graph_.parameters) {
        auto values = engine->read_parameter(parameter.name);
        if (!values) continue;
        const auto [known, is_new] = run_.parameters.emplace(parameter.name, *values);
        if (!is_new && known->second != *values) ++run_.num_unequal_copies;
      }
    }
    // No rank takes its memory away while another still reads from it.
    return world->barrier(soon()).wait(soon());
  }

  const model::ModelGraph& graph_;
  const plan::Plan& plan_;
  const worker::TrainSettings& settings_;
  std::mutex mutex_;
  Run run_;
};

double norm(const std::vector<float>& values, const std::vector<float>* minus = nullptr) {
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double x = static_cast<double>(values[i]) - (minus ? (*minus)[i] : 0.0F);
    sum += x * x;
  }
  return std::sqrt(sum);
}

std::string describe(const plan::Plan& plan) {
  std::string text = std::string(plan::to_text(plan.schedule)) + " x" + std::to_string(plan.batch.count);
  for (const plan::Stage& stage : plan.stages) {
    text += " |";
    for (const plan::BlockRun& run : plan::runs_of(stage))
      text += " " + std::to_string(run.first_block) + "-" + std::to_string(run.end_block);
    text += " [";
    for (std::size_t r = 0; r < stage.replicas.size(); ++r)
      text += (r > 0 ? "," : "") + std::to_string(stage.replicas[r].samples);
    text += "]";
    if (std::count(stage.recompute.begin(), stage.recompute.end(), plan::Recompute::Full) > 0) text += "r";
  }
  return text;
}

void compare_model(const std::filesystem::path& path, int num_plans, int steps, const Options& options,
                   Report& report) {
  const model::ModelGraph graph = or_end(model::load_pt2(path));
  const cluster::ResourceGraph cluster = make_cluster();
  worker::TrainSettings settings;
  const auto folder = make_scratch_folder("text");
  settings.data.text = folder / "text";
  write_text(settings.data.text, options.seed);
  settings.data.sequence_length = graph.values[graph.inputs[0].value].dims.at(1).constant();
  settings.data.seed = settings.seed = options.seed;
  settings.optimizer.warmup_steps = 5;
  settings.steps = steps;
  RandomPlans plans(graph, cluster, options.seed);
  const plan::Plan serial = plans.one_rank();
  const Run expected = Ranks(graph, serial, settings).train();
  double worst_loss = 0, worst_parameter = 0, unequal_copies = 0;
  for (int i = 0; i < num_plans; ++i) {
    const plan::Plan plan = plans.next();
    const Run run = Ranks(graph, plan, settings).train();
    double loss = 0, parameter = 0;
    for (std::size_t s = 0; s < expected.losses.size(); ++s)
      loss = std::max(loss, std::fabs(run.losses.at(s) - expected.losses[s]) / expected.losses[s]);
    for (const auto& [name, values] : expected.parameters)
      parameter = std::max(
          parameter, norm(run.parameters.at(name), &values) / (kParameterTolerance * norm(values) + kParameterFloor));
    std::printf("%-70s loss %.1e of 1e-5, parameters %.2f of the bound\n", describe(plan).c_str(), loss, parameter);
    std::fflush(stdout);
    worst_loss = std::max(worst_loss, loss);
    worst_parameter = std::max(worst_parameter, parameter);
    unequal_copies += run.num_unequal_copies;
  }
  const std::string name = path.filename().string() + ", " + std::to_string(num_plans) + " plans: ";
  report.add({name + "worst loss", worst_loss, 0, worst_loss / kLossTolerance, "relative", "<= 1e-5",
              worst_loss <= kLossTolerance});
  report.add({name + "worst parameter", worst_parameter, 0, worst_parameter, "of 1e-4 norm + 1e-6", "<= 1",
              worst_parameter <= 1});
  report.add({name + "copies that differ", unequal_copies, 0, unequal_copies, "copies", "0", unequal_copies == 0});
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
                                        "random valid plans against one rank", {"--plans", "--steps"});
  const auto number = [&](const char* name, int otherwise) {
    return options.other.contains(name) ? std::stoi(options.other.at(name)) : otherwise;
  };
  Report report("parity", options);
  if (models.empty())
    models.push_back(make_example({.layers = 4, .width = 64, .heads = 4, .context = 32, .dropout = 0.1}) / "gpt.pt2");
  for (const auto& model : models)
    compare_model(model, number("--plans", options.quick ? 3 : 20), number("--steps", 20), options, report);
  return report.finish();
}
