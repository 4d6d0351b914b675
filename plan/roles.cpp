// From stages, batch and schedule to each role's complete list of actions.
#include <algorithm>
#include <set>
#include <unordered_map>

#include "common/ensure.h"
#include "plan/derive.h"
#include "plan/experts.h"
#include "plan/operands.h"

namespace coxswain::plan {
namespace {

int stage_of_block(const Plan& plan, int block) {
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    if (position_of(plan.stages[s], block) >= 0) return static_cast<int>(s);
  }
  return -1;
}

/// Turns the stage's blocks and its place in the pipeline into actions, one compute step at a time.
class ListBuilder {
 public:
  ListBuilder(const Plan& plan, int stage, ListDetail detail = ListDetail::Complete,
              const std::vector<int>& expert_blocks = {})
      : plan_(plan),
        stage_(plan.stages[static_cast<std::size_t>(stage)]),
        index_(stage),
        expert_blocks_(expert_blocks),
        zero_(zero_of(stage_)),
        detail_(detail) {}

  void start() {
    if (!ends_in_loss(plan_, index_)) return;
    add({ActionKind::CountLoss});
    if (num_holders(stage_) > 1) add({ActionKind::ReduceLossCount});
  }

  void forward(int micro_batch, int chunk = 0) {
    const BlockRun run = run_of(stage_, chunk);
    if (has_edge_in(plan_, index_, chunk)) add_edge(ActionKind::ReceiveActivation, micro_batch, chunk);
    if (zero_ == 3) {
      std::vector<BlockRun> buckets = buckets_of(run);
      std::reverse(buckets.begin(), buckets.end());
      for (const BlockRun& bucket : buckets) {
        gather(micro_batch, bucket);
        add({ActionKind::Forward, micro_batch, bucket.first_block, bucket.end_block, -1, chunk});
      }
      if (buckets.empty()) add({ActionKind::Forward, micro_batch, run.first_block, run.end_block, -1, chunk});
    } else {
      add({ActionKind::Forward, micro_batch, run.first_block, run.end_block, -1, chunk});
    }
    if (has_edge_out(plan_, index_, chunk)) add_edge(ActionKind::SendActivation, micro_batch, chunk);
  }

  /// B, I or W; `last`: of its chunk that completes gradients. There each bucket is reduced as soon as its blocks are
  /// through, beside the blocks that remain; from ZeRO 2 on that is so in every micro-batch.
  void backward(const Action& action, bool last) {
    const BlockRun run = run_of(stage_, action.chunk);
    const bool edges = action.kind != ActionKind::BackwardWeight;
    if (edges && has_edge_out(plan_, index_, action.chunk))
      add_edge(ActionKind::ReceiveGradient, action.micro_batch, action.chunk);
    const bool completes = action.kind != ActionKind::BackwardInput;
    const bool reduces = completes && (zero_ >= 2 ? detail_ == ListDetail::Complete : last);
    const std::vector<BlockRun> parts = reduces || zero_ == 3 ? buckets_of(run) : std::vector<BlockRun>{};
    for (const BlockRun& part : parts) {
      if (zero_ == 3) gather(action.micro_batch, part);
      add({action.kind, action.micro_batch, part.first_block, part.end_block, -1, action.chunk});
      if (reduces)
        add({ActionKind::ReduceGradient, zero_ >= 2 ? action.micro_batch : -1, part.first_block, part.end_block});
      if (reduces && has_experts(part)) add({ActionKind::ReduceExperts, -1, part.first_block, part.end_block});
    }
    if (parts.empty()) add({action.kind, action.micro_batch, run.first_block, run.end_block, -1, action.chunk});
    if (edges && has_edge_in(plan_, index_, action.chunk))
      add_edge(ActionKind::SendGradient, action.micro_batch, action.chunk);
  }

  /// What the replicas updated in pieces is whole again before the next step; under ZeRO 3 it is gathered at its use.
  void after_update(bool shared) {
    if (zero_ == 1 || zero_ == 2) {
      for (int chunk = 0; chunk < num_chunks(stage_); ++chunk) {
        for (const BlockRun& bucket : buckets_of(run_of(stage_, chunk)))
          add({ActionKind::GatherParameter, -1, bucket.first_block, bucket.end_block});
      }
    }
    if (shared) add({ActionKind::GatherReused});
  }

  void add(const Action& action) { actions_.push_back(action); }
  [[nodiscard]] std::vector<Action> take() { return std::move(actions_); }

 private:
  void add_edge(ActionKind kind, int micro_batch, int chunk) { add({kind, micro_batch, -1, -1, -1, chunk}); }

  /// Of a chunk, the last blocks first.
  [[nodiscard]] std::vector<BlockRun> buckets_of(const BlockRun& run) const {
    std::vector<BlockRun> buckets;
    int end = run.end_block;
    for (const int start : stage_.bucket_starts) {
      if (detail_ == ListDetail::Priced && zero_ >= 2) break;
      if (start < run.first_block || start >= run.end_block) continue;
      buckets.push_back({start, end});
      end = start;
    }
    return buckets;
  }

  /// Ahead of a compute action on a bucket, unless the one before it was on the same: then it is still there.
  void gather(int micro_batch, const BlockRun& bucket) {
    if (bucket == gathered_) return;
    gathered_ = bucket;
    add({ActionKind::GatherParameter, micro_batch, bucket.first_block, bucket.end_block});
  }

  /// Gradients of tables to add up. Under ZeRO they are priced, but not run (V25).
  [[nodiscard]] bool has_experts(const BlockRun& bucket) const {
    return zero_ == 0 && std::any_of(expert_blocks_.begin(), expert_blocks_.end(), [&](int block) {
             return bucket.first_block <= block && block < bucket.end_block;
           });
  }

  const Plan& plan_;
  const Stage& stage_;
  int index_;
  std::vector<int> expert_blocks_;
  int zero_;
  ListDetail detail_;
  BlockRun gathered_{-1, -1};
  std::vector<Action> actions_;
};

}  // namespace

bool ends_in_loss(const Plan& plan, int stage) {
  return place_of_part(plan.schedule, num_parts(plan) - 1, static_cast<int>(plan.stages.size())).stage == stage;
}

ParameterUses::ParameterUses(const model::ModelGraph& of)
    : graph(&of), blocks(of.parameters.size()), first_in(of.blocks.size()) {
  std::unordered_map<model::ValueId, std::size_t> parameter_of;
  for (std::size_t p = 0; p < of.parameters.size(); ++p) {
    const model::Parameter& parameter = of.parameters[p];
    if (parameter.trainable) parameter_of.emplace(parameter.value, p);
    std::int64_t elements = 1;
    for (const std::int64_t dim : parameter.dims) elements *= dim;
    gradients.push_back(size_of(parameter.dtype) * elements);
  }
  for (int b = 0; b < of.num_blocks(); ++b) {
    const model::Block& block = of.blocks[static_cast<std::size_t>(b)];
    for (model::OpId op = block.first_op; op < block.end_op; ++op) {
      visit_operands(of.ops[static_cast<std::size_t>(op)], [&](model::ValueId value) {
        const auto found = parameter_of.find(value);
        if (found == parameter_of.end()) return;
        std::vector<int>& users = blocks[found->second];
        if (users.empty() || users.back() != b) users.push_back(b);
      });
    }
  }
  for (std::size_t p = 0; p < blocks.size(); ++p) {
    if (!blocks[p].empty()) first_in[static_cast<std::size_t>(blocks[p].front())].push_back(static_cast<int>(p));
  }
}

std::vector<TiedParameter> tied_parameters(const Plan& plan, const ParameterUses& uses) {
  std::vector<TiedParameter> tied;
  for (std::size_t p = 0; p < uses.blocks.size(); ++p) {
    if (uses.blocks[p].size() < 2) continue;
    TiedParameter parameter{static_cast<int>(p), {}};
    for (const int block : uses.blocks[p]) {
      const int stage = stage_of_block(plan, block);
      const auto& known = parameter.stages;
      if (stage >= 0 && std::find(known.begin(), known.end(), stage) == known.end()) parameter.stages.push_back(stage);
    }
    if (parameter.stages.size() > 1) tied.push_back(std::move(parameter));
  }
  return tied;
}

namespace {

bool is_inside(const Stage& stage, const std::vector<int>& blocks) {
  return std::all_of(blocks.begin(), blocks.end(), [&](int b) { return position_of(stage, b) >= 0; });
}

}  // namespace

bool has_reused(const Stage& stage, const ParameterUses& uses) {
  return zero_of(stage) >= 2 &&
         std::any_of(uses.blocks.begin(), uses.blocks.end(),
                     [&](const std::vector<int>& blocks) { return blocks.size() > 1 && is_inside(stage, blocks); });
}

StageParameters find_parameters(const Stage& stage, const std::vector<std::int64_t>& expert_counts,
                                const ParameterUses& uses) {
  return {has_reused(stage, uses), reduced_expert_blocks(stage, expert_counts, uses.blocks)};
}

std::vector<Bytes> bucket_bytes_of(const Stage& stage, const ParameterUses& uses) {
  std::vector<Bytes> bytes(static_cast<std::size_t>(num_blocks(stage)));
  std::size_t position = 0;
  for (const BlockRun& run : runs_of(stage)) {
    for (int block = run.first_block; block < run.end_block; ++block, ++position) {
      for (const int p : uses.first_in[static_cast<std::size_t>(block)]) {
        const std::vector<int>& blocks = uses.blocks[static_cast<std::size_t>(p)];
        if (!is_inside(stage, blocks)) continue;
        if (zero_of(stage) >= 2 && blocks.size() > 1) continue;
        bytes[position] += uses.gradients[static_cast<std::size_t>(p)];
      }
    }
  }
  return bytes;
}

std::vector<int> make_bucket_starts(const Stage& stage, const std::vector<Bytes>& block_bytes, Bytes bucket_bytes) {
  if (num_holders(stage) < 2 || !has_equal_meshes(stage)) return {};
  if (zero_of(stage) >= 2) bucket_bytes = Bytes(1);
  std::vector<int> starts;
  for (int chunk = num_chunks(stage) - 1; chunk >= 0; --chunk) {
    const BlockRun run = run_of(stage, chunk);
    const std::size_t before = starts.size();
    Bytes held{0};
    for (int block = run.end_block - 1; block >= run.first_block; --block) {
      held += block_bytes[static_cast<std::size_t>(position_of(stage, block))];
      if (held > Bytes(0) && held >= bucket_bytes) {
        starts.push_back(block);
        held = Bytes(0);
      }
    }
    // Blocks below the last full bucket: a bucket of their own, or, where they have no gradients, part of the last one.
    if (held > Bytes(0)) {
      starts.push_back(run.first_block);
    } else if (starts.size() > before) {
      starts.back() = run.first_block;
    }
  }
  return starts;
}

std::vector<Action> stage_actions(const Plan& plan, int stage, const std::vector<Action>& schedule,
                                  const std::vector<TiedParameter>& tied, const StageParameters& parameters,
                                  ListDetail detail) {
  ListBuilder list(plan, stage, detail, parameters.expert_blocks);
  list.start();
  const int chunks = num_chunks(plan.stages[static_cast<std::size_t>(stage)]);
  std::vector<const Action*> last(static_cast<std::size_t>(chunks), nullptr);  // that completes gradients, by chunk
  for (const Action& action : schedule) {
    COX_ENSURE(0 <= action.chunk && action.chunk < chunks, to_text(action));
    if (action.kind == ActionKind::Backward || action.kind == ActionKind::BackwardWeight)
      last[static_cast<std::size_t>(action.chunk)] = &action;
  }
  for (const Action& action : schedule) {
    if (action.kind == ActionKind::Forward) {
      list.forward(action.micro_batch, action.chunk);
    } else {
      COX_ENSURE(action.kind == ActionKind::Backward || action.kind == ActionKind::BackwardInput ||
                     action.kind == ActionKind::BackwardWeight,
                 to_text(action));
      list.backward(action, &action == last[static_cast<std::size_t>(action.chunk)]);
    }
  }
  if (parameters.reused) list.add({ActionKind::ReduceReused});
  if (has_mesh(plan.stages[static_cast<std::size_t>(stage)])) list.add({ActionKind::ReduceShared});
  for (std::size_t t = 0; t < tied.size(); ++t) {
    const std::vector<int>& users = tied[t].stages;
    if (std::find(users.begin(), users.end(), stage) != users.end())
      list.add({ActionKind::ReduceTied, -1, -1, -1, static_cast<int>(t)});
  }
  list.add({ActionKind::ReduceNorm});
  list.add({ActionKind::Optimizer});
  list.after_update(parameters.reused);
  return list.take();
}

const Role& role_of_stage(const Plan& plan, int stage) {
  const auto found =
      std::find_if(plan.roles.begin(), plan.roles.end(), [&](const Role& role) { return role.stage == stage; });
  COX_ENSURE(found != plan.roles.end(), stage);
  return *found;
}

std::vector<Action> compute_order(const std::vector<Action>& actions) {
  std::vector<Action> order;
  std::set<std::tuple<ActionKind, int, int>> seen;
  for (const Action& action : actions) {
    if (!is_compute(action.kind) || action.micro_batch < 0) continue;
    if (seen.emplace(action.kind, action.micro_batch, action.chunk).second)
      order.push_back({action.kind, action.micro_batch, -1, -1, -1, action.chunk});
  }
  return order;
}

bool same_role(const Replica& a, const Replica& b) {
  return a.tensor == b.tensor && a.context == b.context && a.expert == b.expert && a.samples == b.samples &&
         std::equal(a.devices.begin(), a.devices.end(), b.devices.begin(), b.devices.end(),
                    [](const DeviceId& x, const DeviceId& y) { return x.device_class == y.device_class; });
}

void fill_roles(Plan& plan, const ParameterUses& uses, Bytes bucket_bytes, ListDetail detail) {
  const int num_stages = static_cast<int>(plan.stages.size());
  std::vector<std::vector<Action>> schedules;
  for (int s = 0; s < num_stages; ++s) {
    if (is_custom(plan.schedule)) {
      schedules.push_back(compute_order(role_of_stage(plan, s).actions));
      continue;
    }
    schedules.push_back(make_schedule(plan.schedule, s, num_stages, static_cast<int>(plan.batch.count),
                                      num_chunks(plan.stages[static_cast<std::size_t>(s)])));
  }
  fill_roles(plan, uses, bucket_bytes, schedules, detail);
}

void fill_roles(Plan& plan, const ParameterUses& uses, Bytes bucket_bytes,
                const std::vector<std::vector<Action>>& schedules, ListDetail detail) {
  COX_ENSURE(schedules.size() == plan.stages.size(), schedules.size(), plan.stages.size());
  const auto tied = tied_parameters(plan, uses);
  const std::vector<std::int64_t> experts = divided_counts(plan, *uses.graph);
  plan.roles.clear();
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    Stage& stage = plan.stages[s];
    stage.bucket_starts = make_bucket_starts(stage, bucket_bytes_of(stage, uses), bucket_bytes);
    const std::vector<Action> actions =
        stage_actions(plan, static_cast<int>(s), schedules[s], tied, find_parameters(stage, experts, uses), detail);
    const auto stage_roles_begin = static_cast<std::ptrdiff_t>(plan.roles.size());
    for (std::size_t r = 0; r < stage.replicas.size(); ++r) {
      const auto role =
          std::find_if(plan.roles.begin() + stage_roles_begin, plan.roles.end(), [&](const Role& candidate) {
            return same_role(stage.replicas[static_cast<std::size_t>(candidate.replicas.front())], stage.replicas[r]);
          });
      if (role != plan.roles.end()) {
        role->replicas.push_back(static_cast<int>(r));
      } else {
        plan.roles.push_back(Role{static_cast<int>(s), {static_cast<int>(r)}, actions});
      }
    }
  }
}

std::vector<Action> evaluation_actions(const Plan& plan, int stage) {
  ListBuilder list(plan, stage);
  const int chunks = num_chunks(plan.stages[static_cast<std::size_t>(stage)]),
            count = static_cast<int>(plan.batch.count);
  if (chunks == 1) {
    for (int m = 0; m < count; ++m) list.forward(m);
  } else if (plan.schedule == ScheduleKind::Custom) {
    // Rounds of as many micro-batches as stages: nothing waits on the edge back for longer than a round.
    const int stages = static_cast<int>(plan.stages.size());
    for (int first = 0; first < count; first += stages)
      for (int chunk = 0; chunk < chunks; ++chunk)
        for (int m = first; m < std::min(count, first + stages); ++m) list.forward(m, chunk);
  } else {
    // The schedule's own order of forwards is one that no stage gets stuck in; all V-shaped ones have one.
    const ScheduleKind kind = is_v_shaped(plan.schedule) ? ScheduleKind::ZeroBubbleV : plan.schedule;
    for (const Action& action : make_schedule(kind, stage, static_cast<int>(plan.stages.size()), count, chunks)) {
      if (action.kind == ActionKind::Forward) list.forward(action.micro_batch, action.chunk);
    }
  }
  list.add({ActionKind::ReduceNorm});
  return list.take();
}

}  // namespace coxswain::plan
