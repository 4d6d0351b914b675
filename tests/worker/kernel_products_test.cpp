// Products as this process computes them, beside the same in float64: in float32 on processors where oneDNN takes them
// and on those where MKL goes on, in 16 bits on those that have such arithmetic and on those that do not. Sizes on both
// sides of where each begins.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <cmath>
#include <tuple>

#include "worker/engine/products.h"
#include "worker/engine/products_by_float32.h"

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

namespace {

/// In 16 bits, strided as asked.
at::Tensor narrow_matrix(std::int64_t rows, std::int64_t columns, bool transposed, c10::ScalarType type) {
  return random_matrix(rows, columns, transposed).to(type);
}

/// Sums in float32 and one rounding to `got`'s type: half of its last digit, and what `check_close` allows.
void check_rounded_once(const at::Tensor& got, const at::Tensor& expected, std::int64_t inner) {
  REQUIRE(got.sizes() == expected.sizes());
  const double half_digit = got.scalar_type() == c10::ScalarType::Half ? 1.0 / (1 << 11) : 1.0 / (1 << 8);
  const at::Tensor allowed = expected.abs() * half_digit + tolerance(inner) * expected.abs().max().item().toDouble();
  CHECK(((got.to(c10::ScalarType::Double) - expected).abs() <= allowed).all().item().toBool());
}

}  // namespace

TEST_CASE("products in 16 bits are those of float64, rounded once") {
  worker::install_products();
  const auto wide = [](const at::Tensor& tensor) { return tensor.to(c10::ScalarType::Double); };
  for (const c10::ScalarType type : {c10::ScalarType::BFloat16, c10::ScalarType::Half})
    for (const auto& [rows, inner, columns] : {std::tuple{300, 1100, 520}, {64, 32, 96}, {5, 7, 3}})
      for (const bool left_transposed : {false, true})
        for (const bool right_transposed : {false, true}) {
          INFO(type << " " << rows << " x " << inner << " x " << columns << ", transposed " << left_transposed
                    << right_transposed);
          const at::Tensor left = narrow_matrix(rows, inner, left_transposed, type),
                           right = narrow_matrix(inner, columns, right_transposed, type);
          const at::Tensor bias = at::randn({columns}).to(type), full = narrow_matrix(rows, columns, false, type);
          const at::Tensor product = at::mm(wide(left), wide(right));
          // As the operators give them, and by way of float32 whether this processor needs it or not.
          check_rounded_once(at::mm(left, right), product, inner);
          at::Tensor out = at::empty({rows, columns}, left.options());
          worker::multiply_by_float32(left, right, at::Tensor(), 0, 1, out);
          check_rounded_once(out, product, inner);
          at::Tensor columns_first = at::empty({columns, rows}, left.options()).t();
          worker::multiply_by_float32(left, right, bias, 0.5, 2, columns_first);
          check_rounded_once(columns_first, 2 * product + 0.5 * wide(bias), inner);
          out.copy_(full);
          worker::multiply_by_float32(left, right, out, 1, 1, out);
          check_rounded_once(out, product + wide(full), inner);
          if (!worker::lacks_arithmetic(type)) continue;
          check_rounded_once(at::addmm(bias, left, right), product + wide(bias), inner);
          check_rounded_once(at::addmm(full, left, right, 0.5, 2), 2 * product + 0.5 * wide(full), inner);
          at::Tensor given = at::empty({rows, columns}, left.options());
          check_rounded_once(at::mm_out(given, left, right), product, inner);
        }
}

TEST_CASE("products of a batch in 16 bits are those of float64, rounded once") {
  worker::install_products();
  for (const c10::ScalarType type : {c10::ScalarType::BFloat16, c10::ScalarType::Half}) {
    INFO(type);
    const at::Tensor left = at::randn({6, 40, 70}).to(type), keys = at::randn({6, 50, 70}).to(type);
    const at::Tensor right = keys.transpose(1, 2);
    check_rounded_once(at::bmm(left, right),
                       at::bmm(left.to(c10::ScalarType::Double), right.to(c10::ScalarType::Double)), 70);
  }
}

TEST_CASE("a product of nothing in 16 bits is zero, with a bias the bias") {
  worker::install_products();
  const at::TensorOptions options = at::TensorOptions().dtype(c10::ScalarType::BFloat16);
  at::Tensor out = at::full({3, 4}, 7, options);
  worker::multiply_by_float32(at::empty({3, 0}, options), at::empty({0, 4}, options), at::Tensor(), 0, 1, out);
  CHECK(out.equal(at::zeros({3, 4}, options)));
  worker::multiply_by_float32(at::empty({3, 0}, options), at::empty({0, 4}, options), at::ones({4}, options), 1, 1,
                              out);
  CHECK(out.equal(at::ones({3, 4}, options)));
}

}  // namespace coxswain::tests
