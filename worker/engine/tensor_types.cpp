#include "worker/engine/tensor_types.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/where.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>

#include <limits>
#include <new>

#include "common/ensure.h"
#include "worker/engine/parallel_link.h"

namespace coxswain::worker {

c10::ScalarType scalar_type_of(DType dtype) {
  switch (dtype) {
    case DType::Bool: return c10::ScalarType::Bool;
    case DType::UInt8: return c10::ScalarType::Byte;
    case DType::Int8: return c10::ScalarType::Char;
    case DType::Int16: return c10::ScalarType::Short;
    case DType::Int32: return c10::ScalarType::Int;
    case DType::Int64: return c10::ScalarType::Long;
    case DType::Float16: return c10::ScalarType::Half;
    case DType::BFloat16: return c10::ScalarType::BFloat16;
    case DType::Float32: return c10::ScalarType::Float;
    case DType::Float64: return c10::ScalarType::Double;
  }
  COX_ENSURE(false, static_cast<int>(dtype));
}

DType dtype_of(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Bool: return DType::Bool;
    case c10::ScalarType::Byte: return DType::UInt8;
    case c10::ScalarType::Char: return DType::Int8;
    case c10::ScalarType::Short: return DType::Int16;
    case c10::ScalarType::Int: return DType::Int32;
    case c10::ScalarType::Long: return DType::Int64;
    case c10::ScalarType::Half: return DType::Float16;
    case c10::ScalarType::BFloat16: return DType::BFloat16;
    case c10::ScalarType::Float: return DType::Float32;
    case c10::ScalarType::Double: return DType::Float64;
    default: break;
  }
  COX_ENSURE(false, static_cast<int>(type));
}

at::TensorOptions options_of(DType dtype) { return at::TensorOptions().dtype(scalar_type_of(dtype)); }

DType stored_dtype(const model::ModelGraph& graph, model::ValueId value, plan::Precision precision) {
  const DType dtype = graph.values[value].dtype;
  return dtype == DType::Float32 ? plan::computed_dtype(precision) : dtype;
}

double largest_finite(DType dtype) {
  if (dtype == DType::Float16) return static_cast<double>(std::numeric_limits<c10::Half>::max());
  COX_ENSURE(dtype == DType::BFloat16, static_cast<int>(dtype));
  return static_cast<double>(std::numeric_limits<c10::BFloat16>::max());
}

at::Tensor finite_in(const at::Tensor& tensor, DType dtype) {
  const double largest = largest_finite(dtype);
  return at::where(tensor.isinf(), tensor, tensor.clamp(-largest, largest)).to(scalar_type_of(dtype));
}

std::vector<std::int64_t> sizes_of(const model::ModelGraph& graph, model::ValueId value, std::int64_t samples) {
  const model::Bindings bindings{{graph.batch_symbol, samples}};
  std::vector<std::int64_t> sizes;
  for (const model::Dim& dim : graph.values[value].dims) sizes.push_back(dim.evaluate(bindings));
  return sizes;
}

std::optional<SampleDim> sample_dim_of(const model::ModelGraph& graph, model::ValueId value) {
  const auto& dims = graph.values[value].dims;
  if (graph.batch_symbol.empty()) {
    // A static batch is never split; dropout still wants the sample of an element.
    if (!dims.empty() && dims[0].is_constant() && graph.static_batch > 0 &&
        dims[0].constant() % graph.static_batch == 0 && dims[0].constant() > 0) {
      return SampleDim{0, dims[0].constant() / graph.static_batch};
    }
    return std::nullopt;
  }
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (dims[i].is_constant()) continue;
    const std::int64_t one = dims[i].evaluate({{graph.batch_symbol, 1}}),
                       three = dims[i].evaluate({{graph.batch_symbol, 3}});
    if (one > 0 && three == 3 * one) return SampleDim{static_cast<int>(i), one};
  }
  return std::nullopt;
}

Error current_torch_error(const std::string& where) {
  try {
    throw;
  } catch (const CommunicationError& error) {
    // A kernel knows its operator; in backward nobody else does.
    return error.error().path.empty() ? with_path_prefix(error.error(), where) : error.error();
  } catch (const c10::Error& error) {
    return Error{ErrorCode::Internal, error.what_without_backtrace(), where, "", "", ""};
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::ResourceExhausted,
                 "out of memory",
                 where,
                 "",
                 "",
                 "use a smaller micro-batch, recompute, or more devices"};
  } catch (const std::exception& error) {
    return Error{ErrorCode::Internal, error.what(), where, "", "", ""};
  }
}

}  // namespace coxswain::worker
