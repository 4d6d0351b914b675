#pragma once
// First values of parameters and buffers: from the model file, or drawn by the counter generator for a model from a
// configuration. Called by parameter_store and stage_runner. Threads: pure apart from the file. Private to
// worker/engine.
#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <optional>

#include "common/result.h"
#include "model/load.h"
#include "model/model_graph.h"

namespace coxswain::worker {

/// Opens the graph's file where it has one.
class WeightSource {
 public:
  /// Errors: DataLoss, NotFound.
  [[nodiscard]] static Result<WeightSource> open(const model::ModelGraph& graph, std::uint64_t seed);

  /// Writes the parameter's elements, row-major, to `target` (float32). Errors: DataLoss.
  [[nodiscard]] Result<void> read_parameter(const model::Parameter& parameter, float* target) const;
  /// A new tensor. Errors: DataLoss, InvalidArgument (a buffer without content).
  [[nodiscard]] Result<at::Tensor> read_parameter_tensor(const model::Parameter& parameter) const;
  [[nodiscard]] Result<at::Tensor> read_buffer(const model::Buffer& buffer) const;

 private:
  WeightSource(const model::ModelGraph& graph, std::uint64_t seed) : graph_(&graph), seed_(seed) {}
  [[nodiscard]] Result<at::Tensor> read(const model::WeightLocation& location, const std::vector<std::int64_t>& dims,
                                        DType dtype) const;

  const model::ModelGraph* graph_;
  std::uint64_t seed_;
  std::optional<model::WeightFile> file_;
};

/// Standard normal numbers for elements [0, count): Box-Muller on the counter generator, key (seed, "init:NAME"),
/// elements 4 i to 4 i + 3 from counter i.
void fill_normal(std::uint64_t seed, const std::string& name, float scale, std::int64_t count, float* target);

}  // namespace coxswain::worker
