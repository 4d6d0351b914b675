#include "worker/engine/products.h"

#include <ATen/ExpandUtils.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmm_cpu_dispatch.h>
#include <ATen/ops/bmm_cpu_dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm_cpu_dispatch.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <cstdint>
#include <optional>
#include <string_view>

#include "worker/engine/products_by_float32.h"

namespace coxswain::worker {
namespace {

/// Multiplications from which on oneDNN is ahead: measured for 64 to 2,048 rows and 64 to 5,000 columns on an EPYC of
/// family 25. Below, and where the left operand is transposed (gradients of weights), MKL is.
constexpr std::int64_t kLeastMultiplications = std::int64_t{1} << 24;

bool is_plain_float(const at::Tensor& tensor) {
  return tensor.scalar_type() == c10::ScalarType::Float && tensor.layout() == c10::Layout::Strided &&
         !tensor.is_conj() && !tensor.is_neg();
}

bool has_onednn() {
  return __builtin_cpu_is("amd") != 0 && __builtin_cpu_supports("avx512f") != 0 &&
         c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""}).has_value();
}

bool takes_onednn(const at::Tensor& left, const at::Tensor& right) {
  static const bool here = has_onednn();
  return here && left.dim() == 2 && right.dim() == 2 && left.size(1) == right.size(0) && is_plain_float(left) &&
         is_plain_float(right) && left.stride(1) == 1 &&
         left.size(0) * left.size(1) * right.size(1) >= kLeastMultiplications;
}

/// left x right (+ bias), by the operator with which libtorch fuses a linear layer.
at::Tensor onednn_product(const at::Tensor& left, const at::Tensor& right, const std::optional<at::Tensor>& bias) {
  using Linear = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
                            c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  static const auto linear =
      c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Linear>();
  return linear.call(left, right.t(), bias, "none", c10::List<std::optional<at::Scalar>>(), std::nullopt);
}

/// Below, widening costs what it saves.
constexpr std::int64_t kLeastWidened = std::int64_t{1} << 14;

bool is_widened(const at::Tensor& left, const at::Tensor& right) {
  const std::int64_t dims = left.dim();
  return lacks_arithmetic(left.scalar_type()) && right.scalar_type() == left.scalar_type() && right.dim() == dims &&
         left.layout() == c10::Layout::Strided && right.layout() == c10::Layout::Strided &&
         left.size(dims - 1) == right.size(dims - 2) &&
         left.size(dims - 2) * left.size(dims - 1) * right.size(dims - 1) >= kLeastWidened;
}

/// Of the type and sizes that left x right has.
bool takes_product(const at::Tensor& out, const at::Tensor& left, const at::Tensor& right) {
  return out.scalar_type() == left.scalar_type() && out.dim() == 2 && out.size(0) == left.size(0) &&
         out.size(1) == right.size(1) && out.layout() == c10::Layout::Strided;
}

bool is_added(const at::Tensor& bias, const at::Tensor& left, const at::Tensor& right) {
  return bias.scalar_type() == left.scalar_type() && bias.layout() == c10::Layout::Strided && bias.dim() <= 2 &&
         at::is_expandable_to(bias.sizes(), {left.size(0), right.size(1)});
}

at::Tensor mm(const at::Tensor& left, const at::Tensor& right) {
  if (left.dim() == 2 && is_widened(left, right)) {
    at::Tensor out = at::empty({left.size(0), right.size(1)}, left.options());
    multiply_by_float32(left, right, at::Tensor(), 0, 1, out);
    return out;
  }
  return takes_onednn(left, right) ? onednn_product(left, right, std::nullopt) : at::cpu::mm(left, right);
}

at::Tensor& mm_out(const at::Tensor& left, const at::Tensor& right, at::Tensor& out) {
  if (left.dim() != 2 || !is_widened(left, right) || !takes_product(out, left, right))
    return at::cpu::mm_out(out, left, right);
  multiply_by_float32(left, right, at::Tensor(), 0, 1, out);
  return out;
}

at::Tensor addmm(const at::Tensor& bias, const at::Tensor& left, const at::Tensor& right, const at::Scalar& beta,
                 const at::Scalar& alpha) {
  if (left.dim() == 2 && is_widened(left, right) && is_added(bias, left, right)) {
    at::Tensor out = at::empty({left.size(0), right.size(1)}, left.options());
    multiply_by_float32(left, right, bias, beta.toDouble(), alpha.toDouble(), out);
    return out;
  }
  const bool is_linear = takes_onednn(left, right) && is_plain_float(bias) && bias.dim() == 1 &&
                         bias.size(0) == right.size(1) && bias.stride(0) == 1 && beta.equal(1) && alpha.equal(1);
  return is_linear ? onednn_product(left, right, bias) : at::cpu::addmm(bias, left, right, beta, alpha);
}

at::Tensor bmm(const at::Tensor& left, const at::Tensor& right) {
  if (left.dim() != 3 || !is_widened(left, right) || left.size(0) != right.size(0)) return at::cpu::bmm(left, right);
  at::Tensor out = at::empty({left.size(0), left.size(1), right.size(2)}, left.options());
  for (std::int64_t one = 0; one < left.size(0); ++one)
    multiply_by_float32(left.select(0, one), right.select(0, one), at::Tensor(), 0, 1, out.select(0, one));
  return out;
}

bool widens() { return lacks_arithmetic(c10::ScalarType::BFloat16) || lacks_arithmetic(c10::ScalarType::Half); }

/// Registering in place of a kernel of libtorch's own says so on stderr; here it is meant.
class NoWarnings final : public c10::WarningHandler {
 public:
  void process(const c10::Warning& /*warning*/) override {}
};

}  // namespace

void install_products() {
  static const bool once = [] {
    if (!has_onednn() && !widens()) return false;
    NoWarnings none;
    const c10::WarningUtils::WarningHandlerGuard guard(&none);
    static torch::Library library(torch::Library::IMPL, "aten", c10::DispatchKey::CPU, __FILE__, __LINE__);
    library.impl("mm", &mm);
    library.impl("addmm", &addmm);
    if (!widens()) return true;
    library.impl("mm.out", &mm_out);
    library.impl("bmm", &bmm);
    return true;
  }();
  static_cast<void>(once);
}

}  // namespace coxswain::worker
