#include "bench/support/random_plans.h"

#include <algorithm>
#include <random>
#include <stdexcept>
#include <vector>

#include "plan/experts.h"

namespace coxswain::bench {
namespace {

constexpr int kMaxDraws = 20000;

plan::Plan make_empty(const model::ModelGraph& graph, const cluster::ResourceGraph& cluster, std::int64_t global,
                      std::int64_t count) {
  plan::Plan plan;
  plan.model_hash = model::model_hash(graph);
  plan.cluster_hash = cluster::cluster_hash(cluster);
  plan.batch = {global, global / count, count};
  return plan;
}

/// One attempt. Most attempts are no valid plan; `validate` tells.
class Draw {
 public:
  Draw(const model::ModelGraph& graph, bool has_experts, const RandomPlanOptions& options, std::mt19937_64& random)
      : graph_(graph), has_experts_(has_experts), options_(options), can_(options.capabilities), random_(random) {}

  /// False where nothing came of it.
  bool make(plan::Plan& plan) {
    plan.schedule = static_cast<plan::ScheduleKind>(below(6));
    plan.receive_credits = 1 + static_cast<int>(below(3));
    if (can_.bfloat16 && below(4) == 0) plan.precision = plan::Precision::BFloat16;
    plan.backend = options_.backend;
    const int num_stages = 1 + static_cast<int>(below(std::min(options_.max_ranks, graph_.num_blocks())));
    int num_chunks = 1;
    if (plan::has_chunks(plan.schedule)) {
      const auto choices = plan::chunk_choices(plan.schedule, num_stages, graph_.num_blocks(), 3);
      if (choices.empty()) return false;
      num_chunks = choices[below(static_cast<std::int64_t>(choices.size()))];
    }
    // Every later stage keeps a rank.
    for (int s = 0; s < num_stages; ++s)
      if (!add_stage(plan, options_.max_ranks - plan::num_ranks(plan) - (num_stages - 1 - s))) return false;
    add_parts(plan, num_stages * num_chunks);
    plan::fill_roles(plan, graph_, Bytes(std::int64_t{1} << (10 + below(12))));
    return true;
  }

 private:
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(bound));
  }
  /// 1 two times out of three, else up to `most`.
  int degree(int most) { return most > 1 && below(3) == 0 ? 1 + static_cast<int>(below(std::min(most, 4))) : 1; }

  /// Two times out of three one that divides the replicas, if any does. Only models with experts draw it:
  /// the plans of others stay what they were.
  int expert_axis(int replicas) {
    std::vector<int> divisors;
    for (int expert = 2; expert <= std::min(replicas, can_.max_expert); ++expert)
      if (replicas % expert == 0) divisors.push_back(expert);
    return divisors.empty() || below(3) == 0 ? 1 : divisors[below(static_cast<std::int64_t>(divisors.size()))];
  }

  bool add_stage(plan::Plan& plan, int most_ranks) {
    plan::Stage stage;
    const int tensor = degree(can_.max_tensor), context = degree(can_.max_context);
    const std::int64_t most = std::min<std::int64_t>(std::max(1, most_ranks / (tensor * context)), plan.batch.micro);
    std::vector<std::int64_t> samples(1 + below(below(6) == 0 ? most : std::min<std::int64_t>(most, 3)), 1);
    for (auto left = plan.batch.micro - static_cast<std::int64_t>(samples.size()); left > 0; --left)
      ++samples[below(static_cast<std::int64_t>(samples.size()))];
    const bool drawn_alike = below(2) == 0;
    const int expert = has_experts_ && can_.max_expert > 1 ? expert_axis(static_cast<int>(samples.size())) : 1;
    const bool alike = drawn_alike || expert > 1;
    std::int64_t device = plan::num_ranks(plan);
    for (const std::int64_t count : samples) {
      plan::Replica replica;
      replica.tensor = alike ? tensor : degree(can_.max_tensor);
      replica.context = alike ? context : degree(can_.max_context);
      replica.expert = expert;
      replica.samples = count;
      for (int d = 0; d < replica.tensor * replica.context; ++d) replica.devices.push_back({0, device++});
      stage.replicas.push_back(std::move(replica));
    }
    if (device - plan::num_ranks(plan) > most_ranks) return false;
    if (below(2) == 0) stage.zero_stage = static_cast<int>(below(can_.max_zero_stage + 1));
    plan.stages.push_back(std::move(stage));
    return true;
  }

  void add_parts(plan::Plan& plan, int num_parts) {
    std::vector<int> ends;
    for (int b = 1; b < graph_.num_blocks(); ++b) ends.push_back(b);
    // Fisher-Yates, not std::shuffle: the same plans with any standard library.
    for (std::size_t i = ends.size(); i-- > 1;) std::swap(ends[i], ends[below(static_cast<std::int64_t>(i) + 1)]);
    ends.resize(std::min<std::size_t>(ends.size(), static_cast<std::size_t>(num_parts) - 1));
    ends.push_back(graph_.num_blocks());
    std::sort(ends.begin(), ends.end());
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

  const model::ModelGraph& graph_;
  const bool has_experts_;
  const RandomPlanOptions& options_;
  const plan::Capabilities& can_;
  std::mt19937_64& random_;
};

/// Offload of a stage in eight; in a plan of four selective recompute of every other block that is not recomputed
/// whole. Words of their own: the rest of a plan is what it was before these were drawn.
void add_selective_and_offload(plan::Plan& plan, const plan::Capabilities& can, std::mt19937_64& random) {
  const bool selective = random() % 4 == 0 && can.selective_recompute;
  for (plan::Stage& stage : plan.stages) {
    const std::uint64_t word = random();
    if (can.offload && word % 8 == 0) stage.offload = static_cast<plan::Offload>(1 + word / 8 % 2);
    for (plan::Recompute& recompute : stage.recompute)
      if (random() % 2 == 0 && selective && recompute == plan::Recompute::None) recompute = plan::Recompute::Selective;
  }
}

std::string describe_replica(const plan::Replica& replica) {
  std::string text = std::to_string(replica.samples);
  if (replica.tensor > 1) text += "t" + std::to_string(replica.tensor);
  if (replica.context > 1) text += "c" + std::to_string(replica.context);
  if (replica.expert > 1) text += "e" + std::to_string(replica.expert);
  return text;
}

}  // namespace

cluster::ResourceGraph make_flat_cluster(int num_devices) {
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
  node.devices = {{0, num_devices}};
  node.link = {"shared-memory", {Seconds(1e-5), Source::Assumed}, {BytesPerSecond(1e9), Source::Assumed}, 0};
  node.host_memory = {Bytes(std::int64_t{1} << 38), Source::Assumed};
  node.cores = num_devices;
  graph.node_classes = {node};
  graph.nodes = {{0, 1}};
  return graph;
}

plan::Plan draw_plan(const model::ModelGraph& graph, const cluster::ResourceGraph& cluster,
                     const RandomPlanOptions& options, std::uint64_t number) {
  std::seed_seq words{static_cast<std::uint32_t>(options.seed), static_cast<std::uint32_t>(options.seed >> 32),
                      static_cast<std::uint32_t>(number), static_cast<std::uint32_t>(number >> 32)};
  std::mt19937_64 random(words);
  const std::vector<std::int64_t> experts = plan::expert_counts(graph);
  const bool has_experts = std::any_of(experts.begin(), experts.end(), [](std::int64_t count) { return count > 0; });
  std::seed_seq others{static_cast<std::uint32_t>(options.seed), static_cast<std::uint32_t>(options.seed >> 32),
                       static_cast<std::uint32_t>(number), static_cast<std::uint32_t>(number >> 32), 1U};
  std::mt19937_64 further(others);
  const std::int64_t counts[] = {1, 2, 3, 4, 6, 8, 12};
  for (int draw = 0; draw < kMaxDraws; ++draw) {
    const std::int64_t count = counts[random() % 7];
    if (options.global_batch % count != 0) continue;
    plan::Plan plan = make_empty(graph, cluster, options.global_batch, count);
    if (Draw(graph, has_experts, options, random).make(plan) && plan::num_ranks(plan) <= options.max_ranks &&
        plan::validate(plan, graph, cluster, options.capabilities).empty()) {
      add_selective_and_offload(plan, options.capabilities, further);
      return plan;
    }
  }
  throw std::runtime_error("no random plan of this model validates");
}

plan::Plan make_serial_plan(const model::ModelGraph& graph, const cluster::ResourceGraph& cluster,
                            std::int64_t global_batch, std::int64_t count, plan::Precision precision) {
  plan::Plan plan = make_empty(graph, cluster, global_batch, count);
  plan.precision = precision;
  plan::Stage stage;
  stage.end_block = graph.num_blocks();
  stage.replicas.push_back({{{0, 0}}, 1, 1, 1, plan.batch.micro});
  stage.recompute.assign(static_cast<std::size_t>(graph.num_blocks()), plan::Recompute::None);
  plan.stages.push_back(std::move(stage));
  plan::fill_roles(plan, graph, Bytes(1 << 24));
  return plan;
}

std::string describe(const plan::Plan& plan) {
  std::string text = std::string(plan::to_text(plan.schedule));
  if (plan.precision != plan::Precision::Float32) text += " " + std::string(plan::to_text(plan.precision));
  text += " x" + std::to_string(plan.batch.count);
  for (const plan::Stage& stage : plan.stages) {
    text += " |";
    for (const plan::BlockRun& run : plan::runs_of(stage))
      text += " " + std::to_string(run.first_block) + "-" + std::to_string(run.end_block);
    text += " [";
    for (std::size_t r = 0; r < stage.replicas.size(); ++r)
      text += (r > 0 ? "," : "") + describe_replica(stage.replicas[r]);
    text += "]";
    if (stage.zero_stage > 0) text += " z" + std::to_string(stage.zero_stage);
    if (stage.offload != plan::Offload::None) text += " o-" + std::string(plan::to_text(stage.offload));
    const auto count = [&](plan::Recompute kind) {
      return std::count(stage.recompute.begin(), stage.recompute.end(), kind);
    };
    if (count(plan::Recompute::Full) > 0) text += " r" + std::to_string(count(plan::Recompute::Full));
    if (count(plan::Recompute::Selective) > 0) text += " s" + std::to_string(count(plan::Recompute::Selective));
  }
  return text;
}

std::vector<ReplicaRanks> replica_ranks(const plan::Plan& plan) {
  std::vector<ReplicaRanks> all;
  for (int rank = 0; rank < plan::num_ranks(plan); ++rank) {
    const plan::RankPlace place = plan::place_of(plan, rank);
    if (all.empty() || all.back().stage != place.stage || all.back().replica != place.replica)
      all.push_back({place.stage, place.replica, {}});
    all.back().ranks.push_back(rank);
  }
  return all;
}

}  // namespace coxswain::bench
