#pragma once
// The few conversions between our plain types and libtorch's. Private to worker/engine. Threads: pure.
#include <ATen/core/TensorBody.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/dtype.h"
#include "common/result.h"
#include "model/model_graph.h"
#include "plan/plan.h"

namespace coxswain::worker {

[[nodiscard]] c10::ScalarType scalar_type_of(DType dtype);
/// Requires: one of ours.
[[nodiscard]] DType dtype_of(c10::ScalarType type);
[[nodiscard]] at::TensorOptions options_of(DType dtype);

/// Of a value where it leaves its block: in mixed precision float32 activations are rounded there (C16).
[[nodiscard]] DType stored_dtype(const model::ModelGraph& graph, model::ValueId value, plan::Precision precision);

/// The largest finite number of a 16-bit dtype.
[[nodiscard]] double largest_finite(DType dtype);
/// A mask or table in 16 bits: what is finite stays finite, for a float32 minimum would round to -inf and a row of
/// them to NaN after softmax.
[[nodiscard]] at::Tensor finite_in(const at::Tensor& tensor, DType dtype);

/// Sizes of a value with the batch bound to `samples`.
[[nodiscard]] std::vector<std::int64_t> sizes_of(const model::ModelGraph& graph, model::ValueId value,
                                                 std::int64_t samples);

/// Where the samples of a value lie: dim `dim` has `multiple` rows a sample (1 unless dims were merged batch first).
struct SampleDim {
  int dim = 0;
  std::int64_t multiple = 1;
};
/// None when no dim is a multiple of the batch.
[[nodiscard]] std::optional<SampleDim> sample_dim_of(const model::ModelGraph& graph, model::ValueId value);

/// Runs `body` (returning a Result) and turns what libtorch throws into an Error without its C++ stack.
/// Errors: ResourceExhausted (memory), Internal; `where` becomes the path. What a communicator reported is passed on.
template <class Body>
auto guard_torch(const std::string& where, Body&& body) -> decltype(body());
[[nodiscard]] Error current_torch_error(const std::string& where);

template <class Body>
auto guard_torch(const std::string& where, Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::exception&) {
    return current_torch_error(where);
  }
}

}  // namespace coxswain::worker
