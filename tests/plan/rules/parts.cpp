#include "tests/plan/rules/parts.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/randn_like.h>

#include <algorithm>
#include <sstream>

namespace coxswain::tests {
namespace {

// Sizes with each dim read as its factors, one of them with `rows`; and where that one stands.
struct Digits {
  std::vector<std::int64_t> sizes;
  std::int64_t at = -1;
};
Digits digits_of(const plan::TensorFactors& tensor, const plan::OpFactors& op, int factor, std::int64_t rows) {
  Digits digits;
  for (const std::vector<int>& dim : tensor.dims)
    for (const int one : dim) {
      if (one == factor) digits.at = static_cast<std::int64_t>(digits.sizes.size());
      digits.sizes.push_back(one == factor ? rows : op.factors[static_cast<std::size_t>(one)].size);
    }
  return digits;
}

std::vector<std::int64_t> local_sizes(const plan::TensorFactors& tensor, const plan::OpFactors& op,
                                      const plan::Part& part) {
  std::vector<std::int64_t> sizes;
  for (const std::vector<int>& dim : tensor.dims) {
    std::int64_t size = 1;
    for (const int one : dim) size *= one == part.factor ? part.size : op.factors[static_cast<std::size_t>(one)].size;
    sizes.push_back(size);
  }
  return sizes;
}

double tolerance_of(c10::ScalarType dtype) {
  if (dtype == c10::ScalarType::Double) return 1e-10;
  return dtype == c10::ScalarType::Float ? 2e-5 : 5e-2;
}

std::vector<plan::Part> parts_of(int factor, const std::vector<std::int64_t>& sizes) {
  std::vector<plan::Part> parts;
  std::int64_t first = 0;
  for (const std::int64_t size : sizes) {
    parts.push_back({factor, first, size});
    first += size;
  }
  return parts;
}

}  // namespace

at::Tensor take_part(const at::Tensor& whole, const plan::TensorFactors& tensor, const plan::OpFactors& op,
                     const plan::Part& part) {
  const Digits digits = digits_of(tensor, op, part.factor, op.factors[static_cast<std::size_t>(part.factor)].size);
  return whole.reshape(digits.sizes).narrow(digits.at, part.first, part.size).reshape(local_sizes(tensor, op, part));
}

at::Tensor join_parts(const std::vector<at::Tensor>& parts, const plan::TensorFactors& tensor,
                      const plan::OpFactors& op, int factor, const std::vector<std::int64_t>& whole) {
  std::vector<at::Tensor> pieces;
  std::int64_t at = 0;
  const std::int64_t rows = op.factors[static_cast<std::size_t>(factor)].size;
  std::int64_t others = 1;
  for (const std::int64_t size : whole) others *= size;
  others /= rows;
  for (const at::Tensor& part : parts) {
    const Digits digits = digits_of(tensor, op, factor, part.numel() / others);
    pieces.push_back(part.reshape(digits.sizes));
    at = digits.at;
  }
  return at::cat(pieces, at).reshape(whole);
}

std::vector<at::Tensor> make_summands(const at::Tensor& whole, std::size_t count) {
  std::vector<at::Tensor> summands;
  at::Tensor left = whole;
  for (std::size_t i = 0; i + 1 < count; ++i) {
    summands.push_back(at::randn_like(whole));
    left = left - summands.back();
  }
  summands.push_back(left);
  return summands;
}

std::string difference(const at::Tensor& found, const at::Tensor& wanted, c10::ScalarType inputs) {
  std::ostringstream text;
  if (found.sizes() != wanted.sizes() || found.scalar_type() != wanted.scalar_type()) {
    text << "shape or dtype " << found.sizes() << " " << found.scalar_type() << ", wanted " << wanted.sizes() << " "
         << wanted.scalar_type();
    return text.str();
  }
  if (wanted.numel() == 0) return "";
  if (!wanted.is_floating_point()) return at::equal(found, wanted) ? "" : "other elements";
  const double tolerance = std::max(tolerance_of(wanted.scalar_type()), tolerance_of(inputs));
  const double off = (found - wanted).abs().max().item<double>();
  if (off <= tolerance) return "";  // false for infinities and NaN
  const double largest = at::nan_to_num(wanted, 0, 0, 0).abs().max().item<double>();
  if (at::allclose(found, wanted, tolerance, tolerance * std::max(1.0, largest), true)) return "";
  text << "off by " << off << " where the largest is " << largest;
  return text.str();
}

std::vector<std::vector<plan::Part>> splits_of(int factor, std::int64_t size) {
  std::vector<std::vector<plan::Part>> splits;
  for (std::int64_t count = 2; count <= 3 && count <= size; ++count) {
    std::vector<std::int64_t> even, skewed(static_cast<std::size_t>(count), 1);
    for (std::int64_t i = 0; i < count; ++i) even.push_back(size / count + (i < size % count ? 1 : 0));
    skewed[0] = size - count + 1;
    splits.push_back(parts_of(factor, even));
    if (skewed != even) splits.push_back(parts_of(factor, skewed));
  }
  return splits;
}

std::string sizes_text(const std::vector<plan::Part>& parts) {
  std::string text;
  for (const plan::Part& part : parts) text += (text.empty() ? "" : "+") + std::to_string(part.size);
  return text;
}

}  // namespace coxswain::tests
