#pragma once
// Trains a plan with every rank a thread of this process: real engine, real executor, fake communicator.
#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/folder.h"
#include "executor/executor.h"
#include "plan/layout/mesh_groups.h"
#include "plan/program.h"
#include "tests/worker/thread_communicator.h"
#include "worker/engine/engine.h"

namespace coxswain::tests {

struct StageSpec {
  int end_block = 0;
  std::vector<std::int64_t> samples;  // per replica
  std::vector<int> tensor = {};       // devices of each replica's tensor axis; else 1
  std::vector<int> context = {};      // of its context axis
  int expert = 1;                     // replicas in a row that hold all experts together
};

struct PlanSpec {
  std::vector<StageSpec> stages;
  std::int64_t count = 1;  // micro-batches
  plan::ScheduleKind schedule = plan::ScheduleKind::OneForwardOneBackward;
  bool recompute = false;
  std::int64_t bucket_bytes = 1 << 14;
  plan::Precision precision = plan::Precision::Float32;
  std::vector<int> part_ends = {};  // with chunks: last block of every part + 1, in model order; else the stages' own
  std::vector<int> recompute_blocks = {};  // these, where not all are recomputed
  int receive_credits = 2;
  std::vector<int> zero_stages = {};            // by stage, else 0
  std::optional<plan::CsvSchedule> order = {};  // in place of `schedule`
};

inline plan::Plan make_plan(const model::ModelGraph& graph, const PlanSpec& spec) {
  plan::Plan plan;
  std::int64_t device = 0;
  plan.schedule = spec.order ? spec.order->kind : spec.schedule;
  plan.receive_credits = spec.receive_credits;
  std::vector<int> ends = spec.part_ends;
  for (const StageSpec& given : spec.stages) {
    if (spec.part_ends.empty()) ends.push_back(given.end_block);
    plan::Stage stage;
    plan.batch.micro = 0;
    for (std::size_t r = 0; r < given.samples.size(); ++r) {
      plan::Replica replica;
      replica.tensor = given.tensor.empty() ? 1 : given.tensor[r];
      replica.context = given.context.empty() ? 1 : given.context[r];
      replica.expert = given.expert;
      replica.samples = given.samples[r];
      for (int d = 0; d < replica.tensor * replica.context; ++d) replica.devices.push_back({0, device++});
      plan.batch.micro += replica.samples;
      stage.replicas.push_back(std::move(replica));
    }
    plan.stages.push_back(std::move(stage));
  }
  for (std::size_t part = 0; part < ends.size(); ++part) {
    const plan::BlockRun run{part == 0 ? 0 : ends[part - 1], ends[part]};
    const auto place = plan::place_of_part(plan.schedule, static_cast<int>(part), static_cast<int>(plan.stages.size()));
    plan::Stage& stage = plan.stages[place.stage];
    if (place.chunk == 0) {
      stage.first_block = run.first_block;
      stage.end_block = run.end_block;
    } else {
      stage.chunks.push_back(run);
    }
    for (int b = run.first_block; b < run.end_block; ++b) {
      const auto& some = spec.recompute_blocks;
      const bool full = spec.recompute || std::find(some.begin(), some.end(), b) != some.end();
      stage.recompute.push_back(full ? plan::Recompute::Full : plan::Recompute::None);
    }
  }
  for (std::size_t s = 0; s < spec.zero_stages.size(); ++s) plan.stages[s].zero_stage = spec.zero_stages[s];
  plan.batch.count = spec.count;
  plan.batch.global = plan.batch.micro * spec.count;
  plan.precision = spec.precision;
  if (!spec.order) {
    plan::fill_roles(plan, graph, Bytes(spec.bucket_bytes));
  } else if (auto applied = plan::apply_schedule(plan, graph, Bytes(spec.bucket_bytes), *spec.order); !applied) {
    throw std::runtime_error(to_text(applied.error()));
  }
  return plan;
}

struct TrainingRun {
  std::vector<double> losses, grad_norms, learning_rates;  // per step, of rank 0
  std::vector<std::vector<std::int64_t>> expert_tokens;    // per step, as StepNumbers has them
  std::vector<double> validation;                          // after the last step
  /// Put together from every rank's parts; ranks that share elements must agree on them. NaN: nobody had it.
  std::map<std::string, std::vector<float>> parameters;
  std::vector<std::string> problems;
  std::vector<std::int64_t> skipped;  // steps that updated nothing
  std::vector<double> loss_scales;    // per step
  std::set<std::string> not_finite;   // "step 3 rank 1: the loss is"
  /// By rank, after the step that was asked for.
  std::map<int, std::vector<checkpoint::PieceState>> saved;
  checkpoint::Progress saved_progress;
  std::map<int, worker::HeldState> held;  // by rank, of a run that ended after `hold_after`; its engines are gone
};

/// Where a run begins, and after which step it keeps what a checkpoint holds.
struct CheckpointUse {
  std::optional<checkpoint::Found> from = {};
  std::int64_t save_after = 0;                             // 0: never
  std::int64_t hold_after = 0;                             // then it ends, and ranks hold what they have; 0: never
  const std::map<int, worker::HeldState>* held = nullptr;  // in place of `from`: of all ranks of that run
};

/// Puts a part to its place in `whole`; false where another rank had other bits there.
inline bool add_part(std::vector<float>& whole, const std::vector<std::int64_t>& dims,
                     const worker::ParameterPart& part) {
  std::int64_t count = 1;
  for (const std::int64_t dim : dims) count *= dim;
  if (whole.empty()) whole.assign(static_cast<std::size_t>(count), std::numeric_limits<float>::quiet_NaN());
  bool equal = true;
  for (std::size_t i = 0; i < part.values.size(); ++i) {
    std::int64_t place = 0, scale = 1;
    std::int64_t rest = part.first + static_cast<std::int64_t>(i);
    for (std::size_t d = dims.size(); d-- > 0;) {
      const auto held = static_cast<std::int64_t>(part.rows[d].size());
      place += part.rows[d][static_cast<std::size_t>(rest % held)] * scale;
      rest /= held;
      scale *= dims[d];
    }
    float& known = whole[static_cast<std::size_t>(place)];
    equal = equal && (std::isnan(known) || known == part.values[i]);
    known = part.values[i];
  }
  return equal;
}

/// Group `g` of rank `r`: communicators[r][g].
using Communicators = std::vector<std::vector<std::unique_ptr<ThreadCommunicator>>>;

inline Result<void> run_program(const plan::RankProgram& program, executor::Compute& compute,
                                const std::vector<collective::Communicator*>& communicators,
                                collective::CompletionSignal& signal) {
  executor::Executor executor(program, compute, communicators, steady_clock());
  executor.begin_step();
  return executor.run_step(signal, Deadline::after(steady_clock(), Seconds(120)));
}

inline Result<void> train_rank(const model::ModelGraph& graph, const plan::Plan& plan, int rank,
                               const worker::TrainSettings& settings,
                               const std::vector<collective::Communicator*>& communicators,
                               collective::CompletionSignal& signal, TrainingRun& run, std::mutex& mutex,
                               const worker::Localise& localise = {}, const CheckpointUse& use = {}) {
  worker::EngineOptions options{&graph, &plan, rank, settings, communicators, localise};
  COX_TRY(auto engine, worker::make_engine(options));
  const plan::RankProgram program = plan::make_rank_program(plan, graph, rank);
  if (use.from) {
    COX_TRY(const auto reader, checkpoint::Reader::open(use.from->folder, use.from->manifest));
    COX_TRY_VOID(engine->load_state(reader, use.from->manifest.progress));
  }
  if (use.held != nullptr) {
    std::vector<checkpoint::PieceView> pieces;
    for (const auto& [holder, held] : *use.held) pieces.insert(pieces.end(), held.pieces.begin(), held.pieces.end());
    COX_TRY_VOID(engine->load_state(checkpoint::Reader::over(pieces), use.held->begin()->second.progress));
  }
  for (std::int64_t step = engine->progress().step + 1; step <= settings.steps; ++step) {
    COX_TRY_VOID(engine->begin_step(step));
    COX_TRY_VOID(run_program(program, *engine, communicators, signal));
    COX_TRY(const worker::StepNumbers numbers, engine->end_step());
    if (step == use.save_after) {
      const std::lock_guard lock(mutex);
      run.saved[rank] = engine->copy_state(engine->pieces());
      run.saved_progress = engine->progress();
    }
    if (step == use.hold_after) {
      const std::lock_guard lock(mutex);
      run.held[rank] = engine->hold_state();
      return {};
    }
    if (!numbers.not_finite.empty()) {
      const std::lock_guard lock(mutex);
      run.not_finite.insert("step " + std::to_string(step) + " rank " + std::to_string(rank) + ": " +
                            numbers.not_finite);
    }
    if (rank != 0) continue;
    if (numbers.skipped) run.skipped.push_back(step);
    run.loss_scales.push_back(numbers.loss_scale);
    run.losses.push_back(numbers.loss);
    run.expert_tokens.push_back(numbers.expert_tokens);
    run.grad_norms.push_back(numbers.grad_norm);
    run.learning_rates.push_back(numbers.learning_rate);
  }
  const plan::RankProgram evaluation =
      plan::make_rank_program(plan, graph, rank, plan::evaluation_actions(plan, plan::place_of(plan, rank).stage));
  for (std::int64_t i = 0; i < settings.data.validation_steps; ++i) {
    COX_TRY_VOID(engine->begin_evaluation(i));
    COX_TRY_VOID(run_program(evaluation, *engine, communicators, signal));
    COX_TRY(const double loss, engine->end_evaluation());
    if (rank == 0) run.validation.push_back(loss);
  }
  const std::lock_guard lock(mutex);
  for (const model::Parameter& parameter : graph.parameters) {
    auto part = engine->read_part(parameter.name);
    if (!part) continue;
    if (!add_part(run.parameters[parameter.name], parameter.dims, *part))
      run.problems.push_back(parameter.name + " differs between ranks");
  }
  return {};
}

inline TrainingRun train(const model::ModelGraph& graph, const plan::Plan& plan, const worker::TrainSettings& settings,
                         const worker::Localise& localise = {}, const CheckpointUse& use = {}) {
  TrainingRun run;
  const int num_ranks = plan::num_ranks(plan);
  std::vector<collective::CompletionSignal> signals(num_ranks);
  Communicators owned(num_ranks);
  std::map<std::pair<std::size_t, int>, std::shared_ptr<ThreadGroup>> shared;  // by number and first rank
  for (int rank = 0; rank < num_ranks; ++rank) {
    const auto groups = plan::rank_groups(plan, graph, rank);
    owned[rank].resize(groups.size());
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const auto& ranks = groups[g].ranks;
      const auto found = std::find(ranks.begin(), ranks.end(), rank);
      if (found == ranks.end()) continue;
      auto& group = shared[{g, ranks.front()}];
      if (!group) group = std::make_shared<ThreadGroup>(static_cast<int>(ranks.size()));
      const auto place = static_cast<int>(found - ranks.begin());
      group->signals_[place] = &signals[rank];
      owned[rank][g] = std::make_unique<ThreadCommunicator>(group, place);
    }
  }
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks; ++rank) {
    threads.emplace_back([&, rank] {
      std::vector<collective::Communicator*> communicators;
      for (const auto& one : owned[rank]) communicators.push_back(one.get());
      const auto result = guard("tests", [&] {
        return train_rank(graph, plan, rank, settings, communicators, signals[rank], run, mutex, localise, use);
      });
      if (result) return;
      const std::lock_guard lock(mutex);
      run.problems.push_back("rank " + std::to_string(rank) + ": " + to_text(result.error()));
      for (auto& [key, group] : shared) group->abort("another rank failed");
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& [name, values] : run.parameters)
    if (std::any_of(values.begin(), values.end(), [](float value) { return std::isnan(value); }))
      run.problems.push_back("no rank holds all of " + name);
  return run;
}

}  // namespace coxswain::tests
