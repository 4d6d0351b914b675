// The engine as the executor sees it: each action of the rank's program on stage_runner, parameter_store, edge_buffers.
#include "worker/engine/engine.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "common/ensure.h"
#include "worker/engine/caching_allocator.h"
#include "worker/engine/chunk.h"
#include "worker/engine/expert_tokens.h"
#include "worker/engine/learning_rate.h"
#include "worker/engine/libtorch_setup.h"
#include "worker/engine/loss_sums.h"
#include "worker/engine/mesh_setup.h"
#include "worker/engine/saved_state.h"
#include "worker/engine/stage_runner.h"
#include "worker/engine/stage_storages.h"
#include "worker/engine/step_filter.h"
#include "worker/engine/storage_traffic.h"
#include "worker/engine/training_data.h"
#include "worker/engine/transitions.h"
#include "worker/engine/zero_stage.h"

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
  const std::vector<std::string> beyond = plan::list_beyond(plan, plan::kRunnable);
  if (beyond.empty()) return {};
  std::string words;
  for (const std::string& word : beyond) words += (words.empty() ? "" : ", ") + word;
  return Error{ErrorCode::Unimplemented, "this version cannot run " + words, "plan", "", "", "launch plan --runnable"};
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
        step_timeout_(options.step_timeout),
        localise_(options.localise ? options.localise : own_layout()),
        edges_(graph_, plan_.precision),
        filter_(plan_.precision, settings_.optimizer.initial_loss_scale, settings_.optimizer.skip_non_finite),
        sums_(graph_) {}

  /// As a plan's replicas divide experts.
  [[nodiscard]] Localise own_layout() const {
    return [experts = plan::expert_place(stage_, place_.replica)](const auto& graph, const auto& stage,
                                                                  const auto& replica, int position) {
      return plan::localise_stage(graph, stage, replica, position, experts);
    };
  }

  Result<void> open() {
    COX_TRY_VOID(check_batch());
    COX_TRY(mesh_, MeshSetup::make(graph_, plan_, rank_, communicators_, groups_.size(), localise_));
    // Constants of the model may pass through collectives already.
    mesh_->link.deadline = Deadline::after(steady_clock(), step_timeout_);
    COX_TRY(WeightSource weights, WeightSource::open(graph_, settings_.seed));
    weights_ = std::move(weights);
    COX_TRY_VOID(open_data());
    COX_TRY_VOID(make_store());
    tokens_.emplace(mesh_->view);
    COX_TRY(chunks_, make_chunks(mesh_->view, plan_, groups_, rank_, *weights_, *tokens_, *store_));
    uses_ = GatheredUses(plan::make_rank_program(plan_, graph_, rank_).actions);
    evaluation_uses_ = GatheredUses(plan::evaluation_actions(plan_, place_.stage));
    whole_ = find_whole_backwards(plan_, rank_, chunks_);
    return {};
  }

  void ask(bool save, bool stop) override {
    save_asked_ = save;
    stop_asked_ = stop;
  }

  Result<void> begin_step(std::int64_t step) override {
    evaluating_ = false;
    step_ = step;
    skipped_ = false;
    not_finite_.clear();
    loss_scale_ = filter_.loss_scale();
    store_->begin_step();
    begin_pass();
    return {};
  }

  Result<StepNumbers> end_step() override {
    drop_micro_batches();
    return StepNumbers{step_,
                       sums_.loss(),
                       sums_.norm(),
                       learning_rate_of(settings_.optimizer, step_, settings_.steps),
                       memory_peak(),
                       skipped_,
                       not_finite_,
                       filter_.scales() ? loss_scale_ : 0,
                       sums_.expert_tokens(),
                       sums_.asks_save(),
                       sums_.asks_stop()};
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
    return sums_.loss();
  }

  Bytes peak_memory() const override { return memory_peak(); }

  Result<ParameterPart> read_part(const std::string& name) const override {
    return worker::read_part(graph_, mesh_->view, *store_, name);
  }

  Result<std::vector<float>> read_parameter(const std::string& name) const override {
    return worker::read_parameter(graph_, mesh_->view, *store_, name);
  }

  std::vector<checkpoint::Piece> pieces() const override { return pieces_of(graph_, mesh_->view, *store_); }

  std::vector<checkpoint::Piece> held_pieces() const override { return held_pieces_of(graph_, mesh_->view, *store_); }

  std::vector<checkpoint::PieceState> copy_state(const std::vector<checkpoint::Piece>& pieces) const override {
    return worker::copy_state(graph_, *store_, pieces);
  }

  checkpoint::Progress progress() const override {
    const StepFilter::State& filter = filter_.state();
    return {taken_,
            taken_ * plan_.batch.global,
            filter.scale,
            filter.good_steps,
            filter.num_skipped,
            filter.skipped_in_a_row};
  }

  HeldState hold_state() const override {
    auto memory = std::make_shared<std::vector<at::Tensor>>();
    auto views = view_state(graph_, mesh_->view, *store_, *memory);
    return {progress(), std::move(views), std::move(memory)};
  }

  void reset_peak_memory() override { reset_memory_peak(); }

  Result<void> load_state(const checkpoint::Reader& reader, const checkpoint::Progress& progress) override {
    if (progress.next_sample != progress.step * plan_.batch.global)
      return Error{ErrorCode::InvalidArgument,
                   "the checkpoint is of a run with another global batch",
                   "batch.global",
                   std::to_string(progress.next_sample / std::max<std::int64_t>(progress.step, 1)),
                   std::to_string(plan_.batch.global),
                   "resume with that batch, or start anew with --resume never"};
    return guard_torch("", [&]() -> Result<void> {
      COX_TRY_VOID(worker::load_state(graph_, mesh_->view, *store_, reader));
      filter_.restore(
          {progress.loss_scale, progress.steps_since_scaled, progress.skipped_steps, progress.skipped_in_a_row});
      step_ = taken_ = progress.step;
      return {};
    });
  }

  Result<void> start(const Action& action) override {
    return guard_torch(to_text(action), [&]() -> Result<void> {
      switch (action.kind) {
        case ActionKind::Forward:
        case ActionKind::Backward:
        case ActionKind::BackwardInput:
        case ActionKind::BackwardWeight: return run_blocks(action);
        case ActionKind::CountLoss: return count_loss();
        case ActionKind::Optimizer: return run_optimizer();
        default:
          return Error{ErrorCode::Unimplemented, "this version cannot run the action", to_text(action), "", "", ""};
      }
    });
  }

  Result<void> run_blocks(const Action& action) {
    // ZeRO 3: what the action uses last is let go with it.
    const bool ends = (evaluating_ ? evaluation_uses_ : uses_).ends(action);
    ShardedStorage* const used = ends ? store_->sharded(storages_->of(action)) : nullptr;
    if (used) used->set_last_use(true);
    if (action.kind == ActionKind::Forward) {
      COX_TRY_VOID(run_forward(action));
    } else if (action.kind == ActionKind::BackwardWeight) {
      COX_TRY_VOID(run_weights(action));
    } else {
      COX_TRY_VOID(run_backward(action));
    }
    if (used) {
      used->release();
      used->set_last_use(false);
    }
    return {};
  }

  Result<bool> finished() override { return true; }

  Result<Communication> prepare(const Action& action) override {
    return guard_torch(to_text(action), [&]() -> Result<Communication> {
      Communication communication;
      communication.group = action.kind == ActionKind::ReduceShared ? mesh_->stage_group
                            : action.kind == ActionKind::ReduceExperts
                                ? mesh_->holders_group
                                : plan::group_of(plan_, groups_, place_.stage, action, place_.position);
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

  Result<void> open_data() {
    COX_TRY(TrainingData data,
            TrainingData::open(graph_, settings_.data, settings_.data.validation_steps * plan_.batch.global));
    data_ = std::move(data);
    return {};
  }

  Result<void> make_store() {
    storages_.emplace(StagePlace{graph_, plan_, rank_, groups_, tied_, communicators_, *mesh_});
    COX_TRY(ParameterStore store, ParameterStore::make(mesh_->view.graph(), *weights_, storages_->take_specs(), true,
                                                       plan_.precision, mesh_->view.part ? &mesh_->view : nullptr,
                                                       stage_.offload == plan::Offload::Optimizer));
    store_ = std::move(store);
    return {};
  }

  void drop_micro_batches() {
    micro_batches_.clear();
    owed_.clear();
  }

  void begin_pass() {
    drop_micro_batches();
    uses_.restart();
    evaluation_uses_.restart();
    sums_.restart();
    tokens_->restart();
    mesh_->link.deadline = Deadline::after(steady_clock(), step_timeout_);
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
    const std::int64_t position = (evaluating_ ? evaluation_ : step_ - 1) * plan_.batch.global + mode.first_sample;
    for (const int i : chunk.runner->stage().slice.inputs)
      batch.values[graph_.inputs[i].value] =
          cut_tensor(evaluating_ ? data_->validation(i, position, samples_) : data_->training(i, position, samples_),
                     mesh_->view.cuts_of(graph_.inputs[i].value));
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
      const double sum = sums_.add_numerator(t, numerator.item().toDouble(), samples_);
      numerator.reset();
      if (!evaluating_ && !std::isfinite(sum)) {
        not_finite_ = "the loss is";
        if (filter_.loss_stops()) return not_finite(sum);
      }
    }
    if (action.end_block != chunk.run.end_block) return {};
    if (chunk.after >= 0) {
      MicroBatch& next = micro_batch({chunk.after, action.micro_batch});
      for (const ValueId v : chunk.activation_out.values) next.values[v] = chunk.runner->take_sent(batch, v);
    }
    // In evaluation nothing comes back.
    if (evaluating_ && !chunk.activation_out.exists) micro_batches_.erase(key_of(action));
    return {};
  }

  Result<void> add_counts(const Chunk& chunk, MicroBatch& batch) {
    const auto& terms = chunk.runner->stage().terms;
    if (terms.empty()) return {};
    COX_TRY(const std::vector<double> counts, chunk.runner->count(batch));
    for (std::size_t i = 0; i < terms.size(); ++i) sums_.add_count(terms[i], counts[i], samples_);
    return {};
  }

  Result<void> count_loss() {
    for (const Chunk& chunk : chunks_) {
      for (int m = 0; m < plan_.batch.count && !chunk.runner->stage().terms.empty(); ++m) {
        MicroBatch batch = make_micro_batch(chunk, m, false);
        COX_TRY_VOID(add_counts(chunk, batch));
      }
    }
    // What counts where no other rank has terms.
    static_cast<void>(sums_.begin_counts(true));
    return {};
  }

  // Gradients of the loss terms that the chunk makes, once.
  void seed_loss(const Chunk& chunk, MicroBatch& batch) const {
    if (batch.seeded) return;
    // Every position has the whole loss, and the gradients of what all have add up: one of them begins.
    const bool seeds = place_.position == 0;
    for (const int t : chunk.runner->stage().terms) {
      const model::LossTerm& term = graph_.loss[t];
      const auto options = options_of(graph_.values[term.numerator].dtype);
      StageRunner::add_gradient(
          batch, term.numerator,
          at::full(sizes_of(graph_, term.numerator, samples_),
                   seeds ? sums_.weight(t, samples_, plan_.batch.global) * loss_scale_ : 0.0, options));
    }
    batch.seeded = true;
  }

  /// B, or W of one that is run whole, or I, which leaves what W needs behind.
  Result<void> run_backward(const Action& action) {
    Chunk& chunk = chunks_[action.chunk];
    const Key key = key_of(action);
    const bool splits = action.kind == ActionKind::BackwardInput;
    if (splits && whole_.count(key) != 0) return {};
    MicroBatch& batch = micro_batch(key);
    seed_loss(chunk, batch);
    if (splits) {
      COX_TRY_VOID(chunk.runner->backward_inputs(batch, action.first_block, action.end_block));
    } else {
      COX_TRY_VOID(chunk.runner->backward(batch, action.first_block, action.end_block));
    }
    if (action.first_block != chunk.run.first_block) return {};
    if (splits) owed_[key] = std::move(batch.owed);
    if (chunk.before >= 0) {
      MicroBatch& previous = micro_batch({chunk.before, action.micro_batch});
      for (const ValueId v : chunk.gradient_out.values)
        if (batch.gradients[v].defined()) StageRunner::add_gradient(previous, v, std::move(batch.gradients[v]));
    }
    if (!chunk.gradient_out.exists) micro_batches_.erase(key);
    return {};
  }

  Result<void> run_weights(const Action& action) {
    if (whole_.count(key_of(action)) != 0) return run_backward(action);
    const Chunk& chunk = chunks_[action.chunk];
    const auto owed = owed_.find(key_of(action));
    COX_ENSURE(owed != owed_.end(), to_text(action));
    COX_TRY_VOID(chunk.runner->backward_weights(owed->second, action.first_block, action.end_block));
    if (action.first_block == chunk.run.first_block) owed_.erase(owed);
    return {};
  }

  // A number that is not finite ends the run before it reaches a parameter on any rank: the one that has it does not
  // come to the commit point. Where such steps are skipped it comes there, and with it the number to every rank.
  [[nodiscard]] Error not_finite(double value) const { return filter_.stopped(not_finite_, step_, rank_, value); }

  Result<void> run_optimizer() {
    // What the filter has then is still that of the step before.
    if (!sums_.finite() && filter_.exhausted()) return filter_.too_many(not_finite_, step_, rank_);
    taken_ = step_;
    skipped_ = !filter_.accept(sums_.finite());
    if (skipped_) return {};
    const double norm = sums_.norm(), limit = settings_.optimizer.clip_grad_norm;
    const double scale = limit > 0 ? std::min(1.0, limit / (norm + kClipEpsilon)) : 1.0;
    // The gradients still carry the loss's scale. AdamW's correction counts updates.
    store_->update(settings_.optimizer, learning_rate_of(settings_.optimizer, step_, settings_.steps),
                   scale / loss_scale_, step_ - filter_.num_skipped());
    return {};
  }

  Result<void> fill(const Action& action, Communication& communication) {
    switch (action.kind) {
      case ActionKind::SendActivation:
      case ActionKind::ReceiveActivation:
      case ActionKind::SendGradient:
      case ActionKind::ReceiveGradient:
        communication.transfers = exchange(action);
        // A position of a mesh may have no part in what crosses.
        communication.kind =
            communication.transfers.empty() ? Communication::Kind::None : Communication::Kind::Exchange;
        return {};
      default: break;
    }
    if (const int storage = storages_->of(action); storage >= 0) {
      fill_storage(action, storage, *store_, communication);
      return {};
    }
    // On a mesh such parameters may all be shared; not every stage has experts.
    if (action.kind == ActionKind::ReduceReused || action.kind == ActionKind::GatherReused ||
        action.kind == ActionKind::ReduceExperts)
      return {};
    communication.kind = Communication::Kind::AllReduce;
    if (action.kind == ActionKind::ReduceLossCount) {
      // Parts of a sequence have counted the same samples.
      communication.buffer = view(sums_.begin_counts(place_.position < stage_.replicas[place_.replica].tensor));
      return {};
    }
    COX_ENSURE(action.kind == ActionKind::ReduceNorm, to_text(action));
    COX_TRY_VOID(fill_norm());
    communication.buffer = view(sums_.reduced());
    return {};
  }

  static BufferView view(std::vector<double>& sums) {
    return {sums.data(), static_cast<std::int64_t>(sums.size()), DType::Float64};
  }

  // The step's commit point: squared norm of gradients (each once), then numerator and denominator of every term, then
  // rows of experts.
  Result<void> fill_norm() {
    double squared = 0;
    if (!evaluating_) {
      for (int s = 0; s < store_->num_storages(); ++s) store_->complete_gradient(s);
      // Of the gradients without the loss's scale, which is a power of two: nothing is rounded.
      squared = store_->squared_norm() / (loss_scale_ * loss_scale_);
      if (!std::isfinite(squared)) {
        if (not_finite_.empty()) not_finite_ = "the gradients are";
        if (filter_.gradients_stop()) return not_finite(squared);
      }
    }
    sums_.begin_norm(squared, tokens_->counts());
    sums_.add_requests(save_asked_, stop_asked_);
    if (place_.position != 0) return {};
    for (const Chunk& chunk : chunks_)
      sums_.add_terms(chunk.runner->stage().terms,
                      static_cast<double>(samples_) * static_cast<double>(plan_.batch.count));
    return {};
  }

  std::vector<collective::PointToPoint> exchange(const Action& action) {
    const Chunk& chunk = chunks_[action.chunk];
    if (action.kind == ActionKind::ReceiveActivation) return edges_.receive(action, chunk.activation_in);
    if (action.kind == ActionKind::ReceiveGradient) return edges_.receive(action, chunk.gradient_in);
    MicroBatch& batch = micro_batch(key_of(action));
    std::vector<at::Tensor> tensors;
    if (action.kind == ActionKind::SendActivation) {
      for (const ValueId v : chunk.activation_out.values) tensors.push_back(chunk.runner->take_sent(batch, v));
      return edges_.send(action, chunk.activation_out, tensors);
    }
    for (const ValueId v : chunk.gradient_out.values) {
      at::Tensor gradient = std::move(batch.gradients[v]);
      tensors.push_back(gradient.defined() ? gradient
                                           : at::zeros(sizes_of(mesh_->view.graph(), v, samples_),
                                                       options_of(stored_dtype(graph_, v, plan_.precision))));
    }
    micro_batches_.erase(key_of(action));
    return edges_.send(action, chunk.gradient_out, tensors);
  }

  void complete(const Action& action) {
    if (const int storage = storages_->of(action); storage >= 0) return complete_storage(action, storage, *store_);
    if (!plan::is_edge(action.kind)) return;
    const Chunk& chunk = chunks_[action.chunk];
    const Key key = key_of(action);
    if (action.kind == ActionKind::SendActivation || action.kind == ActionKind::SendGradient) {
      edges_.drop(action);
      // In evaluation nothing comes back.
      if (evaluating_) micro_batches_.erase(key);
    } else if (action.kind == ActionKind::ReceiveActivation) {
      auto tensors = edges_.take(action, chunk.activation_in);
      MicroBatch& batch = micro_batch(key);
      for (std::size_t i = 0; i < tensors.size(); ++i)
        batch.values[chunk.activation_in.values[i]] = std::move(tensors[i]);
    } else if (action.kind == ActionKind::ReceiveGradient) {
      auto tensors = edges_.take(action, chunk.gradient_in);
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
  const Seconds step_timeout_;
  const Localise localise_;

  std::unique_ptr<MeshSetup> mesh_;
  std::optional<WeightSource> weights_;
  std::optional<TrainingData> data_;
  std::optional<ParameterStore> store_;
  std::optional<ExpertTokens> tokens_;
  std::vector<Chunk> chunks_;
  std::optional<StageStorages> storages_;
  GatheredUses uses_, evaluation_uses_;
  EdgeBuffers edges_;
  StepFilter filter_;

  bool evaluating_ = false, skipped_ = false;
  bool save_asked_ = false, stop_asked_ = false;
  std::string not_finite_;  // what this rank saw in this step, as StepNumbers has it
  double loss_scale_ = 1;   // of this step
  std::int64_t step_ = 0, evaluation_ = 0;
  std::int64_t taken_ = 0;  // the last step whose update is made
  std::map<Key, MicroBatch> micro_batches_;
  std::map<Key, std::vector<WeightWork>> owed_;  // by I to W
  std::set<Key> whole_;                          // whose W is a whole backward
  LossSums sums_;
};

}  // namespace

Result<std::unique_ptr<Engine>> make_engine(const EngineOptions& options) {
  set_up_libtorch(options.settings.threads);
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
