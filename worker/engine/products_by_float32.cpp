#include "worker/engine/products_by_float32.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmm_cpu_dispatch.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace coxswain::worker {
namespace {

/// Of a tile of the result, and of what is summed up at a time: widening then takes a few hundredths of the product.
constexpr std::int64_t kSide = 256, kInner = 1024;

bool asks(const char* name) {
  const auto schema = c10::Dispatcher::singleton().findSchema({name, ""});
  return schema.has_value() && schema->typed<bool()>().call();
}

/// Memory for float32 tiles, kept by its thread.
class Tiles {
 public:
  Tiles() : memory_(2 * kSide * kInner + kSide * kSide) {}
  at::Tensor left(const at::Tensor& part) { return widened(part, 0); }
  at::Tensor right(const at::Tensor& part) { return widened(part, kSide * kInner); }
  at::Tensor sums(std::int64_t rows, std::int64_t columns) { return tile(rows, columns, 2 * kSide * kInner); }

 private:
  at::Tensor widened(const at::Tensor& part, std::int64_t at) {
    // Laid out as the part is: widening then reads and writes in order.
    const bool transposed = part.stride(0) == 1 && part.stride(1) != 1;
    at::Tensor made = transposed ? tile(part.size(1), part.size(0), at).t() : tile(part.size(0), part.size(1), at);
    made.copy_(part);
    return made;
  }
  at::Tensor tile(std::int64_t rows, std::int64_t columns, std::int64_t at) {
    return at::from_blob(memory_.data() + at, {rows, columns}, at::TensorOptions().dtype(c10::ScalarType::Float));
  }
  std::vector<float> memory_;
};

template <typename Body>
void for_parts(std::int64_t size, std::int64_t part, Body&& body) {
  for (std::int64_t begin = 0; begin < size; begin += part) body(begin, std::min(part, size - begin));
}

}  // namespace

bool lacks_arithmetic(c10::ScalarType type) {
  static const bool no_bfloat16 = !asks("mkldnn::_is_mkldnn_bf16_supported"),
                    no_float16 = !asks("mkldnn::_is_mkldnn_fp16_supported");
  return (type == c10::ScalarType::BFloat16 && no_bfloat16) || (type == c10::ScalarType::Half && no_float16);
}

void multiply_by_float32(const at::Tensor& left, const at::Tensor& right, const at::Tensor& bias, double beta,
                         double alpha, const at::Tensor& out) {
  thread_local Tiles tiles;
  const at::Tensor added = bias.defined() && beta != 0 ? bias.expand(out.sizes()) : at::Tensor();
  for_parts(out.size(0), kSide, [&](std::int64_t row, std::int64_t rows) {
    for_parts(out.size(1), kSide, [&](std::int64_t column, std::int64_t columns) {
      const auto part = [&](const at::Tensor& whole) { return whole.narrow(0, row, rows).narrow(1, column, columns); };
      at::Tensor sums = tiles.sums(rows, columns);
      if (added.defined()) sums.copy_(part(added));
      double kept = added.defined() ? beta : 0;
      std::int64_t inner = 0;
      do {  // once at least: of nothing the sum is zero
        const std::int64_t count = std::min(kInner, left.size(1) - inner);
        const at::Tensor wide = tiles.left(left.narrow(0, row, rows).narrow(1, inner, count));
        at::cpu::addmm_(sums, wide, tiles.right(right.narrow(0, inner, count).narrow(1, column, columns)), kept, alpha);
        kept = 1;
      } while ((inner += kInner) < left.size(1));
      part(out).copy_(sums);
    });
  });
}

}  // namespace coxswain::worker
