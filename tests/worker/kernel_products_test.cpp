// Products in float32 as this process computes them, beside the same in float64: on processors where oneDNN takes them
// and on those where MKL goes on. Sizes on both sides of where it begins.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <cmath>
#include <tuple>

#include "worker/engine/products.h"

#undef CHECK
#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

/// Of the largest element: rounding of float32 (2^-24) as it adds up over a random walk of `inner` sums, twice.
double tolerance(std::int64_t inner) { return 2 * std::sqrt(static_cast<double>(inner)) / (1 << 24); }

at::Tensor random_matrix(std::int64_t rows, std::int64_t columns, bool transposed) {
  return transposed ? at::randn({columns, rows}).t() : at::randn({rows, columns});
}

void check_close(const at::Tensor& got, const at::Tensor& expected, std::int64_t inner) {
  REQUIRE(got.scalar_type() == c10::ScalarType::Float);
  REQUIRE(got.sizes() == expected.sizes());
  CHECK((got.to(c10::ScalarType::Double) - expected).abs().max().item().toDouble() <=
        tolerance(inner) * expected.abs().max().item().toDouble());
}

}  // namespace

TEST_CASE("products of every layout are those of float64, with a bias and without") {
  worker::install_products();
  for (const auto& [rows, inner, columns] :
       {std::tuple{512, 256, 1024}, {512, 1024, 256}, {64, 512, 640}, {16, 32, 96}})
    for (const bool left_transposed : {false, true})
      for (const bool right_transposed : {false, true}) {
        INFO(rows << " x " << inner << " x " << columns << ", transposed " << left_transposed << right_transposed);
        const at::Tensor left = random_matrix(rows, inner, left_transposed);
        const at::Tensor right = random_matrix(inner, columns, right_transposed);
        const at::Tensor bias = at::randn({columns}), full = at::randn({rows, columns});
        const auto wide = [](const at::Tensor& tensor) { return tensor.to(c10::ScalarType::Double); };
        const at::Tensor product = at::mm(wide(left), wide(right));
        check_close(at::mm(left, right), product, inner);
        check_close(at::addmm(bias, left, right), product + wide(bias), inner);
        check_close(at::addmm(full, left, right), product + wide(full), inner);
        check_close(at::addmm(bias, left, right, 0.5, 2), 2 * product + 0.5 * wide(bias), inner);
      }
}

TEST_CASE("products of part of a matrix: rows and columns that are further apart than they are long") {
  worker::install_products();
  const at::Tensor left = at::randn({512, 600}).narrow(1, 40, 512), right = at::randn({512, 300}).narrow(1, 7, 256);
  check_close(at::mm(left, right), at::mm(left.to(c10::ScalarType::Double), right.to(c10::ScalarType::Double)), 512);
  check_close(at::mm(left, right.t().contiguous().t()),
              at::mm(left.to(c10::ScalarType::Double), right.to(c10::ScalarType::Double)), 512);
}

TEST_CASE("the same product twice has the same bits") {
  worker::install_products();
  const at::Tensor left = at::randn({512, 256}), right = at::randn({256, 1024});
  CHECK(at::mm(left, right).equal(at::mm(left, right)));
}

}  // namespace coxswain::tests
