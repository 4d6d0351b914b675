// The engine as the executor sees it: each action of the rank's program on stage_runner, parameter_store, edge_buffers.
#include "worker/engine/engine.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "common/ensure.h"
#include "worker/engine/caching_allocator.h"
#include "worker/engine/chunk.h"
#include "worker/engine/inputs.h"
#include "worker/engine/learning_rate.h"
#include "worker/engine/stage_runner.h"

namespace coxswain::worker {
namespace {

using collective::BufferView;
using executor::Communication;
using model::ValueId;
using plan::Action;
using plan::ActionKind;

/// torch.nn.utils.clip_grad_norm_ adds it to the norm that it divides by.
constexpr double kClipEpsilon = 1e-6;

Result<void> check_supported(const plan::Plan& plan) {
  std::vector<Error> problems;
  const auto refuse = [&](bool set, const std::string& path, const char* what) {
    if (set)
      problems.push_back({ErrorCode::Unimplemented, std::string("this version cannot run ") + what, path, "", "", ""});
  };
  refuse(plan.precision == plan::Precision::BFloat16 && !plan::kRunnable.bfloat16, "precision", "bfloat16");
  refuse(!plan::has_schedule(plan::kRunnable, plan.schedule), "schedule", "this schedule");
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const plan::Stage& stage = plan.stages[s];
    const std::string path = "stages[" + std::to_string(s) + "]";
    refuse(stage.zero_stage != 0, path + ".zero_stage", "ZeRO");
    refuse(stage.offload != plan::Offload::None, path + ".offload", "offload");
    refuse(std::count(stage.recompute.begin(), stage.recompute.end(), plan::Recompute::Selective) > 0,
           path + ".recompute", "selective recompute");
    for (const plan::Replica& replica : stage.replicas)
      refuse(replica.devices.size() != 1, path + ".replicas", "tensor, context or expert parallelism");
  }
  if (problems.empty()) return {};
  return combine_errors(ErrorCode::Unimplemented, "the plan holds what this version cannot run", std::move(problems));
}

class TorchEngine final : public Engine {
  using Key = std::pair<int, int>;  // chunk, micro-batch
  static Key key_of(const Action& action) { return {action.chunk, action.micro_batch}; }

 public:
  TorchEngine(const EngineOptions& options)
      : graph_(*options.graph),
        plan_(*options.plan),
        settings_(options.settings),
        communicators_(options.communicators),
        rank_(options.rank),
        place_(plan::place_of(plan_, rank_)),
        stage_(plan_.stages[place_.stage]),
        samples_(stage_.replicas[place_.replica].samples),
        groups_(plan::make_groups(plan_, graph_)),
        tied_(plan::tied_parameters(plan_, graph_)),
        edges_(graph_, samples_, plan_.precision) {}

  Result<void> open() {
    COX_TRY_VOID(check_batch());
    COX_TRY(weights_, open_weights());
    COX_TRY_VOID(open_data());
    COX_TRY_VOID(make_store());
    COX_TRY(chunks_, make_chunks(graph_, plan_, groups_, rank_, *weights_, *store_));
    return {};
  }

  Result<void> begin_step(std::int64_t step) override {
    evaluating_ = false;
    step_ = step;
    store_->begin_step();
    begin_pass();
    return {};
  }

  Result<StepNumbers> end_step() override {
    drop_micro_batches();
    return StepNumbers{step_, reduced_loss(), std::sqrt(reduced_[0]),
                       learning_rate_of(settings_.optimizer, step_, settings_.steps), memory_peak()};
  }

  Result<void> begin_evaluation(std::int64_t index) override {
    if (index < 0 || index >= settings_.data.validation_steps) {
      return Error{ErrorCode::OutOfRange, "no such validation batch",
                   "validation.steps",    "0 to " + std::to_string(settings_.data.validation_steps - 1),
                   std::to_string(index), ""};
    }
    evaluating_ = true;
    evaluation_ = index;
    begin_pass();
    return {};
  }

  Result<double> end_evaluation() override {
    drop_micro_batches();
    evaluating_ = false;
    return reduced_loss();
  }

  Bytes peak_memory() const override { return memory_peak(); }

  Result<std::vector<float>> read_parameter(const std::string& name) const override {
    for (std::size_t p = 0; p < graph_.parameters.size(); ++p) {
      const model::Parameter& parameter = graph_.parameters[p];
      const bool named =
          parameter.name == name || std::count(parameter.tied_names.begin(), parameter.tied_names.end(), name) > 0;
      if (!named || !store_->has(static_cast<int>(p))) continue;
      const at::Tensor& leaf = store_->leaf(static_cast<int>(p));
      const float* data = leaf.const_data_ptr<float>();
      return std::vector<float>(data, data + leaf.numel());
    }
    return Error{ErrorCode::NotFound, "this rank holds no such parameter", name, "", "", ""};
  }

  Result<void> start(const Action& action) override {
    return guard_torch(to_text(action), [&]() -> Result<void> {
      switch (action.kind) {
        case ActionKind::Forward: return run_forward(action);
        case ActionKind::Backward:
        case ActionKind::BackwardInput: return run_backward(action);
        case ActionKind::BackwardWeight: return run_weights(action);
        case ActionKind::CountLoss: return count_loss();
        case ActionKind::Optimizer: return run_optimizer();
        default:
          return Error{ErrorCode::Unimplemented, "this version cannot run the action", to_text(action), "", "", ""};
      }
    });
  }

  Result<bool> finished() override { return true; }

  Result<Communication> prepare(const Action& action) override {
    return guard_torch(to_text(action), [&]() -> Result<Communication> {
      Communication communication;
      communication.group = plan::group_of(plan_, groups_, place_.stage, action);
      COX_TRY_VOID(fill(action, communication));
      if (communication.group < 0) communication.kind = Communication::Kind::None;
      return communication;
    });
  }

  Result<void> finish(const Action& action) override {
    return guard_torch(to_text(action), [&]() -> Result<void> {
      complete(action);
      return {};
    });
  }

 private:
  // A batch that the export baked in is run as it is.
  [[nodiscard]] Result<void> check_batch() const {
    if (!graph_.batch_symbol.empty() || samples_ == graph_.static_batch) return {};
    return Error{ErrorCode::InvalidArgument,
                 "the model was exported with a fixed batch",
                 "stages[" + std::to_string(place_.stage) + "].replicas.samples",
                 std::to_string(graph_.static_batch),
                 std::to_string(samples_),
                 "export it with a dynamic batch, or use micro-batches of that size"};
  }

  Result<std::optional<WeightSource>> open_weights() const {
    COX_TRY(WeightSource source, WeightSource::open(graph_, settings_.seed));
    return std::optional<WeightSource>(std::move(source));
  }

  Result<void> open_data() {
    if (settings_.data.text.empty())
      return Error{ErrorCode::FailedPrecondition, "no training text", "data.text", "a file", "", ""};
    COX_TRY(roles_, input_roles(graph_, settings_.data.sequence_length));
    COX_TRY(TextData data, TextData::open(settings_.data, settings_.data.validation_steps * plan_.batch.global));
    data_ = std::move(data);
    return {};
  }

  // One storage a bucket (its parameters: those whose lowest block of this stage lies in it, since their gradient is
  // whole only then), then one a tied parameter of this stage. Copies of a tied parameter stay equal to the bit without
  // being sent: all start from the same weights; REDUCE_TIED and REDUCE_NORM leave the same bits on every rank
  // (Communicator::all_reduce promises it); and the update goes element by element, by the same instructions for every
  // element and any number of threads, since a storage has a multiple of any vector's length. Processors with other
  // vector instructions may round otherwise (docs/adr/0007).
  Result<void> make_store() {
    std::vector<int> starts = stage_.bucket_starts;
    if (starts.empty()) starts = {stage_.first_block};
    std::vector<StorageSpec> specs(starts.size());
    for (std::size_t b = 0; b < starts.size(); ++b) {
      bucket_of_start_[starts[b]] = static_cast<int>(b);
      specs[b].allocate_gradient = gradient_allocator(
          {ActionKind::ReduceGradient, -1, starts[b], b == 0 ? stage_.end_block : starts[b - 1], -1});
    }
    for (const int p : parameters_of_stage()) {
      if (!graph_.parameters[p].trainable || tied_index(p) >= 0) continue;
      const auto users = model::blocks_using(graph_, p);
      const int lowest =
          *std::find_if(users.begin(), users.end(), [&](int b) { return plan::position_of(stage_, b) >= 0; });
      for (std::size_t b = 0; b < starts.size(); ++b) {
        if (lowest < starts[b]) continue;
        specs[b].parameters.push_back(p);
        break;
      }
    }
    storage_of_tied_.assign(tied_.size(), -1);
    for (std::size_t t = 0; t < tied_.size(); ++t) {
      const auto& stages = tied_[t].stages;
      if (std::find(stages.begin(), stages.end(), place_.stage) == stages.end()) continue;
      storage_of_tied_[t] = static_cast<int>(specs.size());
      specs.push_back({{tied_[t].parameter},
                       stages.front() == place_.stage,
                       gradient_allocator({ActionKind::ReduceTied, -1, -1, -1, static_cast<int>(t)})});
    }
    COX_TRY(ParameterStore store, ParameterStore::make(graph_, *weights_, std::move(specs), true, plan_.precision));
    store_ = std::move(store);
    return {};
  }

  // Each once, though several chunks use it.
  [[nodiscard]] std::vector<int> parameters_of_stage() const {
    std::vector<int> all;
    for (const plan::BlockRun& run : plan::runs_of(stage_))
      for (const int p : model::slice_stage(graph_, run.first_block, run.end_block).parameters)
        if (std::find(all.begin(), all.end(), p) == all.end()) all.push_back(p);
    return all;
  }

  [[nodiscard]] int tied_index(int parameter) const {
    for (std::size_t t = 0; t < tied_.size(); ++t)
      if (tied_[t].parameter == parameter) return static_cast<int>(t);
    return -1;
  }

  // Gradients that travel live where the backend need not copy them.
  [[nodiscard]] std::function<Result<std::shared_ptr<void>>(Bytes)> gradient_allocator(const Action& action) const {
    const int group = plan::group_of(plan_, groups_, place_.stage, action);
    if (group < 0 || static_cast<std::size_t>(group) >= communicators_.size()) return {};
    collective::Communicator* communicator = communicators_[group];
    if (!communicator || communicator->size() == 1 || !communicator->capabilities().registered_buffers) return {};
    return [communicator](Bytes bytes) { return communicator->allocate_registered(bytes); };
  }

  void drop_micro_batches() {
    micro_batches_.clear();
    owed_.clear();
  }

  void begin_pass() {
    drop_micro_batches();
    numerators_.assign(graph_.loss.size(), 0);
    local_counts_.assign(graph_.loss.size(), 0);
    global_counts_ = local_counts_;
    reduced_.assign(1 + 2 * graph_.loss.size(), 0);
  }

  [[nodiscard]] std::int64_t first_sample(int micro_batch) const {
    return micro_batch * plan_.batch.micro + plan::first_sample(stage_, place_.replica);
  }

  MicroBatch make_micro_batch(const Chunk& chunk, int micro_batch, bool training) {
    RunMode mode;
    mode.training = training;
    mode.running_statistics = evaluating_;
    mode.dropout = training && settings_.dropout;
    mode.seed = settings_.seed;
    mode.step = step_;
    mode.first_sample = first_sample(micro_batch);
    MicroBatch batch = chunk.runner->make_micro_batch(mode);
    const auto window = [&](std::int64_t i) {
      const std::int64_t sample = mode.first_sample + i;
      return evaluating_ ? data_->validation_window(evaluation_ * plan_.batch.global + sample)
                         : data_->training_window((step_ - 1) * plan_.batch.global + sample);
    };
    for (const int i : chunk.runner->stage().slice.inputs)
      batch.values[graph_.inputs[i].value] = make_text_input(roles_[i], samples_, data_->sequence_length(), window);
    return batch;
  }

  MicroBatch& micro_batch(const Key& key) {
    const auto found = micro_batches_.find(key);
    if (found != micro_batches_.end()) return found->second;
    return micro_batches_.emplace(key, make_micro_batch(chunks_[key.first], key.second, !evaluating_)).first->second;
  }

  Result<void> run_forward(const Action& action) {
    Chunk& chunk = chunks_[action.chunk];
    MicroBatch& batch = micro_batch(key_of(action));
    if (evaluating_ && action.first_block == chunk.run.first_block) COX_TRY_VOID(add_counts(chunk, batch));
    COX_TRY_VOID(chunk.runner->forward(batch, action.first_block, action.end_block));
    for (const int t : chunk.runner->stage().terms) {
      at::Tensor& numerator = batch.values[graph_.loss[t].numerator];
      if (!numerator.defined()) continue;
      // A mean over samples counts as often as it has samples.
      numerators_[t] +=
          numerator.item().toDouble() * (graph_.loss[t].denominator ? 1.0 : static_cast<double>(samples_));
      numerator.reset();
      if (!evaluating_ && !std::isfinite(numerators_[t])) return not_finite("the loss is", numerators_[t]);
    }
    if (action.end_block != chunk.run.end_block) return {};
    if (chunk.after >= 0) {
      MicroBatch& next = micro_batch({chunk.after, action.micro_batch});
      for (const ValueId v : chunk.activation_out.values) next.values[v] = chunk.runner->take_sent(batch, v);
    }
    // In evaluation nothing comes back.
    if (evaluating_ && chunk.activation_out.transfers.empty()) micro_batches_.erase(key_of(action));
    return {};
  }

  Result<void> add_counts(const Chunk& chunk, MicroBatch& batch) {
    const auto& terms = chunk.runner->stage().terms;
    if (terms.empty()) return {};
    COX_TRY(const std::vector<double> counts, chunk.runner->count(batch));
    for (std::size_t i = 0; i < terms.size(); ++i)
      local_counts_[terms[i]] += graph_.loss[terms[i]].denominator ? counts[i] : static_cast<double>(samples_);
    return {};
  }

  Result<void> count_loss() {
    for (const Chunk& chunk : chunks_) {
      for (int m = 0; m < plan_.batch.count && !chunk.runner->stage().terms.empty(); ++m) {
        MicroBatch batch = make_micro_batch(chunk, m, false);
        COX_TRY_VOID(add_counts(chunk, batch));
      }
    }
    global_counts_ = local_counts_;
    return {};
  }

  // Gradients of the loss terms that the chunk makes, once.
  void seed_loss(const Chunk& chunk, MicroBatch& batch) const {
    if (batch.seeded) return;
    for (const int t : chunk.runner->stage().terms) {
      const model::LossTerm& term = graph_.loss[t];
      const double share = term.denominator ? 1.0 / global_counts_[t]
                                            : static_cast<double>(samples_) / static_cast<double>(plan_.batch.global);
      const auto options = options_of(graph_.values[term.numerator].dtype);
      StageRunner::add_gradient(
          batch, term.numerator,
          at::full(sizes_of(graph_, term.numerator, samples_), term.coefficient * share, options));
    }
    batch.seeded = true;
  }

  /// B, or I, which leaves what W needs behind.
  Result<void> run_backward(const Action& action) {
    Chunk& chunk = chunks_[action.chunk];
    const Key key = key_of(action);
    MicroBatch& batch = micro_batch(key);
    seed_loss(chunk, batch);
    if (action.kind == ActionKind::BackwardInput) {
      COX_TRY_VOID(chunk.runner->backward_inputs(batch, action.first_block, action.end_block));
    } else {
      COX_TRY_VOID(chunk.runner->backward(batch, action.first_block, action.end_block));
    }
    if (action.first_block != chunk.run.first_block) return {};
    if (action.kind == ActionKind::BackwardInput) owed_[key] = std::move(batch.owed);
    if (chunk.before >= 0) {
      MicroBatch& previous = micro_batch({chunk.before, action.micro_batch});
      for (const ValueId v : chunk.gradient_out.values)
        if (batch.gradients[v].defined()) StageRunner::add_gradient(previous, v, std::move(batch.gradients[v]));
    }
    if (chunk.gradient_out.transfers.empty()) micro_batches_.erase(key);
    return {};
  }

  Result<void> run_weights(const Action& action) {
    const Chunk& chunk = chunks_[action.chunk];
    const auto owed = owed_.find(key_of(action));
    COX_ENSURE(owed != owed_.end(), to_text(action));
    COX_TRY_VOID(chunk.runner->backward_weights(owed->second, action.first_block, action.end_block));
    if (action.first_block == chunk.run.first_block) owed_.erase(owed);
    return {};
  }

  // A number that is not finite ends the run before it reaches a parameter on any rank: the one that has it does not
  // come to the commit point.
  [[nodiscard]] Error not_finite(const std::string& what, double value) const {
    return Error{ErrorCode::Internal,
                 what + " not finite at step " + std::to_string(step_) + " on rank " + std::to_string(rank_),
                 "step " + std::to_string(step_),
                 "a finite number",
                 std::to_string(value),
                 "lower optimizer.learning_rate, clip gradients (optimizer.clip_grad_norm), or look at the data"};
  }

  Result<void> run_optimizer() {
    const double norm = std::sqrt(reduced_[0]), limit = settings_.optimizer.clip_grad_norm;
    const double scale = limit > 0 ? std::min(1.0, limit / (norm + kClipEpsilon)) : 1.0;
    store_->update(settings_.optimizer, learning_rate_of(settings_.optimizer, step_, settings_.steps), scale, step_);
    return {};
  }

  Result<void> fill(const Action& action, Communication& communication) {
    switch (action.kind) {
      case ActionKind::SendActivation:
      case ActionKind::ReceiveActivation:
      case ActionKind::SendGradient:
      case ActionKind::ReceiveGradient:
        communication.kind = Communication::Kind::Exchange;
        communication.transfers = exchange(action);
        return {};
      default: break;
    }
    communication.kind = Communication::Kind::AllReduce;
    if (action.kind == ActionKind::ReduceLossCount) {
      global_counts_ = local_counts_;
      communication.buffer = {global_counts_.data(), static_cast<std::int64_t>(global_counts_.size()), DType::Float64};
    } else if (action.kind == ActionKind::ReduceNorm) {
      COX_TRY_VOID(fill_norm());
      communication.buffer = {reduced_.data(), static_cast<std::int64_t>(reduced_.size()), DType::Float64};
    } else {
      const int storage = action.kind == ActionKind::ReduceTied ? storage_of_tied_[action.tied]
                                                                : bucket_of_start_.at(action.first_block);
      store_->complete_gradient(storage);
      communication.buffer = view(store_->gradient(storage));
    }
    return {};
  }

  static BufferView view(const at::Tensor& tensor) { return {tensor.data_ptr(), tensor.numel(), DType::Float32}; }

  // The step's commit point: squared norm of gradients (each once), then numerator and denominator of every term.
  Result<void> fill_norm() {
    reduced_.assign(reduced_.size(), 0);
    if (!evaluating_) {
      for (int s = 0; s < store_->num_storages(); ++s) store_->complete_gradient(s);
      if (place_.replica == 0 && place_.position == 0) reduced_[0] = store_->squared_norm();
      if (!std::isfinite(reduced_[0])) return not_finite("the gradients are", reduced_[0]);
    }
    if (place_.position != 0) return {};
    // Without denominators nothing is counted in training.
    const double samples = static_cast<double>(samples_) * static_cast<double>(plan_.batch.count);
    for (const Chunk& chunk : chunks_) {
      for (const int t : chunk.runner->stage().terms) {
        reduced_[1 + 2 * t] = numerators_[t];
        reduced_[2 + 2 * t] = graph_.loss[t].denominator ? local_counts_[t] : samples;
      }
    }
    return {};
  }

  [[nodiscard]] double reduced_loss() const {
    double loss = 0;
    for (std::size_t t = 0; t < graph_.loss.size(); ++t)
      loss += graph_.loss[t].coefficient * reduced_[1 + 2 * t] / reduced_[2 + 2 * t];
    return loss;
  }

  std::vector<collective::PointToPoint> exchange(const Action& action) {
    const Chunk& chunk = chunks_[action.chunk];
    if (action.kind == ActionKind::ReceiveActivation) return edges_.receive(action, chunk.activation_in);
    if (action.kind == ActionKind::ReceiveGradient) return edges_.receive(action, chunk.gradient_in);
    MicroBatch& batch = micro_batch(key_of(action));
    std::vector<at::Tensor> tensors;
    if (action.kind == ActionKind::SendActivation) {
      for (const ValueId v : chunk.activation_out.values) tensors.push_back(chunk.runner->take_sent(batch, v));
      return edges_.send(action, chunk.activation_out, tensors, false);
    }
    for (const ValueId v : chunk.gradient_out.values) {
      at::Tensor gradient = std::move(batch.gradients[v]);
      tensors.push_back(gradient.defined() ? gradient
                                           : at::zeros(sizes_of(graph_, v, samples_),
                                                       options_of(stored_dtype(graph_, v, plan_.precision))));
    }
    micro_batches_.erase(key_of(action));
    return edges_.send(action, chunk.gradient_out, tensors, true);
  }

  void complete(const Action& action) {
    const Chunk& chunk = chunks_[action.chunk];
    const Key key = key_of(action);
    if (action.kind == ActionKind::SendActivation || action.kind == ActionKind::SendGradient) {
      edges_.drop(action);
      // In evaluation nothing comes back.
      if (evaluating_) micro_batches_.erase(key);
    } else if (action.kind == ActionKind::ReceiveActivation) {
      auto tensors = edges_.take(action, chunk.activation_in, false);
      MicroBatch& batch = micro_batch(key);
      for (std::size_t i = 0; i < tensors.size(); ++i)
        batch.values[chunk.activation_in.values[i]] = std::move(tensors[i]);
    } else if (action.kind == ActionKind::ReceiveGradient) {
      auto tensors = edges_.take(action, chunk.gradient_in, true);
      for (std::size_t i = 0; i < tensors.size(); ++i)
        StageRunner::add_gradient(micro_batch(key), chunk.gradient_in.values[i], std::move(tensors[i]));
    }
  }

  const model::ModelGraph& graph_;
  const plan::Plan& plan_;
  const TrainSettings settings_;
  const std::vector<collective::Communicator*> communicators_;
  const int rank_;
  const plan::RankPlace place_;
  const plan::Stage& stage_;
  const std::int64_t samples_;
  const std::vector<plan::Group> groups_;
  const std::vector<plan::TiedParameter> tied_;

  std::optional<WeightSource> weights_;
  std::optional<TextData> data_;
  std::vector<InputRole> roles_;
  std::optional<ParameterStore> store_;
  std::vector<Chunk> chunks_;
  std::map<int, int> bucket_of_start_;
  std::vector<int> storage_of_tied_;
  EdgeBuffers edges_;

  bool evaluating_ = false;
  std::int64_t step_ = 0, evaluation_ = 0;
  std::map<Key, MicroBatch> micro_batches_;
  std::map<Key, std::vector<WeightWork>> owed_;                    // by I to W
  std::vector<double> numerators_, local_counts_, global_counts_;  // by loss term
  std::vector<double> reduced_;                                    // buffer of ReduceNorm
};

}  // namespace

Result<std::unique_ptr<Engine>> make_engine(const EngineOptions& options) {
  install_caching_allocator();
  at::set_num_threads(options.settings.threads);
  reset_memory_peak();
  COX_TRY_VOID(check_supported(*options.plan));
  return guard_torch("", [&]() -> Result<std::unique_ptr<Engine>> {
    auto engine = std::make_unique<TorchEngine>(options);
    COX_TRY_VOID(engine->open());
    return std::unique_ptr<Engine>(std::move(engine));
  });
}

std::vector<std::string> operators_without_kernel(const model::ModelGraph& graph) {
  std::vector<std::string> missing;
  for (const model::Op& op : graph.ops)
    if (!has_kernel(op.target) && std::find(missing.begin(), missing.end(), op.target) == missing.end())
      missing.push_back(op.target);
  return missing;
}

}  // namespace coxswain::worker
