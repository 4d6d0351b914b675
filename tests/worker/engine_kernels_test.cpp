// The engine's own kernels: random words, dropout, attention with dropout, allocator, learning rate.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tril.h>
#include <ATen/ops/where.h>
#include <torch/csrc/autograd/autograd.h>

#include "common/philox.h"
#include "tests/worker/engine_support.h"
#include "worker/engine/attention.h"
#include "worker/engine/caching_allocator.h"
#include "worker/engine/dropout.h"
#include "worker/engine/learning_rate.h"
#include "worker/engine/random_words.h"

#undef CHECK
#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using worker::DropoutStream;

bool close(const at::Tensor& a, const at::Tensor& b, double tolerance) {
  return a.sizes() == b.sizes() && a.sub(b).abs().max().item<double>() <= tolerance;
}

// Whether element `element` of `sample` is kept, straight from the definition.
bool is_kept(const DropoutStream& stream, std::uint32_t sample, std::int64_t element) {
  const auto counter = static_cast<std::uint32_t>(element / 32 * 8 + element % 8);
  return philox4x32(stream.key, {counter, sample, stream.operation, stream.step})[element % 32 / 8] >= stream.threshold;
}

}  // namespace

TEST_CASE("random words equal an independent Philox") {
  const Json eager = read_json(fixture("eager.json"));
  const JsonArray& expected = eager["dropout_words"].array();
  const DropoutStream stream = worker::make_dropout_stream(1234, 3, 5, 0.1);
  std::vector<std::uint32_t> words(32);
  worker::random_words(stream, 9, 0, 1, words.data());
  for (std::size_t i = 0; i < 32; ++i) CHECK(words[i] == static_cast<std::uint32_t>(expected.at(i).integer()));
}

TEST_CASE("dropout keeps and scales by sample and element") {
  const DropoutStream stream = worker::make_dropout_stream(5, 2, 17, 0.25);
  const at::Tensor input = at::randn({6, 5, 7});
  SECTION("samples on the first dim") {
    const at::Tensor output = worker::dropout(input, stream, {0, 2, 10});
    for (int s = 0; s < 3; ++s)
      for (int e = 0; e < 70; ++e) {
        const float x = input.view({3, 70})[s][e].item<float>();
        CHECK(output.view({3, 70})[s][e].item<float>() == (is_kept(stream, 10 + s, e) ? x * (1.0F / 0.75F) : 0.0F));
      }
  }
  SECTION("on another dim, elements count with the sample dim first") {
    const at::Tensor output = worker::dropout(input.transpose(0, 1).contiguous(), stream, {1, 1, 10});
    CHECK(close(output.transpose(0, 1), worker::dropout(input, stream, {0, 1, 10}), 0));
  }
  SECTION("a part of the batch gets the masks of the whole") {
    const at::Tensor whole = worker::dropout(input, stream, {0, 1, 4});
    CHECK(close(whole.narrow(0, 2, 3), worker::dropout(input.narrow(0, 2, 3), stream, {0, 1, 6}), 0));
  }
  SECTION("backward draws the same mask") {
    at::Tensor leaf = input.clone().set_requires_grad(true);
    const at::Tensor output = worker::dropout(leaf, stream, {0, 1, 0});
    const auto gradient = torch::autograd::grad({output.sum()}, {leaf})[0];
    CHECK(close(gradient, worker::dropout(at::ones_like(input), stream, {0, 1, 0}), 0));
  }
  SECTION("the kept fraction is one minus the probability") {
    const at::Tensor many = worker::dropout(at::ones_like(at::empty({1000, 100})), stream, {0, 1, 0});
    // Standard deviation of the mean of 100,000 decisions: 0.0014 x 4 / 3.
    CHECK(std::abs(many.mean().item<double>() - 1) < 0.01);
  }
}

TEST_CASE("attention with dropout equals its definition, forward and backward") {
  // Row lengths around the vector width and the group of 32.
  for (const std::int64_t length : {5, 8, 33}) {
    for (const bool causal : {false, true}) {
      DYNAMIC_SECTION(length << (causal ? " causal" : "")) {
        const std::int64_t batch = 2, heads = 3, width = 4;
        std::vector<at::Tensor> leaves;
        for (int i = 0; i < 3; ++i) leaves.push_back(at::randn({batch, heads, length, width}).set_requires_grad(true));
        worker::AttentionArguments arguments;
        arguments.query = leaves[0];
        arguments.key = leaves[1];
        arguments.value = leaves[2];
        arguments.is_causal = causal;
        arguments.stream = worker::make_dropout_stream(3, 1, 4, 0.3);
        arguments.place = {0, 1, 7};
        at::Tensor mask = at::randn({length, length});
        if (!causal) arguments.mask = mask;
        const at::Tensor output = worker::dropout_attention(arguments);

        at::Tensor keep = at::empty({batch, heads, length, length});
        const std::int64_t padded = (length + 31) / 32 * 32;
        for (std::int64_t b = 0; b < batch; ++b)
          for (std::int64_t h = 0; h < heads; ++h)
            for (std::int64_t i = 0; i < length; ++i)
              for (std::int64_t j = 0; j < length; ++j)
                keep[b][h][i][j] =
                    is_kept(arguments.stream, static_cast<std::uint32_t>(7 + b), (h * length + i) * padded + j)
                        ? 1 / 0.7
                        : 0.0;
        at::Tensor scores = leaves[0].matmul(leaves[1].transpose(2, 3)).div(2.0);
        if (causal) {
          scores = at::where(at::tril(at::ones_like(scores)).gt(0), scores, at::full_like(scores, -INFINITY));
        } else {
          scores = scores.add(mask);
        }
        const at::Tensor wanted = at::softmax(scores, -1).mul(keep).matmul(leaves[2]);
        CHECK(close(output, wanted, 1e-5));
        const at::Tensor weight = at::randn({batch, heads, length, width});
        const auto got = torch::autograd::grad({output}, {leaves[0], leaves[1], leaves[2]}, {weight});
        const auto expected = torch::autograd::grad({wanted}, {leaves[0], leaves[1], leaves[2]}, {weight});
        for (int i = 0; i < 3; ++i) CHECK(close(got[i], expected[i], 1e-5));
      }
    }
  }
}

TEST_CASE("attention takes bool masks, fewer key heads, and rows that see nothing") {
  const at::Tensor query = at::randn({2, 4, 6, 8}), key = at::randn({2, 2, 6, 8}), value = at::randn({2, 2, 6, 8});
  worker::AttentionArguments arguments;
  arguments.query = query;
  arguments.key = key;
  arguments.value = value;
  arguments.mask = at::randn({2, 1, 6, 6}).gt(-0.5);
  arguments.mask[1][0][3].fill_(false);
  arguments.mask[0][0].select(1, 0).fill_(true);
  arguments.stream = worker::make_dropout_stream(1, 1, 1, 0.0);
  arguments.place = {0, 1, 0};
  const at::Tensor output = worker::dropout_attention(arguments);
  const at::Tensor wanted =
      at::scaled_dot_product_attention(query, key, value, arguments.mask, 0.0, false, std::nullopt, true);
  CHECK(close(output[0], wanted[0], 1e-5));
  CHECK(output[1].select(1, 3).abs().max().item<double>() == 0);
}

TEST_CASE("size classes waste at most an eighth and are fixed points") {
  for (std::size_t request = 1; request < (1 << 20); request = request * 9 / 8 + 1) {
    const std::size_t bytes = worker::size_class_bytes(request);
    CHECK(bytes >= request);
    CHECK(bytes % 64 == 0);
    CHECK(worker::size_class_bytes(bytes) == bytes);
    if (request > 512) CHECK(static_cast<double>(bytes) <= 1.125 * static_cast<double>(request) + 64);
  }
}

TEST_CASE("the allocator counts what is in use and reuses what was freed") {
  worker::install_caching_allocator();
  const Bytes before = worker::memory_in_use();
  const void* first = nullptr;
  {
    const at::Tensor tensor = at::empty({1000});
    first = tensor.data_ptr();
    CHECK(worker::memory_in_use().value - before.value == 4096);
  }
  CHECK(worker::memory_in_use() == before);
  worker::reset_memory_peak();
  const at::Tensor again = at::empty({1010});
  CHECK(again.data_ptr() == first);
  CHECK(reinterpret_cast<std::uintptr_t>(first) % 64 == 0);
  { const at::Tensor more = at::empty({1 << 18}); }
  CHECK(worker::memory_peak().value - before.value == 4096 + (1 << 20));
}

TEST_CASE("what lives as long as the training takes just its bytes, and gives them back") {
  worker::install_caching_allocator();
  const Bytes before = worker::memory_in_use();
  {
    at::Tensor exact;
    {
      const worker::ExactSizes exact_sizes;
      exact = at::empty({1'000'003});
    }
    CHECK(worker::memory_in_use().value - before.value == 4'000'064);
    CHECK(reinterpret_cast<std::uintptr_t>(exact.data_ptr()) % 64 == 0);
    // Size classes again: 512 x 2^12 x (1 + 8 / 8).
    const at::Tensor rounded = at::empty({1'000'003});
    CHECK(worker::memory_in_use().value - before.value == 4'000'064 + 4'194'304);
  }
  CHECK(worker::memory_in_use() == before);
}

TEST_CASE("the learning rate warms up and falls along a cosine") {
  worker::OptimizerSettings optimizer;
  optimizer.learning_rate = 2;
  optimizer.warmup_steps = 4;
  optimizer.min_ratio = 0.1;
  CHECK(worker::learning_rate_of(optimizer, 1, 10) == Approx(0.5));
  CHECK(worker::learning_rate_of(optimizer, 4, 10) == Approx(2.0));
  CHECK(worker::learning_rate_of(optimizer, 7, 10) == Approx(2 * 0.55));
  CHECK(worker::learning_rate_of(optimizer, 10, 10) == Approx(0.2));
  optimizer.decay = "constant";
  CHECK(worker::learning_rate_of(optimizer, 9, 10) == Approx(2.0));
}

}  // namespace coxswain::tests
