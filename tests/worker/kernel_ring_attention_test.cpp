// Ring attention against libtorch's attention on the whole in float64, and with dropout against the engine's own.
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <array>
#include <atomic>
#include <cmath>
#include <limits>

#include "tests/worker/kernel_support.h"
#include "worker/engine/attention.h"
#include "worker/engine/caching_allocator.h"
#include "worker/engine/ring_attention.h"

#undef CHECK
#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

struct Case {
  std::array<at::Tensor, 3> inputs;  // query, key, value of the whole
  at::Tensor mask;                   // of the whole
  Runs runs;
  bool is_causal = false;
  std::optional<double> scale;
  at::Tensor incoming;  // of the whole output
  worker::DropoutStream stream;
};

/// Output and the gradients of query, key and value.
using Outcome = std::array<at::Tensor, 4>;

at::Tensor random_inputs(Case& c, std::int64_t batch, std::int64_t heads, std::int64_t key_heads, std::int64_t rows,
                         std::int64_t depth, std::int64_t value_depth) {
  c.inputs = {at::randn({batch, heads, rows, depth}), at::randn({batch, key_heads, rows, depth}),
              at::randn({batch, key_heads, rows, value_depth})};
  c.incoming = at::randn({batch, heads, rows, value_depth});
  return c.incoming;
}

Outcome outcome_of(const at::Tensor& output, std::array<at::Tensor, 3>& leaves, const at::Tensor& incoming) {
  const auto gradients = torch::autograd::grad({output}, {leaves[0], leaves[1], leaves[2]}, {incoming});
  return {output.detach(), gradients[0], gradients[1], gradients[2]};
}

Outcome whole_outcome(const Case& c) {
  std::array<at::Tensor, 3> leaves;
  for (int i = 0; i < 3; ++i) leaves[i] = c.inputs[i].to(at::kDouble).set_requires_grad(true);
  std::optional<at::Tensor> mask;
  if (c.mask.defined()) mask = c.mask.scalar_type() == at::kBool ? c.mask : c.mask.to(at::kDouble);
  const at::Tensor output =
      at::scaled_dot_product_attention(leaves[0], leaves[1], leaves[2], mask, 0.0, c.is_causal, c.scale, true);
  return outcome_of(output, leaves, c.incoming.to(at::kDouble));
}

// The engine's own attention with dropout, on the whole.
Outcome dropout_outcome(const Case& c) {
  std::array<at::Tensor, 3> leaves;
  for (int i = 0; i < 3; ++i) leaves[i] = c.inputs[i].clone().set_requires_grad(true);
  worker::AttentionArguments arguments;
  arguments.query = leaves[0];
  arguments.key = leaves[1];
  arguments.value = leaves[2];
  arguments.mask = c.mask;
  arguments.is_causal = c.is_causal;
  arguments.scale = c.scale;
  arguments.stream = c.stream;
  arguments.place = {0, 1, 5};
  return outcome_of(worker::dropout_attention(arguments), leaves, c.incoming);
}

worker::RingAttentionArguments arguments_of(const Case& c, const std::vector<worker::Run>& own) {
  worker::RingAttentionArguments arguments;
  arguments.query = part_of(c.inputs[0], 2, own);
  arguments.key = part_of(c.inputs[1], 2, own);
  arguments.value = part_of(c.inputs[2], 2, own);
  if (c.mask.defined()) arguments.mask = c.mask.size(-2) == 1 ? c.mask : part_of(c.mask, c.mask.dim() - 2, own);
  arguments.runs = flat(c.runs);
  arguments.is_causal = c.is_causal;
  arguments.scale = c.scale;
  arguments.enable_gqa = true;
  arguments.stream = c.stream;
  arguments.place = {0, 1, 5};
  return arguments;
}

std::vector<Outcome> ring_outcomes(const Case& c) {
  std::vector<Outcome> outcomes(c.runs.size());
  const auto problems = run_members(static_cast<int>(c.runs.size()), [&](const worker::ParallelLink& link, int member) {
    const auto& own = c.runs[member];
    worker::RingAttentionArguments arguments = arguments_of(c, own);
    std::array<at::Tensor, 3> leaves{arguments.query, arguments.key, arguments.value};
    for (at::Tensor& leaf : leaves) leaf.set_requires_grad(true);
    const at::Tensor output = worker::ring_attention(arguments, link);
    outcomes[member] = outcome_of(output, leaves, part_of(c.incoming, 2, own).to(output.scalar_type()));
  });
  for (const std::string& problem : problems) CHECK(problem == "");
  return outcomes;
}

void compare(const Case& c, const Outcome& wanted, double tolerance) {
  const auto got = ring_outcomes(c);
  for (std::size_t m = 0; m < got.size(); ++m)
    for (int i = 0; i < 4; ++i) {
      CAPTURE(m, i);
      REQUIRE(got[m][i].defined());
      CHECK(largest_difference(got[m][i], part_of(wanted[i], 2, c.runs[m])) <= tolerance);
    }
}
void compare(const Case& c, double tolerance) { compare(c, whole_outcome(c), tolerance); }

/// Chunk i and chunk 2 n - 1 - i of 2 n: under causality all members have as much to do.
Runs zig_zag(const std::vector<std::int64_t>& sizes) {
  const std::size_t members = sizes.size() / 2;
  const Runs chunks = parts(sizes);
  Runs runs;
  for (std::size_t m = 0; m < members; ++m) runs.push_back({chunks[m][0], chunks[2 * members - 1 - m][0]});
  return runs;
}

// 21 rows each.
std::vector<std::pair<std::string, Runs>> row_parts() {
  return {{"one member", parts({21})},
          {"two", parts({13, 8})},
          {"three, one row", parts({1, 12, 8})},
          {"four", parts({5, 6, 5, 5})},
          {"three, one without rows", parts({10, 0, 11})},
          {"zig-zag of one", zig_zag({10, 11})},
          {"zig-zag of two", zig_zag({5, 5, 5, 6})},
          {"zig-zag of four, uneven", zig_zag({3, 2, 3, 3, 1, 3, 4, 2})}};
}

}  // namespace

TEST_CASE("ring attention equals attention of the whole") {
  for (const auto& [name, runs] : row_parts())
    for (const bool causal : {false, true})
      for (const std::int64_t key_heads : {4, 2, 1}) {
        DYNAMIC_SECTION(name << (causal ? ", causal, " : ", ") << key_heads << " key heads") {
          Case c;
          random_inputs(c, 2, 4, key_heads, 21, 8, 6);
          c.runs = runs;
          c.is_causal = causal;
          compare(c, 1e-5);
        }
      }
}

TEST_CASE("masks broadcast, hide or add, and belong to own rows and all keys") {
  for (const auto& [name, runs] : row_parts())
    for (const bool additive : {false, true})
      for (const std::vector<std::int64_t>& sizes :
           std::vector<std::vector<std::int64_t>>{{2, 4, 21, 21}, {2, 1, 21, 21}, {21, 21}, {2, 1, 1, 21}}) {
        DYNAMIC_SECTION(name << (additive ? ", added, " : ", bool, ") << sizes.size() << " dims of " << sizes[0]) {
          Case c;
          random_inputs(c, 2, 4, 2, 21, 8, 8);
          c.mask = additive ? at::randn(sizes) : at::randn(sizes).gt(-0.7);
          if (!additive) c.mask.select(-1, 3).fill_(true);
          c.runs = runs;
          c.scale = 0.5;
          compare(c, 1e-5);
        }
      }
}

TEST_CASE("rows of several tiles") {
  for (const bool causal : {false, true}) {
    Case c;
    random_inputs(c, 1, 2, 1, 700, 16, 16);
    c.runs = zig_zag({200, 150, 190, 160});
    c.is_causal = causal;
    compare(c, 2e-5);
  }
}

TEST_CASE("masks that hide whole tiles") {
  for (const bool additive : {false, true})
    for (const Runs& runs : {parts({700}), zig_zag({200, 150, 190, 160})}) {
      Case c;
      random_inputs(c, 1, 2, 1, 700, 16, 16);
      c.mask = at::ones({700, 700}, at::kBool).tril();
      c.runs = runs;
      if (additive)
        c.mask = at::zeros({700, 700}).masked_fill(c.mask.logical_not(), -std::numeric_limits<double>::infinity());
      compare(c, 2e-5);
      // No tile of the first rows reaches the last keys, so what stands there is not looked at.
      c.inputs[2].narrow(2, 690, 10).fill_(std::numeric_limits<double>::quiet_NaN());
      CHECK(std::isfinite(ring_outcomes(c)[0][0].narrow(2, 0, 128).abs().max().item<double>()));
    }
}

TEST_CASE("a row that sees nothing gives zeros and no gradient") {
  Case c;
  random_inputs(c, 1, 2, 2, 9, 4, 4);
  c.mask = at::randn({9, 9}).gt(-0.5);
  c.mask.fill_diagonal_(true);
  c.mask[6].fill_(false);
  c.runs = parts({5, 4});
  const auto got = ring_outcomes(c);
  CHECK(got[1][0].select(2, 1).abs().max().item<double>() == 0);
  CHECK(got[1][1].select(2, 1).abs().max().item<double>() == 0);
  c.incoming.select(2, 6).zero_();
  Outcome wanted = whole_outcome(c);
  for (at::Tensor& tensor : wanted) tensor.nan_to_num_(0.0);
  compare(c, wanted, 1e-5);
}

TEST_CASE("bfloat16 within its tolerance") {
  for (const bool causal : {false, true}) {
    Case c;
    random_inputs(c, 2, 4, 2, 48, 16, 16);
    for (at::Tensor& input : c.inputs) input = input.to(at::kBFloat16);
    c.incoming = c.incoming.to(at::kBFloat16);
    c.runs = zig_zag({12, 12, 12, 12});
    c.is_causal = causal;
    const Outcome wanted = whole_outcome(c);
    const auto got = ring_outcomes(c);
    for (std::size_t m = 0; m < got.size(); ++m)
      for (int i = 0; i < 4; ++i) {
        const at::Tensor part = part_of(wanted[i], 2, c.runs[m]);
        CHECK(got[m][i].scalar_type() == at::kBFloat16);
        CHECK(largest_difference(got[m][i], part) <= 2e-2 * part.abs().max().item<double>());
      }
  }
}

TEST_CASE("dropout inside the ring is that of the whole") {
  for (const auto& [name, runs] : row_parts())
    for (const bool causal : {false, true}) {
      DYNAMIC_SECTION(name << (causal ? ", causal" : "")) {
        Case c;
        random_inputs(c, 2, 4, 2, 21, 8, 8);
        if (!causal) c.mask = at::randn({21, 21});
        c.runs = runs;
        c.is_causal = causal;
        c.stream = worker::make_dropout_stream(3, 2, 8, 0.3);
        compare(c, dropout_outcome(c), 1e-5);
      }
    }
  SECTION("positions past one group of words, some heads of the whole") {
    Case c;
    random_inputs(c, 2, 4, 4, 150, 8, 8);
    c.runs = zig_zag({40, 33, 37, 40});
    c.is_causal = true;
    c.stream = worker::make_dropout_stream(3, 2, 8, 0.3);
    const Outcome wanted = dropout_outcome(c);
    compare(c, wanted, 1e-5);
    const auto problems = run_members(2, [&](const worker::ParallelLink& link, int member) {
      worker::RingAttentionArguments arguments = arguments_of(c, c.runs[member]);
      for (at::Tensor* part : {&arguments.query, &arguments.key, &arguments.value}) *part = part->narrow(1, 1, 2);
      arguments.first_head = 1;
      arguments.num_heads = 4;
      const at::Tensor output = worker::ring_attention(arguments, link);
      if (largest_difference(output, part_of(wanted[0], 2, c.runs[member]).narrow(1, 1, 2)) > 1e-5)
        throw std::runtime_error("other masks");
    });
    for (const std::string& problem : problems) CHECK(problem == "");
  }
}

TEST_CASE("queries of another length than the keys, without heads") {
  const Runs keys = parts({7, 5}), queries = parts({2, 4});
  const at::Tensor query = at::randn({3, 6, 8}), key = at::randn({3, 12, 8}), value = at::randn({3, 12, 8});
  const at::Tensor wanted = at::scaled_dot_product_attention(query, key, value);
  const auto problems = run_members(2, [&](const worker::ParallelLink& link, int member) {
    worker::RingAttentionArguments arguments;
    arguments.query = part_of(query, 1, queries[member]);
    arguments.key = part_of(key, 1, keys[member]);
    arguments.value = part_of(value, 1, keys[member]);
    arguments.runs = flat(keys);
    const at::Tensor output = worker::ring_attention(arguments, link);
    if (largest_difference(output, part_of(wanted, 1, queries[member])) > 1e-5) throw std::runtime_error("differs");
  });
  for (const std::string& problem : problems) CHECK(problem == "");
}

TEST_CASE("a block of keys travels only as far as somebody sees it") {
  // Under causality member i needs the blocks of members 0 to i alone: 3 + 2 + 1 hops among 4, of all 12.
  for (const bool causal : {false, true}) {
    Case c;
    random_inputs(c, 1, 1, 1, 32, 4, 4);
    c.runs = parts({8, 8, 8, 8});
    c.is_causal = causal;
    std::atomic<std::int64_t> bytes{0};
    struct Counting final : collective::Communicator {
      Counting(collective::Communicator& inner, std::atomic<std::int64_t>& bytes) : inner_(inner), bytes_(bytes) {}
      int rank() const override { return inner_.rank(); }
      int size() const override { return inner_.size(); }
      const collective::Capabilities& capabilities() const override { return inner_.capabilities(); }
      collective::Handle exchange(std::vector<collective::PointToPoint> operations, Deadline deadline) override {
        for (const auto& one : operations)
          if (one.kind == collective::PointToPoint::Kind::Send) bytes_ += one.buffer.bytes().value;
        return inner_.exchange(std::move(operations), deadline);
      }
      collective::Handle all_reduce(collective::BufferView, collective::ReduceOp, Deadline) override { return {}; }
      collective::Handle all_gather(collective::BufferView, collective::BufferView, std::vector<std::int64_t>,
                                    Deadline) override {
        return {};
      }
      collective::Handle reduce_scatter(collective::BufferView, collective::BufferView, std::vector<std::int64_t>,
                                        collective::ReduceOp, Deadline) override {
        return {};
      }
      collective::Handle all_to_all(collective::BufferView, collective::BufferView, std::vector<std::int64_t>,
                                    std::vector<std::int64_t>, Deadline) override {
        return {};
      }
      collective::Handle broadcast(collective::BufferView, int, Deadline) override { return {}; }
      collective::Handle barrier(Deadline) override { return {}; }
      Result<std::unique_ptr<Communicator>> split(std::vector<int>, Deadline) override {
        return std::unique_ptr<Communicator>();
      }
      Result<std::shared_ptr<void>> allocate_registered(Bytes) override { return std::shared_ptr<void>(); }
      void abort(std::string reason) override { inner_.abort(std::move(reason)); }
      collective::Communicator& inner_;
      std::atomic<std::int64_t>& bytes_;
    };
    const auto problems = run_members(4, [&](const worker::ParallelLink& link, int member) {
      Counting counting(*link.communicator, bytes);
      static_cast<void>(worker::ring_attention(arguments_of(c, c.runs[member]), {&counting, link.timeout}));
    });
    for (const std::string& problem : problems) CHECK(problem == "");
    const std::int64_t block = 2 * 8 * 4 * 4;  // keys and values, 8 rows of 4 floats
    CHECK(bytes == (causal ? 6 : 12) * block);
  }
}

TEST_CASE("attention keeps no matrix of scores") {
  worker::install_caching_allocator();
  Case c;
  const std::int64_t rows = 1024, heads = 4, depth = 32;
  random_inputs(c, 1, heads, heads, rows, depth, depth);
  c.runs = parts({rows});
  worker::RingAttentionArguments arguments = arguments_of(c, c.runs[0]);
  for (at::Tensor* input : {&arguments.query, &arguments.key, &arguments.value}) input->set_requires_grad(true);
  const std::int64_t before = worker::memory_in_use().value;
  worker::reset_memory_peak();
  const at::Tensor output = worker::ring_attention(arguments, {});
  static_cast<void>(torch::autograd::grad({output}, {arguments.query, arguments.key, arguments.value}, {c.incoming}));
  // Output, its product with the gradient, three gradients, and tiles: one head's scores alone are 4 MiB.
  const std::int64_t tensor = heads * rows * depth * 4;
  CHECK(worker::memory_peak().value - before < 6 * tensor + 3 * 128 * 256 * 4 + 256 * 1024);
}

TEST_CASE("what does not fit is named with both sides") {
  const auto problem_of = [](auto&& change) {
    Case c;
    random_inputs(c, 1, 4, 2, 6, 4, 4);
    c.runs = parts({6});
    worker::RingAttentionArguments arguments = arguments_of(c, c.runs[0]);
    change(arguments);
    try {
      static_cast<void>(worker::ring_attention(arguments, {}));
    } catch (const std::exception& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK_THAT(problem_of([](auto& a) { a.enable_gqa = false; }), Catch::Contains("2 key heads for 4 query heads"));
  CHECK_THAT(problem_of([](auto& a) { a.runs = {0, 5}; }), Catch::Contains("5 keys by its runs and 6 rows"));
  CHECK_THAT(problem_of([](auto& a) { a.runs = {0, 3, 3}; }), Catch::Contains("first and size of every run"));
}

}  // namespace coxswain::tests
