#include "worker/engine/local_model.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>

#include "worker/engine/inputs.h"
#include "worker/engine/tensor_types.h"

namespace coxswain::worker {

Result<LocalModel> LocalModel::make(const model::ModelGraph& graph, int first_block, int end_block, std::uint64_t seed,
                                    bool with_optimizer, plan::Precision precision) {
  LocalModel local(graph, first_block, end_block, precision);
  COX_TRY(WeightSource weights, WeightSource::open(graph, seed));
  local.weights_ = std::move(weights);
  StorageSpec spec;
  const auto copied = find_reads(graph, {{first_block, end_block}}, precision).copy;
  for (const int p : model::slice_stage(graph, first_block, end_block).parameters) {
    if (!graph.parameters[p].trainable) continue;
    spec.parameters.push_back(p);
    if (copied[p] != 0) spec.copied.push_back(p);
  }
  COX_TRY(ParameterStore store, ParameterStore::make(graph, *local.weights_, {spec}, with_optimizer, precision));
  local.store_ = std::make_unique<ParameterStore>(std::move(store));
  return local;
}

Result<void> LocalModel::lower(std::int64_t samples) {
  runner_.reset();
  samples_ = samples;
  COX_TRY(runner_, StageRunner::make(*graph_, {first_block_, end_block_, samples, {}, precision_}, *weights_, *store_));
  return {};
}

void LocalModel::fill_received(MicroBatch& batch) const {
  for (const model::ValueId v : runner_->stage().slice.received) {
    const auto dtype = scalar_type_of(stored_dtype(*graph_, v, precision_));
    batch.values[v] = make_up_value(*graph_, v, samples_).to(dtype);
  }
}

Result<void> LocalModel::fill_gradients(MicroBatch& batch, const std::vector<double>& counts) const {
  const LoweredStage& stage = runner_->stage();
  for (std::size_t i = 0; i < stage.terms.size(); ++i) {
    const model::LossTerm& term = graph_->loss[stage.terms[i]];
    const double seed = term.coefficient / (term.denominator ? counts[i] : 1.0);
    StageRunner::add_gradient(
        batch, term.numerator,
        at::full(sizes_of(*graph_, term.numerator, samples_), seed, options_of(graph_->values[term.numerator].dtype)));
  }
  for (const model::ValueId v : stage.slice.sent)
    if (graph_->values[v].requires_grad)
      StageRunner::add_gradient(
          batch, v, at::ones(sizes_of(*graph_, v, samples_), options_of(stored_dtype(*graph_, v, precision_))));
  return {};
}

}  // namespace coxswain::worker
