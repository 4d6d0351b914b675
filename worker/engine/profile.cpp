// Times of blocks as a training step has them: whole passes over all blocks with the model's own parameters, so that
// caches are as warm as in training, each block timed forward and backward (gradients added to their storage included).
#include <ATen/core/Tensor.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <tuple>

#include "common/clock.h"
#include "common/processor_time.h"
#include "worker/engine/caching_allocator.h"
#include "worker/engine/engine.h"
#include "worker/engine/expert_load.h"
#include "worker/engine/inputs.h"
#include "worker/engine/libtorch_setup.h"
#include "worker/engine/local_model.h"
#include "worker/engine/tensor_types.h"
#include "worker/engine/training_data.h"

namespace coxswain::worker {
namespace {

/// Of processor time, in passes that do not count, after every change of the number of samples: caches, pages and
/// pieces of the allocator fit the sizes before, and a training step has that behind itself. A pass that takes longer
/// than this is warm soon enough: after the first one all count.
constexpr double kWarmupSeconds = 0.5;
/// All numbers of samples in turn, this often: a machine that is slower for a while is so for each of them.
constexpr int kRounds = 3;
constexpr std::size_t kMaxPasses = 20;  // a round
/// Of free memory, that parameters, gradients and optimizer state of a whole model may take; else blocks are timed
/// apart.
constexpr double kWholeModelFraction = 0.5;
constexpr double kRateSeconds = 0.1;
constexpr int kOverheadActions = 2000;

double seconds_now() { return std::chrono::duration<double>(steady_clock().now().time_since_epoch()).count(); }

struct BlockPass {
  double forward = 0, backward = 0;
  std::int64_t saved = 0, transient = 0;
  double squared_load_cv = 0;  // of its experts; 0: it has none
};
struct Pass {
  std::vector<BlockPass> blocks;
  double total = 0;
  double processor = 0;  // seconds
};

class Profiler {
 public:
  Profiler(const model::ModelGraph& graph, const TrainSettings& settings, const StartBarrier& start_barrier)
      : graph_(graph), settings_(settings), start_barrier_(start_barrier) {}

  Result<void> meet() { return start_barrier_().wait(Deadline::never()); }

  Result<void> open_data() {
    if (settings_.data.text.empty() && settings_.data.tensors.empty()) return {};
    COX_TRY(TrainingData data, TrainingData::open(graph_, settings_.data, 0));
    data_ = std::move(data);
    return {};
  }

  MicroBatch make_batch(LocalModel& local, std::int64_t samples, std::int64_t step) {
    RunMode mode;
    mode.dropout = settings_.dropout;
    mode.seed = settings_.seed;
    mode.step = step;
    MicroBatch batch = local.runner().make_micro_batch(mode);
    for (const int i : local.runner().stage().slice.inputs) {
      const model::ValueId value = graph_.inputs[i].value;
      batch.values[value] = data_ ? data_->training(i, step * samples, samples) : make_up_value(graph_, value, samples);
    }
    local.fill_received(batch);
    return batch;
  }

  Result<Pass> run_pass(LocalModel& local, int first, int end, std::int64_t samples, std::int64_t step) {
    const double processor = thread_processor_time().value;
    Pass pass;
    pass.blocks.resize(static_cast<std::size_t>(end - first));
    MicroBatch batch = make_batch(local, samples, step);
    COX_TRY(const std::vector<double> counts, local.runner().count(batch));
    for (int b = first; b < end; ++b) {
      BlockPass& block = pass.blocks[b - first];
      const Bytes before = memory_in_use();
      reset_memory_peak();
      const double start = seconds_now();
      COX_TRY_VOID(local.runner().forward(batch, b, b + 1));
      block.forward = seconds_now() - start;
      block.squared_load_cv = load_.take_squared_cv();
      const Bytes after = memory_in_use();
      block.saved = std::max<std::int64_t>(0, (after - before).value);
      block.transient = (memory_peak() - std::max(before, after)).value;
    }
    COX_TRY_VOID(local.fill_gradients(batch, counts));
    for (int b = end - 1; b >= first; --b) {
      BlockPass& block = pass.blocks[b - first];
      const Bytes before = memory_in_use();
      reset_memory_peak();
      const double start = seconds_now();
      COX_TRY_VOID(local.runner().backward(batch, b, b + 1));
      block.backward = seconds_now() - start;
      block.transient = std::max(block.transient, (memory_peak() - before).value);
    }
    for (const BlockPass& block : pass.blocks) pass.total += block.forward + block.backward;
    pass.processor = thread_processor_time().value - processor;
    return pass;
  }

  /// Appends passes for `budget` and until every rank has had its own.
  Result<void> add_passes(LocalModel& local, int first, int end, std::int64_t samples, Seconds budget,
                          std::vector<Pass>& passes) {
    COX_TRY_VOID(local.lower(samples));
    local.store().begin_step();
    COX_TRY_VOID(meet());
    const double warm = thread_processor_time().value + kWarmupSeconds;
    const bool is_long = !passes.empty() && passes.back().processor > kWarmupSeconds;
    while (!is_long && thread_processor_time().value < warm)
      COX_TRY_VOID(run_pass(local, first, end, samples, step_++));
    const double deadline = seconds_now() + budget.value;
    const std::size_t most = passes.size() + kMaxPasses;
    const auto add_pass = [&]() -> Result<void> {
      COX_TRY(Pass pass, run_pass(local, first, end, samples, step_++));
      passes.push_back(std::move(pass));
      return {};
    };
    do COX_TRY_VOID(add_pass());
    while (passes.size() < most && seconds_now() < deadline);
    // A slower device still measures: were this one idle meanwhile, that one would have caches and memory to itself.
    collective::Handle all_have_enough = start_barrier_();
    while (!all_have_enough.done()) COX_TRY_VOID(add_pass());
    return all_have_enough.wait(Deadline::never());
  }

  const model::ModelGraph& graph_;
  const TrainSettings& settings_;

 private:
  const StartBarrier& start_barrier_;
  ExpertLoadWatch load_;
  std::optional<TrainingData> data_;
  std::int64_t step_ = 0;  // of the data and of dropout
};

/// Mean over the middle half of `passes` by total time: an average, not a median of each block, because a device with a
/// share of a core works in bursts and only sums over bursts add up.
Pass average(std::vector<Pass> passes) {
  std::sort(passes.begin(), passes.end(), [](const Pass& a, const Pass& b) { return a.total < b.total; });
  const std::size_t from = passes.size() / 4, to = std::max(from + 1, passes.size() - passes.size() / 4);
  Pass mean = passes[from];
  for (std::size_t i = from + 1; i < to; ++i)
    for (std::size_t b = 0; b < mean.blocks.size(); ++b) {
      mean.blocks[b].forward += passes[i].blocks[b].forward;
      mean.blocks[b].backward += passes[i].blocks[b].backward;
      mean.blocks[b].squared_load_cv += passes[i].blocks[b].squared_load_cv;
    }
  for (BlockPass& block : mean.blocks) {
    block.forward /= static_cast<double>(to - from);
    block.backward /= static_cast<double>(to - from);
    block.squared_load_cv /= static_cast<double>(to - from);
  }
  return mean;
}

bool fits_whole(const model::ModelGraph& graph, plan::Precision precision) {
  double bytes = 0;
  for (const model::Parameter& parameter : graph.parameters) {
    double count = 1;
    for (const std::int64_t dim : parameter.dims) count *= static_cast<double>(dim);
    // Value, gradient, two moments; in mixed precision the copy that is computed with.
    bytes += (plan::is_mixed(precision) ? 18 : 16) * count;
  }
  const double available = static_cast<double>(sysconf(_SC_AVPHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  return bytes < kWholeModelFraction * available;
}

/// Runs of blocks that are timed together: the whole model, or one of each signature.
std::vector<std::pair<int, int>> runs_of(const model::ModelGraph& graph, plan::Precision precision) {
  if (fits_whole(graph, precision)) return {{0, graph.num_blocks()}};
  std::vector<std::pair<int, int>> runs;
  std::vector<std::string> seen;
  for (int b = 0; b < graph.num_blocks(); ++b) {
    if (std::find(seen.begin(), seen.end(), graph.blocks[b].signature) != seen.end()) continue;
    seen.push_back(graph.blocks[b].signature);
    runs.emplace_back(b, b + 1);
  }
  return runs;
}

/// Mean seconds of `body`, repeated for a while.
template <class Body>
Seconds time_repeated(Body&& body) {
  body();
  int repetitions = 0;
  const double start = seconds_now();
  double elapsed = 0;
  while (repetitions < 3 || elapsed < kRateSeconds) {
    body();
    ++repetitions;
    elapsed = seconds_now() - start;
  }
  return Seconds(elapsed / repetitions);
}

/// Does nothing, so that what an executor takes per action can be timed.
class IdleCompute final : public executor::Compute {
 public:
  Result<void> start(const plan::Action&) override { return {}; }
  Result<bool> finished() override { return true; }
  Result<executor::Communication> prepare(const plan::Action&) override { return executor::Communication{}; }
  Result<void> finish(const plan::Action&) override { return {}; }
};

Result<Seconds> measure_action_overhead() {
  plan::RankProgram program;
  for (int i = 0; i < kOverheadActions; ++i) {
    program.actions.push_back({plan::ActionKind::Forward, i, 0, 0, -1});
    program.streams.push_back(plan::Stream::Compute);
    program.waits_for.push_back(i > 0 ? std::vector<int>{i - 1} : std::vector<int>{});
  }
  IdleCompute compute;
  executor::Executor executor(program, compute, {}, steady_clock());
  executor.begin_step();
  const double start = seconds_now();
  while (!executor.done())
    COX_TRY_VOID([&]() -> Result<void> {
      auto moved = executor.advance(Deadline::never());
      if (!moved) return moved.error();
      return {};
    }());
  return Seconds((seconds_now() - start) / kOverheadActions);
}

Result<cluster::Profile::DeviceRates> measure_device(LocalModel& local, Profiler& profiler,
                                                     const std::string& device_class, std::int64_t samples,
                                                     Bytes constants) {
  cluster::Profile::DeviceRates rates;
  rates.device_class = device_class;
  const auto elements = static_cast<double>(std::max<std::int64_t>(1, local.store().num_elements()));
  local.store().complete_gradient(0);
  OptimizerSettings idle = profiler.settings_.optimizer;
  idle.weight_decay = 0;  // and no learning rate: the weights stay, the work is the same
  rates.optimizer_per_parameter = time_repeated([&] { local.store().update(idle, 0.0, 0.5, 1); }) / elements;
  rates.norm_per_parameter = time_repeated([&] { static_cast<void>(local.store().squared_norm()); }) / elements;
  rates.step_overhead = time_repeated([&] { static_cast<void>(profiler.make_batch(local, samples, 0)); });
  COX_TRY(rates.action_overhead, measure_action_overhead());
  rates.base_memory = constants;
  return rates;
}

Result<cluster::Profile> profile(const model::ModelGraph& graph, const std::vector<std::int64_t>& samples,
                                 const std::string& device_class, const TrainSettings& settings, Seconds budget,
                                 const StartBarrier& start_barrier) {
  cluster::Profile result;
  result.model_hash = model::model_hash(graph);
  result.precision = plan::to_text(settings.precision);
  Profiler profiler(graph, settings, start_barrier);
  COX_TRY_VOID(profiler.open_data());
  const auto runs = runs_of(graph, settings.precision);
  const Seconds point_budget = budget / static_cast<double>(std::max<std::size_t>(1, runs.size() * samples.size()));
  for (const auto& [first, end] : runs) {
    COX_TRY(LocalModel local, LocalModel::make(graph, first, end, settings.seed, true, settings.precision));
    std::vector<std::vector<Pass>> passes(samples.size());
    for (int round = 0; round < kRounds; ++round)
      for (std::size_t i = 0; i < samples.size(); ++i)
        COX_TRY_VOID(profiler.add_passes(local, first, end, samples[i], point_budget / kRounds, passes[i]));
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const std::int64_t count = samples[i];
      const Pass pass = average(std::move(passes[i]));
      std::map<std::string, std::pair<cluster::BlockTiming, int>> by_signature;
      for (int b = first; b < end; ++b) {
        auto& [timing, blocks] = by_signature[graph.blocks[b].signature];
        const BlockPass& block = pass.blocks[b - first];
        timing.forward += Seconds(block.forward);
        timing.backward += Seconds(block.backward);
        timing.expert_load_cv = std::max(0.0, timing.expert_load_cv) + block.squared_load_cv;
        timing.saved = std::max(timing.saved, Bytes(block.saved));
        timing.transient = std::max(timing.transient, Bytes(block.transient));
        ++blocks;
      }
      for (auto& [signature, entry] : by_signature) {
        auto& [timing, blocks] = entry;
        timing.signature = signature;
        timing.device_class = device_class;
        timing.samples = count;
        timing.forward = timing.forward / static_cast<double>(blocks);
        timing.backward = timing.backward / static_cast<double>(blocks);
        const double squared = timing.expert_load_cv / static_cast<double>(blocks);
        timing.expert_load_cv = squared > 0 ? std::sqrt(squared) : -1;
        result.blocks.push_back(timing);
      }
    }
    if (!result.devices.empty() || samples.empty()) continue;
    const Bytes before = memory_in_use();
    COX_TRY_VOID(local.lower(samples.front()));
    COX_TRY_VOID(profiler.meet());
    COX_TRY(auto rates, measure_device(local, profiler, device_class, samples.back(),
                                       std::max(Bytes(0), memory_in_use() - before)));
    result.devices.push_back(std::move(rates));
  }
  std::sort(result.blocks.begin(), result.blocks.end(), [](const auto& a, const auto& b) {
    return std::tie(a.signature, a.device_class, a.samples) < std::tie(b.signature, b.device_class, b.samples);
  });
  return result;
}

}  // namespace

Result<cluster::Profile> profile_blocks(const model::ModelGraph& graph, const std::vector<std::int64_t>& samples,
                                        const std::string& device_class, const TrainSettings& settings, Seconds budget,
                                        const StartBarrier& start_barrier) {
  set_up_libtorch(settings.threads);
  return guard_torch("profile", [&] { return profile(graph, samples, device_class, settings, budget, start_barrier); });
}

}  // namespace coxswain::worker
