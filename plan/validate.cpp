// Rules V1 to V25 of docs/plan.md. A rule that builds on others is checked only where those hold, so that one mistake
// is reported once.
#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <tuple>

#include "plan/derive.h"
#include "plan/experts.h"

namespace coxswain::plan {
namespace {

/// "1" where nothing else is possible, else "at most 64".
std::string at_most(int most, int least) { return (most > least ? "at most " : "") + std::to_string(most); }

std::string at_index(const std::string& key, std::size_t index) { return key + "[" + std::to_string(index) + "]"; }

class Validator {
 public:
  Validator(const Plan& plan, const model::ModelGraph& graph, const cluster::ResourceGraph& resources,
            const Capabilities& capabilities)
      : plan_(plan), graph_(graph), resources_(resources), capabilities_(capabilities) {}

  std::vector<Error> run() {
    check_identity();
    check_batch();
    check_settings();
    const bool stages_hold = check_stages();
    check_devices();
    bool replicas_hold = true;
    for (std::size_t s = 0; s < plan_.stages.size(); ++s) replicas_hold = check_stage(s) && replicas_hold;
    if (stages_hold && replicas_hold) {
      check_coupled();
      if (has_schedule(capabilities_, plan_.schedule)) check_lists();
    }
    return std::move(problems_);
  }

 private:
  void add(const char* rule, ErrorCode code, std::string message, std::string path, std::string expected,
           std::string got, std::string hint = "") {
    problems_.push_back(Error{code, std::string(rule) + ": " + std::move(message), std::move(path), std::move(expected),
                              std::move(got), std::move(hint)});
  }

  void invalid(const char* rule, std::string message, std::string path, std::string expected, std::string got,
               std::string hint = "") {
    add(rule, ErrorCode::InvalidArgument, std::move(message), std::move(path), std::move(expected), std::move(got),
        std::move(hint));
  }

  /// A value that the format has and `capabilities` lack.
  void unimplemented(const char* rule, std::string what, std::string path, std::string expected, std::string got) {
    add(rule, ErrorCode::Unimplemented, "this version cannot run " + std::move(what), std::move(path),
        std::move(expected), std::move(got));
  }

  void check_identity() {
    if (plan_.format_version != kPlanFormatVersion) {
      invalid("V1", "unknown plan format", "format_version", std::to_string(kPlanFormatVersion),
              std::to_string(plan_.format_version), "make the plan again with this version");
    }
    if (const std::string hash = model::model_hash(graph_); plan_.model_hash != hash) {
      add("V2", ErrorCode::InvalidArgument, "plan is for another model", "model_hash", hash, plan_.model_hash,
          "plan again for this model");
    }
    if (const std::string hash = cluster::cluster_hash(resources_); plan_.cluster_hash != hash) {
      add("V3", ErrorCode::InvalidArgument, "plan is for another cluster", "cluster_hash", hash, plan_.cluster_hash,
          "plan again for this cluster");
    }
  }

  void check_batch() {
    const Batch& batch = plan_.batch;
    constexpr std::int64_t kMax = std::int64_t{1} << 31;
    const bool in_range = batch.micro >= 1 && batch.count >= 1 && batch.micro < kMax && batch.count < kMax;
    if (!in_range || batch.micro * batch.count != batch.global) {
      invalid("V4", "micro-batches do not add up to the global batch", "batch",
              "micro x count = global, each at least 1",
              std::to_string(batch.micro) + " x " + std::to_string(batch.count) + " = " + std::to_string(batch.global));
    }
    if (!graph_.batch_symbol.empty()) return;
    bool split = batch.micro != graph_.static_batch;
    for (const Stage& stage : plan_.stages) split = split || stage.replicas.size() > 1;
    if (split) {
      invalid("V5", "model has a static batch, which cannot be split", "batch.micro",
              std::to_string(graph_.static_batch) + " on one replica a stage", std::to_string(batch.micro),
              "export the model with a dynamic batch");
    }
  }

  void check_settings() {
    constexpr std::array<std::string_view, 3> kBackends{"host", "mpi", "nccl"};
    if (std::find(kBackends.begin(), kBackends.end(), plan_.backend) == kBackends.end()) {
      invalid("V6", "unknown communication backend", "backend", "host, mpi, nccl", plan_.backend);
    }
    if (!has_precision(capabilities_, plan_.precision)) {
      std::string expected;
      for (const Precision precision : {Precision::Float32, Precision::BFloat16, Precision::Float16}) {
        if (has_precision(capabilities_, precision))
          expected += (expected.empty() ? "" : ", ") + std::string(to_text(precision));
      }
      unimplemented("V7", "this precision", "precision", std::move(expected), std::string(to_text(plan_.precision)));
    }
    if (!has_schedule(capabilities_, plan_.schedule)) {
      std::string expected;
      for (int i = 0; i <= static_cast<int>(ScheduleKind::CustomV); ++i) {
        const auto kind = static_cast<ScheduleKind>(i);
        if (has_schedule(capabilities_, kind)) expected += (expected.empty() ? "" : ", ") + std::string(to_text(kind));
      }
      unimplemented("V8", "this schedule", "schedule", std::move(expected), std::string(to_text(plan_.schedule)));
    }
    if (plan_.receive_credits < 1) {
      invalid("V9", "no receive buffer", "receive_credits", "at least 1", std::to_string(plan_.receive_credits));
    }
  }

  bool check_stages() {
    const std::size_t before = problems_.size();
    if (plan_.stages.empty()) invalid("V10", "plan has no stage", "stages", "at least one", "none");
    if (!check_chunk_counts()) return false;
    int next = 0;
    std::string last;
    for (int part = 0; part < num_parts(plan_); ++part) {
      const PartPlace place = place_of_part(plan_.schedule, part, static_cast<int>(plan_.stages.size()));
      const auto s = static_cast<std::size_t>(place.stage);
      const BlockRun run = run_of(plan_.stages[s], place.chunk);
      const std::string path =
          at_index("stages", s) +
          (place.chunk > 0 ? "." + at_index("chunks", static_cast<std::size_t>(place.chunk) - 1) : "");
      if (run.first_block != next || run.end_block <= run.first_block || run.end_block > graph_.num_blocks()) {
        invalid("V10", "stages are not contiguous runs of the model's blocks", path,
                "blocks from " + std::to_string(next) + ", at most to " + std::to_string(graph_.num_blocks()),
                "[" + std::to_string(run.first_block) + ", " + std::to_string(run.end_block) + ")");
        return false;
      }
      next = run.end_block;
      last = path;
      if (graph_.blocks[static_cast<std::size_t>(run.first_block)].first_op ==
          graph_.blocks[static_cast<std::size_t>(next - 1)].end_op) {
        invalid("V11", "stage has no operator", path, "at least one operator in its blocks", "none",
                "give it a neighbour's block");
      }
    }
    if (!plan_.stages.empty() && next != graph_.num_blocks()) {
      invalid("V10", "stages do not cover the model's blocks", last + ".end_block", std::to_string(graph_.num_blocks()),
              std::to_string(next));
    }
    return problems_.size() == before;
  }

  /// One chunk a stage, or the same number on every stage where the schedule has chunks.
  bool check_chunk_counts() {
    if (plan_.stages.empty() || !has_schedule(capabilities_, plan_.schedule)) return true;  // V8 says it
    const int first = num_chunks(plan_.stages.front());
    const bool chunks = has_chunks(plan_.schedule);
    for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
      const int count = num_chunks(plan_.stages[s]);
      const bool holds = is_v_shaped(plan_.schedule)              ? count == 2
                         : plan_.schedule == ScheduleKind::Custom ? count == first
                         : chunks                                 ? count >= 2 && count == first
                                                                  : count == 1;
      if (holds) continue;
      invalid("V10", "wrong number of chunks for the schedule", at_index("stages", s) + ".chunks",
              is_v_shaped(plan_.schedule)              ? "1 beside the stage's first run"
              : plan_.schedule == ScheduleKind::Custom ? "as many on every stage"
              : chunks ? "at least 1 beside the stage's first run, as many on every stage"
                       : "none under " + std::string(to_text(plan_.schedule)),
              std::to_string(count - 1));
      return false;
    }
    return true;
  }

  /// Devices over the whole plan: V15 and V16.
  void check_devices() {
    std::vector<std::int64_t> counts;
    for (std::size_t c = 0; c < resources_.device_classes.size(); ++c)
      counts.push_back(cluster::num_devices(resources_, static_cast<int>(c)));
    std::set<DeviceId> used;
    for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
      for (std::size_t r = 0; r < plan_.stages[s].replicas.size(); ++r) {
        const auto& devices = plan_.stages[s].replicas[r].devices;
        for (std::size_t d = 0; d < devices.size(); ++d) {
          const DeviceId& device = devices[d];
          const std::string path = at_index("stages", s) + "." + at_index("replicas", r) + "." + at_index("devices", d);
          const bool known_class = device.device_class >= 0 && device.device_class < static_cast<int>(counts.size());
          if (!known_class || device.index < 0 ||
              device.index >= counts[static_cast<std::size_t>(device.device_class)]) {
            invalid("V15", "no such device in the cluster", path,
                    known_class ? "index below " + std::to_string(counts[static_cast<std::size_t>(device.device_class)])
                                : "class below " + std::to_string(counts.size()),
                    "class " + std::to_string(device.device_class) + ", index " + std::to_string(device.index));
          } else if (!used.insert(device).second) {
            invalid("V16", "device is used twice", path, "each device at most once",
                    "class " + std::to_string(device.device_class) + ", index " + std::to_string(device.index));
          }
        }
      }
    }
  }

  /// True when the replicas are such that lists can be derived for them.
  bool check_stage(std::size_t s) {
    const Stage& stage = plan_.stages[s];
    const std::string path = at_index("stages", s);
    bool holds = true;
    if (stage.replicas.empty()) {
      invalid("V12", "stage has no replica", path + ".replicas", "at least one", "none");
      holds = false;
    }
    std::int64_t samples = 0;
    for (std::size_t r = 0; r < stage.replicas.size(); ++r) {
      holds = check_replica(stage.replicas[r], path + "." + at_index("replicas", r)) && holds;
      samples += std::clamp<std::int64_t>(stage.replicas[r].samples, 0, std::int64_t{1} << 40);
    }
    if (!stage.replicas.empty() && samples != plan_.batch.micro) {
      invalid("V17", "samples of the replicas do not add up to the micro-batch", path + ".replicas",
              std::to_string(plan_.batch.micro), std::to_string(samples));
      holds = false;
    }
    holds = check_experts(stage, path) && holds;
    if (const int blocks = num_blocks(stage); static_cast<int>(stage.recompute.size()) != blocks) {
      invalid("V18", "recompute needs one entry a block", path + ".recompute", std::to_string(blocks),
              std::to_string(stage.recompute.size()));
    }
    if (stage.zero_stage < 0 || stage.zero_stage > 3) {
      invalid("V19", "no such ZeRO stage", path + ".zero_stage", "0 to 3", std::to_string(stage.zero_stage));
      holds = false;  // there is no list to compare with
    } else if (const int most = capabilities_.max_zero_stage; stage.zero_stage > most) {
      unimplemented("V19", "ZeRO", path + ".zero_stage", at_most(most, 0), std::to_string(stage.zero_stage));
    }
    if (const auto selective = std::find(stage.recompute.begin(), stage.recompute.end(), Recompute::Selective);
        selective != stage.recompute.end() && !capabilities_.selective_recompute) {
      const auto index = static_cast<std::size_t>(selective - stage.recompute.begin());
      unimplemented("V19", "selective recompute", path + "." + at_index("recompute", index), "none, full", "selective");
    }
    if (stage.offload != Offload::None && !capabilities_.offload)
      unimplemented("V19", "offload", path + ".offload", "none", std::string(to_text(stage.offload)));
    return holds;
  }

  /// V25 but the lists: false where no list can be derived.
  bool check_experts(const Stage& stage, const std::string& path) {
    if (!has_expert_axis(stage)) return true;
    const int expert = stage.replicas.front().expert;
    const auto replicas = static_cast<int>(stage.replicas.size());
    const bool same = std::all_of(stage.replicas.begin(), stage.replicas.end(),
                                  [&](const Replica& replica) { return replica.expert == expert; });
    if (!same || expert < 1 || replicas % expert != 0) {
      invalid("V25", "replicas cannot hold all experts together, so many in a row", path + ".replicas",
              "one `expert` for all of them, which divides their number",
              same ? std::to_string(expert) + " of " + std::to_string(replicas) : "several");
      return false;
    }
    std::int64_t fewest = 0;
    const std::vector<std::int64_t> counts = expert_counts(graph_);
    for (std::size_t p = 0; p < counts.size(); ++p) {
      const std::vector<int> blocks =
          counts[p] > 0 ? model::blocks_using(graph_, static_cast<int>(p)) : std::vector<int>{};
      const bool here = std::any_of(blocks.begin(), blocks.end(), [&](int b) { return position_of(stage, b) >= 0; });
      if (here && (fewest == 0 || counts[p] < fewest)) fewest = counts[p];
    }
    if (fewest > 0 && fewest < expert) {
      invalid("V25", "fewer experts than replicas that hold them together", path + ".replicas",
              "at most " + std::to_string(fewest), std::to_string(expert));
    }
    const bool puts_sums =
        std::any_of(graph_.coupled.begin(), graph_.coupled.end(), [&](const model::CoupledOp& coupled) {
          for (int b = 0; b < graph_.num_blocks(); ++b) {
            const model::Block& block = graph_.blocks[static_cast<std::size_t>(b)];
            if (block.first_op <= coupled.op && coupled.op < block.end_op) return position_of(stage, b) >= 0;
          }
          return false;
        });
    if (fewest == 0 && !puts_sums) return true;
    if (capabilities_.expert_combined) return true;
    if (!has_equal_meshes(stage))
      unimplemented("V25", "an expert axis over unequal meshes", path + ".replicas", "one tensor and one context size",
                    "several");
    if (zero_of(stage) > 0 && num_expert_holders(stage) > 1)
      unimplemented("V25", "ZeRO where several replicas hold the same experts", path + ".zero_stage",
                    "0, or as large an expert axis as there are replicas", std::to_string(stage.zero_stage));
    return has_equal_meshes(stage);
  }

  /// Rows travel inside compute actions: those who exchange them come to the same ones, and divide their backwards
  /// alike.
  void check_expert_lists() {
    for (std::size_t i = 0; i < plan_.roles.size(); ++i) {
      const Role& role = plan_.roles[i];
      const Stage& stage = plan_.stages[static_cast<std::size_t>(role.stage)];
      const auto other = std::find_if(plan_.roles.begin(), plan_.roles.begin() + static_cast<std::ptrdiff_t>(i),
                                      [&](const Role& before) { return before.stage == role.stage; });
      if (!has_expert_axis(stage) || other->stage != role.stage || other->actions == role.actions) continue;
      invalid("V25", "replicas with an expert axis have different lists", at_index("roles", i) + ".actions",
              "the list of " + at_index("roles", static_cast<std::size_t>(other - plan_.roles.begin())), "another one");
    }
  }

  bool check_replica(const Replica& replica, const std::string& path) {
    bool holds = true;
    const std::int64_t axes = static_cast<std::int64_t>(replica.tensor) * replica.context;
    if (replica.tensor < 1 || replica.context < 1 || replica.expert < 1 ||
        axes != static_cast<std::int64_t>(replica.devices.size())) {
      invalid("V13", "mesh axes do not multiply to the number of devices", path + ".devices",
              "tensor x context = " + std::to_string(axes) + ", each at least 1",
              std::to_string(replica.devices.size()));
      holds = false;
    }
    if (const int most = capabilities_.max_tensor; replica.tensor > most)
      unimplemented("V14", "tensor parallelism", path + ".tensor", at_most(most, 1), std::to_string(replica.tensor));
    if (const int most = capabilities_.max_context; replica.context > most)
      unimplemented("V14", "context parallelism", path + ".context", at_most(most, 1), std::to_string(replica.context));
    if (const int most = capabilities_.max_expert; replica.expert > most)
      unimplemented("V14", "expert parallelism", path + ".expert", at_most(most, 1), std::to_string(replica.expert));
    if (replica.samples < 1) {
      invalid("V17", "replica has no samples", path + ".samples", "at least 1", std::to_string(replica.samples),
              "leave the device unused instead");
      holds = false;
    }
    return holds;
  }

  /// All replicas exchange rows, so they can put sums over the batch together.
  static bool meet_in_experts(const Stage& stage) {
    return std::all_of(stage.replicas.begin(), stage.replicas.end(), [&](const Replica& replica) {
      return replica.expert == static_cast<int>(stage.replicas.size());
    });
  }

  void check_coupled() {
    for (const model::CoupledOp& coupled : graph_.coupled) {
      for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
        const Stage& stage = plan_.stages[s];
        const std::vector<BlockRun> runs = runs_of(stage);
        const bool holds = std::any_of(runs.begin(), runs.end(), [&](const BlockRun& run) {
          return coupled.op >= graph_.blocks[static_cast<std::size_t>(run.first_block)].first_op &&
                 coupled.op < graph_.blocks[static_cast<std::size_t>(run.end_block - 1)].end_op;
        });
        if (!holds) continue;
        if (plan_.batch.count == 1 && stage.replicas.size() == 1) continue;
        const bool meets = !coupled.sums.empty() && meet_in_experts(stage);
        if (plan_.batch.count == 1 && meets) continue;
        const model::Op& op = graph_.ops[static_cast<std::size_t>(coupled.op)];
        invalid("V20", "an operator mixes samples, and the plan splits the batch", at_index("stages", s),
                std::string("one micro-batch and one replica") +
                    (coupled.sums.empty() ? "" : ", or replicas that all hold the experts together,") + " for " +
                    op.target + " at " + op.module_path + (op.source.empty() ? "" : " (" + op.source + ")"),
                std::to_string(plan_.batch.count) + " micro-batches, " + std::to_string(stage.replicas.size()) +
                    " replicas",
                coupled.reason);
      }
    }
  }

  /// V21 to V24: buckets, roles, their actions, their order.
  void check_lists() {
    const ParameterUses uses(graph_);
    const auto tied = tied_parameters(plan_, uses);
    const std::size_t before = problems_.size();
    for (std::size_t s = 0; s < plan_.stages.size(); ++s) check_buckets(s, uses);
    check_roles();
    if (problems_.size() == before) check_expert_lists();
    const std::vector<std::int64_t> experts = divided_counts(plan_, graph_);
    if (problems_.size() != before) return;
    for (std::size_t i = 0; i < plan_.roles.size(); ++i) {
      const Stage& stage = plan_.stages[static_cast<std::size_t>(plan_.roles[i].stage)];
      check_actions(i, tied, find_parameters(stage, experts, uses));
    }
    if (problems_.size() != before) return;
    for (Error& problem : check_order(plan_, graph_)) {
      problem.message = "V24: " + problem.message;
      problems_.push_back(std::move(problem));
    }
  }

  void check_buckets(std::size_t s, const ParameterUses& uses) {
    const Stage& stage = plan_.stages[s];
    // The smallest buckets exist exactly in the chunks where there is something to reduce.
    const std::vector<int> least = make_bucket_starts(stage, bucket_bytes_of(stage, uses), Bytes(1));
    const bool reduces = !least.empty();
    std::vector<int> left = stage.bucket_starts;
    bool holds = true;
    for (int chunk = num_chunks(stage) - 1; chunk >= 0; --chunk) {
      const BlockRun run = run_of(stage, chunk);
      const auto inside = [&](int start) { return run.first_block <= start && start < run.end_block; };
      int end = run.end_block;
      while (!left.empty() && inside(left.front())) {
        holds = holds && left.front() < end;
        end = left.front();
        left.erase(left.begin());
      }
      const bool here = std::any_of(least.begin(), least.end(), inside);
      holds = holds && end == (here ? run.first_block : run.end_block);
    }
    if (zero_of(stage) >= 2 && stage.bucket_starts != least) holds = false;
    if (holds && left.empty()) return;
    std::string got;
    for (const int start : stage.bucket_starts) got += (got.empty() ? "" : ", ") + std::to_string(start);
    invalid("V21", "gradient buckets do not cover the stage's blocks", at_index("stages", s) + ".bucket_starts",
            zero_of(stage) >= 2 ? "one for each block that has parameters, down to " + std::to_string(stage.first_block)
            : reduces           ? "descending from below " + std::to_string(stage.end_block) + " to " +
                            std::to_string(stage.first_block)
                      : "none: nothing to reduce",
            got.empty() ? "none" : got);
  }

  void check_roles() {
    std::map<std::pair<int, int>, int> times;
    std::pair<int, int> previous{-1, -1};
    for (std::size_t i = 0; i < plan_.roles.size(); ++i) {
      const Role& role = plan_.roles[i];
      const std::string path = at_index("roles", i);
      if (role.stage < 0 || role.stage >= static_cast<int>(plan_.stages.size()) || role.replicas.empty()) {
        invalid("V22", "role of no stage or without replicas", path, "a stage and its replicas",
                "stage " + std::to_string(role.stage));
        continue;
      }
      const Stage& stage = plan_.stages[static_cast<std::size_t>(role.stage)];
      for (const int replica : role.replicas) {
        if (replica < 0 || replica >= static_cast<int>(stage.replicas.size())) {
          invalid("V22", "no such replica", path + ".replicas", "below " + std::to_string(stage.replicas.size()),
                  std::to_string(replica));
          return;
        }
        ++times[{role.stage, replica}];
        if (!same_role(stage.replicas[static_cast<std::size_t>(role.replicas.front())],
                       stage.replicas[static_cast<std::size_t>(replica)])) {
          invalid("V22", "replicas of one role differ", path + ".replicas", "equal device class, mesh and samples",
                  "replica " + std::to_string(replica));
        }
      }
      const std::pair<int, int> key{role.stage, role.replicas.front()};
      if (!std::is_sorted(role.replicas.begin(), role.replicas.end()) || key <= previous) {
        invalid("V22", "roles are not in order", path, "ascending by stage, then replica",
                "stage " + std::to_string(key.first) + ", replica " + std::to_string(key.second));
      }
      previous = key;
    }
    for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
      for (std::size_t r = 0; r < plan_.stages[s].replicas.size(); ++r) {
        const int count = times[{static_cast<int>(s), static_cast<int>(r)}];
        if (count == 1) continue;
        invalid("V22", "replica must have exactly one role", at_index("stages", s) + "." + at_index("replicas", r), "1",
                std::to_string(count));
      }
    }
  }

  /// The list must hold what its own compute order asks for, each action once, in any order that V24 accepts.
  void check_actions(std::size_t i, const std::vector<TiedParameter>& tied, const StageParameters& parameters) {
    const Role& role = plan_.roles[i];
    // Derives nothing for a count that the list cannot hold: the numbers come from a file.
    if (plan_.batch.count < 1 || plan_.batch.count > static_cast<std::int64_t>(role.actions.size())) {
      invalid("V23", "list is too short for the micro-batches", at_index("roles", i) + ".actions",
              "forward and backward of " + std::to_string(plan_.batch.count) + " micro-batches",
              std::to_string(role.actions.size()) + " actions");
      return;
    }
    const std::vector<ActionKind> whole{ActionKind::Forward, ActionKind::Backward},
        split{ActionKind::Forward, ActionKind::BackwardInput, ActionKind::BackwardWeight};
    // A custom order says of each backward whether it is split.
    std::set<std::pair<int, int>> split_ones;
    for (const Action& action : role.actions)
      if (is_custom(plan_.schedule) && action.kind == ActionKind::BackwardInput)
        split_ones.emplace(action.micro_batch, action.chunk);
    const auto kinds_of = [&](int micro_batch, int chunk) -> const std::vector<ActionKind>& {
      return splits_backward(plan_.schedule) || split_ones.count({micro_batch, chunk}) > 0 ? split : whole;
    };
    std::vector<Action> schedule;
    const int chunks = num_chunks(plan_.stages[static_cast<std::size_t>(role.stage)]);
    std::set<std::tuple<ActionKind, int, int>> seen;
    for (const Action& action : role.actions) {
      const auto& kinds = kinds_of(action.micro_batch, action.chunk);
      const bool pipeline = std::find(kinds.begin(), kinds.end(), action.kind) != kinds.end();
      if (!pipeline || action.micro_batch < 0 || action.micro_batch >= plan_.batch.count) continue;
      if (action.chunk < 0 || action.chunk >= chunks) continue;
      if (seen.emplace(action.kind, action.micro_batch, action.chunk).second)
        schedule.push_back({action.kind, action.micro_batch, -1, -1, -1, action.chunk});
    }
    for (int m = 0; m < static_cast<int>(plan_.batch.count); ++m) {
      for (int chunk = 0; chunk < chunks; ++chunk) {
        for (const ActionKind kind : kinds_of(m, chunk)) {
          if (seen.emplace(kind, m, chunk).second) schedule.push_back({kind, m, -1, -1, -1, chunk});
        }
      }
    }
    const std::vector<Action> derived = stage_actions(plan_, role.stage, schedule, tied, parameters);
    if (derived == role.actions) return;
    const std::size_t before = problems_.size();
    compare_counts(at_index("roles", i) + ".actions", derived, role.actions);
    if (problems_.size() == before && zero_of(plan_.stages[static_cast<std::size_t>(role.stage)]) >= 2)
      compare_order(at_index("roles", i) + ".actions", derived, role.actions);
  }

  /// ZeRO 2 and 3: which gather serves which compute action, and how many whole gradients there are, follows from where
  /// they stand among each other.
  void compare_order(const std::string& path, const std::vector<Action>& derived, const std::vector<Action>& actions) {
    const auto select = [](const std::vector<Action>& list) {
      std::vector<Action> selected;
      for (const Action& action : list)
        if (is_compute(action.kind) || action.kind == ActionKind::GatherParameter) selected.push_back(action);
      return selected;
    };
    const std::vector<Action> expected = select(derived), got = select(actions);
    const auto [at, other] = std::mismatch(expected.begin(), expected.end(), got.begin());
    if (at == expected.end()) return;
    invalid("V23", "parameters are gathered or blocks are run in another order than ZeRO needs", path, to_text(*at),
            to_text(*other), "a gather stands before the compute action that it serves, blocks in the model's order");
  }

  void compare_counts(const std::string& path, const std::vector<Action>& derived, const std::vector<Action>& actions) {
    std::map<std::string, int> balance;
    for (const Action& action : derived) ++balance[to_text(action)];
    for (const Action& action : actions) --balance[to_text(action)];
    for (const auto& [text, count] : balance) {
      if (count > 0) invalid("V23", "action is missing", path, text, "nothing");
      if (count < 0) invalid("V23", "action is not part of this role, or listed twice", path, "", text);
    }
  }

  const Plan& plan_;
  const model::ModelGraph& graph_;
  const cluster::ResourceGraph& resources_;
  const Capabilities& capabilities_;
  std::vector<Error> problems_;
};

}  // namespace

std::vector<Error> validate(const Plan& plan, const model::ModelGraph& graph, const cluster::ResourceGraph& resources,
                            const Capabilities& capabilities) {
  return Validator(plan, graph, resources, capabilities).run();
}

}  // namespace coxswain::plan
