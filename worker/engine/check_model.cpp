// The exporter's recorded step, run here with dropout off: the engine's self-test on one model.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "worker/engine/engine.h"
#include "worker/engine/libtorch_setup.h"
#include "worker/engine/local_model.h"
#include "worker/engine/tensor_types.h"

namespace coxswain::worker {
namespace {

/// Loss relative to the recorded one, gradients relative to the global norm (issue 3, row i).
constexpr double kTolerance = 1e-6;

Result<at::Tensor> read_input(const std::string& pt2, const model::RecordedStep& recorded, std::size_t index,
                              DType dtype) {
  at::Tensor tensor = at::empty(recorded.input_dims[index], options_of(dtype));
  COX_TRY(const std::string bytes, model::read_archive_entry(pt2, recorded.input_entries[index]));
  const auto expected = static_cast<std::size_t>(tensor.numel()) * tensor.element_size();
  if (bytes.size() != expected) {
    return Error{ErrorCode::DataLoss,           "a recorded input has the wrong size",
                 recorded.input_entries[index], std::to_string(expected) + " bytes",
                 std::to_string(bytes.size()),  "export the model again"};
  }
  std::memcpy(tensor.mutable_data_ptr(), bytes.data(), bytes.size());
  return tensor;
}

int find_parameter(const model::ModelGraph& graph, const std::string& name) {
  for (std::size_t p = 0; p < graph.parameters.size(); ++p) {
    const auto& parameter = graph.parameters[p];
    if (parameter.name == name || std::count(parameter.tied_names.begin(), parameter.tied_names.end(), name) > 0)
      return static_cast<int>(p);
  }
  return -1;
}

void compare_gradients(const model::ModelGraph& graph, const model::RecordedStep& recorded, ParameterStore& store,
                       CheckReport& report) {
  store.complete_gradient(0);
  report.grad_norm = std::sqrt(store.squared_norm());
  for (const auto& [name, wanted] : recorded.grad_norms) {
    const int p = find_parameter(graph, name);
    const double norm =
        p >= 0 && store.has(p) ? store.gradient_of(p).to(c10::ScalarType::Double).norm().item<double>() : 0.0;
    report.grad_norms.emplace_back(name, norm);
    const double error = std::abs(norm - wanted) / std::max(recorded.grad_norm, 1e-30);
    if (report.worst_parameter.empty() || error > report.worst_gradient_error) {
      report.worst_gradient_error = error;
      report.worst_parameter = name;
    }
  }
}

Result<CheckReport> check(const std::string& path) {
  COX_TRY(const model::ModelGraph graph, model::load_pt2(path));
  COX_TRY(const model::RecordedStep recorded, model::load_recorded_step(path));
  if (recorded.input_dims.size() != graph.inputs.size() || graph.inputs.empty()) {
    return Error{ErrorCode::DataLoss,
                 "the recorded step does not fit the model",
                 path,
                 std::to_string(graph.inputs.size()) + " inputs",
                 std::to_string(recorded.input_dims.size()),
                 "export the model again"};
  }
  CheckReport report;
  report.recorded_loss = recorded.loss;
  report.recorded_grad_norm = recorded.grad_norm;
  COX_TRY(LocalModel local, LocalModel::make(graph, 0, graph.num_blocks(), 0, false));
  COX_TRY_VOID(local.lower(recorded.input_dims[0][graph.inputs[0].sample_dim]));
  local.store().begin_step();
  // The recorded step was taken in evaluation form, with gradients.
  RunMode mode;
  mode.dropout = false;
  mode.running_statistics = true;
  MicroBatch batch = local.runner().make_micro_batch(mode);
  for (std::size_t i = 0; i < graph.inputs.size(); ++i) {
    COX_TRY(batch.values[graph.inputs[i].value],
            read_input(path, recorded, i, graph.values[graph.inputs[i].value].dtype));
  }
  const auto& terms = local.runner().stage().terms;
  COX_TRY(const std::vector<double> counts, local.runner().count(batch));
  COX_TRY_VOID(local.runner().forward(batch, 0, graph.num_blocks()));
  for (std::size_t i = 0; i < terms.size(); ++i) {
    const model::LossTerm& term = graph.loss[terms[i]];
    report.loss +=
        term.coefficient * batch.values[term.numerator].item<double>() / (term.denominator ? counts[i] : 1.0);
  }
  COX_TRY_VOID(local.fill_gradients(batch, counts));
  COX_TRY_VOID(local.runner().backward(batch, 0, graph.num_blocks()));
  compare_gradients(graph, recorded, local.store(), report);
  const bool loss_fits = std::abs(report.loss - recorded.loss) <= kTolerance * std::max(std::abs(recorded.loss), 1e-30);
  const bool norm_fits = std::abs(report.grad_norm - recorded.grad_norm) <= kTolerance * recorded.grad_norm;
  report.passed = loss_fits && norm_fits && report.worst_gradient_error <= kTolerance;
  return report;
}

}  // namespace

Result<CheckReport> check_model(const std::string& pt2_path, int threads) {
  set_up_libtorch(threads);
  return guard_torch(pt2_path, [&] { return check(pt2_path); });
}

}  // namespace coxswain::worker
