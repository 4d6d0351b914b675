// Products with chosen experts against gathered matrices, and a mixture of experts over a group against the whole.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/sort.h>

#include "tests/worker/kernel_support.h"
#include "worker/engine/caching_allocator.h"
#include "worker/engine/expert_linear.h"
#include "worker/engine/expert_load.h"
#include "worker/engine/expert_parallel.h"
#include "worker/engine/mesh_experts.h"
#include "worker/engine/op_call.h"

#undef CHECK
#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

at::Tensor gathered_linear(const at::Tensor& input, const at::Tensor& table, const at::Tensor& indices) {
  return at::bmm(table.index({indices}), input.unsqueeze(2)).squeeze(2);
}

// Output and gradients of `run(input, table)` for the same incoming gradient.
template <class Run>
std::vector<at::Tensor> results_of(const at::Tensor& input, const at::Tensor& table, const at::Tensor& incoming,
                                   Run&& run) {
  at::Tensor x = input.detach().clone().set_requires_grad(true), w = table.detach().clone().set_requires_grad(true);
  const at::Tensor output = run(x, w);
  const auto gradients = torch::autograd::grad({output}, {x, w}, {incoming.to(output.scalar_type())});
  return {output.detach(), gradients[0], gradients[1]};
}

void compare(const std::vector<at::Tensor>& got, const std::vector<at::Tensor>& wanted, double tolerance) {
  REQUIRE(got.size() == wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    CHECK(largest_difference(got[i], wanted[i]) <= tolerance);
  }
}

}  // namespace

TEST_CASE("rows times the matrices of chosen experts equal gathered matrices") {
  const std::int64_t rows = 23, in = 7, out = 5, experts = 6;
  const at::Tensor input = at::randn({rows, in}), table = at::randn({experts, out, in});
  at::Tensor indices = at::randint(experts, {rows}, at::kLong);
  indices.masked_fill_(indices.eq(2), 4);  // nobody chose expert 2
  const at::Tensor incoming = at::randn({rows, out});
  const auto wanted = results_of(input.to(at::kDouble), table.to(at::kDouble), incoming,
                                 [&](auto& x, auto& w) { return gathered_linear(x, w, indices); });
  SECTION("one vector a row") {
    compare(results_of(input, table, incoming, [&](auto& x, auto& w) { return worker::expert_linear(x, w, indices); }),
            wanted, 1e-5);
  }
  SECTION("bfloat16") {
    const auto got = results_of(input.to(at::kBFloat16), table.to(at::kBFloat16), incoming,
                                [&](auto& x, auto& w) { return worker::expert_linear(x, w, indices); });
    for (std::size_t i = 0; i < got.size(); ++i)
      CHECK(largest_difference(got[i], wanted[i]) <= 2e-2 * wanted[i].abs().max().item<double>());
  }
  SECTION("as bmm of columns, and of rows with a transposed table") {
    compare(
        results_of(input, table, incoming,
                   [&](auto& x, auto& w) { return worker::expert_bmm(x.unsqueeze(2), w, indices, false).squeeze(2); }),
        wanted, 1e-5);
    auto transposed = wanted;
    transposed[2] = transposed[2].transpose(1, 2);
    compare(
        results_of(input, table.transpose(1, 2), incoming,
                   [&](auto& x, auto& w) { return worker::expert_bmm(x.unsqueeze(1), w, indices, true).squeeze(1); }),
        transposed, 1e-5);
  }
  SECTION("sorted rows in groups, as transformers' operator takes them") {
    const auto [sorted, order] = at::sort(indices);
    const at::Tensor ends = at::cumsum(at::bincount(sorted, {}, experts), 0).to(at::kInt);
    const auto grouped = [&](auto& x, auto& w) {
      const at::Tensor y = worker::grouped_mm(x.index({order}), w.transpose(1, 2), ends);
      return at::empty_like(y).index_put({order}, y);
    };
    compare(results_of(input, table, incoming, grouped), wanted, 1e-5);
  }
}

TEST_CASE("rows past the last group give zeros, as transformers' fallback does") {
  const at::Tensor input = at::randn({5, 3}), weight = at::randn({2, 3, 4});
  at::Tensor ends = at::full({2}, 3, at::kLong);
  ends[0] = 1;
  const at::Tensor output = worker::grouped_mm(input, weight, ends);
  CHECK(largest_difference(output.narrow(0, 0, 1), input.narrow(0, 0, 1).mm(weight[0])) < 1e-6);
  CHECK(largest_difference(output.narrow(0, 1, 2), input.narrow(0, 1, 2).mm(weight[1])) < 1e-6);
  CHECK(output.narrow(0, 3, 2).abs().max().item<double>() == 0);
}

TEST_CASE("no matrix is gathered") {
  worker::install_caching_allocator();
  const std::int64_t rows = 512, width = 64, experts = 8;
  const at::Tensor input = at::randn({rows, width}).set_requires_grad(true);
  const at::Tensor table = at::randn({experts, width, width}).set_requires_grad(true);
  const at::Tensor indices = at::randint(experts, {rows}, at::kLong), incoming = at::randn({rows, width});
  const std::int64_t before = worker::memory_in_use().value;
  worker::reset_memory_peak();
  const at::Tensor output = worker::expert_linear(input, table, indices);
  static_cast<void>(torch::autograd::grad({output}, {input, table}, {incoming}));
  // Output, two gradients, and one expert's rows twice; gathered matrices would take 8 MiB.
  CHECK(worker::memory_peak().value - before < 4 * rows * width * 4 + experts * width * width * 4);
}

TEST_CASE("the dispatcher knows the operators") {
  CHECK(worker::has_kernel("transformers::grouped_mm_fallback.default"));
  CHECK(worker::has_kernel("coxswain::expert_bmm.default"));
  const auto handle = c10::Dispatcher::singleton().findSchema({"transformers::grouped_mm_fallback", ""});
  REQUIRE(handle);
  const at::Tensor input = at::randn({4, 3}), weight = at::randn({2, 3, 5});
  const at::Tensor ends = at::full({2}, 4, at::kInt);
  std::vector<c10::IValue> stack{input, weight, ends};
  handle->callBoxed(stack);
  CHECK(largest_difference(stack.at(0).toTensor(), input.mm(weight[0])) < 1e-6);
}

TEST_CASE("a watch sees how unevenly experts are chosen, forward alone") {
  const at::Tensor table = at::randn({2, 3, 5}).set_requires_grad(true);
  const auto run = [&](const std::vector<std::int64_t>& chosen) {
    const at::Tensor indices = at::empty({static_cast<std::int64_t>(chosen.size())}, at::kLong);
    std::copy(chosen.begin(), chosen.end(), indices.mutable_data_ptr<std::int64_t>());
    const auto rows = static_cast<std::int64_t>(chosen.size());
    const at::Tensor output = worker::expert_linear(at::randn({rows, 5}), table, indices);
    torch::autograd::grad({output}, {table}, {at::randn({rows, 3})});
  };
  run({0, 1});
  worker::ExpertLoadWatch watch;
  CHECK(watch.take_squared_cv() == 0);
  run({0, 0, 1, 0});  // 3 and 1 of a mean of 2
  CHECK(watch.take_squared_cv() == 0.25);
  run({0, 1});
  run({1, 1});  // 0 and 2 of a mean of 1
  CHECK(watch.take_squared_cv() == 0.5);
  CHECK(watch.take_squared_cv() == 0);
}

TEST_CASE("an index that is no expert is named") {
  const at::Tensor input = at::randn({3, 2}), table = at::randn({4, 5, 2});
  at::Tensor indices = at::full({3}, 1, at::kLong);
  indices[2] = 4;
  CHECK_THROWS_WITH(worker::expert_linear(input, table, indices), Catch::Contains("row 2 chose expert 4 of 4"));
}

namespace {

struct Mixture {
  at::Tensor x, weights, indices, up, down;  // (tokens, width), (tokens, chosen) twice, two tables
};

at::Tensor whole_mixture(const Mixture& m) {
  const std::int64_t chosen = m.indices.size(1);
  const at::Tensor flat = m.indices.reshape({-1});
  const at::Tensor inner = at::silu(gathered_linear(m.x.repeat_interleave(chosen, 0), m.up, flat));
  const at::Tensor out = gathered_linear(inner, m.down, flat).mul(m.weights.reshape({-1, 1}));
  return out.view({m.x.size(0), chosen, m.x.size(1)}).sum(1);
}

at::Tensor parallel_mixture(const Mixture& m, const worker::RoutingOptions& options, const worker::ParallelLink& link,
                            std::vector<std::int64_t>& loads) {
  const std::int64_t chosen = m.indices.size(1);
  const auto routing = worker::route(m.indices.reshape({-1}), options, link);
  loads = routing->rows_per_expert;
  const at::Tensor here = worker::dispatch(m.x.repeat_interleave(chosen, 0), routing, link);
  const at::Tensor inner = at::silu(worker::expert_linear(here, m.up, routing->own_experts));
  const at::Tensor there = worker::expert_linear(inner, m.down, routing->own_experts);
  const at::Tensor out = worker::combine(there, routing, link).mul(m.weights.reshape({-1, 1}));
  return out.view({m.x.size(0), chosen, m.x.size(1)}).sum(1);
}

Mixture make_mixture(std::int64_t tokens, std::int64_t experts) {
  Mixture m;
  m.x = at::randn({tokens, 6});
  m.weights = at::randn({tokens, 2});
  m.indices = at::randint(experts - 1, {tokens, 2}, at::kLong);  // nobody chose the last one
  m.up = at::randn({experts, 9, 6});
  m.down = at::randn({experts, 6, 9});
  return m;
}

std::vector<at::Tensor> gradients_of(Mixture& m, const at::Tensor& output, const at::Tensor& incoming) {
  auto gradients = torch::autograd::grad({output}, {m.x, m.weights, m.up, m.down}, {incoming});
  gradients.insert(gradients.begin(), output.detach());
  return gradients;
}

void require_gradients(Mixture& m) {
  for (at::Tensor* tensor : {&m.x, &m.weights, &m.up, &m.down})
    *tensor = tensor->detach().clone().set_requires_grad(true);
}

}  // namespace

TEST_CASE("experts over a group equal all experts in one place") {
  struct Split {
    Runs tokens, experts;
  };
  const std::vector<Split> splits{{parts({11}), parts({5})},
                                  {parts({6, 5}), parts({2, 3})},
                                  {parts({11, 0}), parts({1, 4})},  // one member without tokens
                                  {parts({3, 4, 4}), parts({2, 2, 1})},
                                  {parts({2, 3, 1, 5}), parts({1, 2, 1, 1})},
                                  {parts({6, 5}), {{{0, 1}, {3, 1}}, {{1, 2}, {4, 1}}}}};  // experts in two runs
  for (std::size_t s = 0; s < splits.size(); ++s) {
    DYNAMIC_SECTION("split " << s) {
      const Split& split = splits[s];
      Mixture whole = make_mixture(11, 5);
      require_gradients(whole);
      const at::Tensor incoming = at::randn({11, 6});
      const auto wanted = gradients_of(whole, whole_mixture(whole), incoming);
      const int members = static_cast<int>(split.tokens.size());
      std::vector<std::vector<at::Tensor>> got(members);
      std::vector<std::vector<std::int64_t>> loads(members);
      const auto problems = run_members(members, [&](const worker::ParallelLink& link, int member) {
        Mixture own;
        own.x = part_of(whole.x.detach(), 0, split.tokens[member]);
        own.weights = part_of(whole.weights.detach(), 0, split.tokens[member]);
        own.indices = part_of(whole.indices, 0, split.tokens[member]);
        own.up = part_of(whole.up.detach(), 0, split.experts[member]);
        own.down = part_of(whole.down.detach(), 0, split.experts[member]);
        require_gradients(own);
        worker::RoutingOptions options;
        options.runs = flat(split.experts);
        const at::Tensor output = parallel_mixture(own, options, link, loads[member]);
        got[member] = gradients_of(own, output, part_of(incoming, 0, split.tokens[member]));
      });
      for (const std::string& problem : problems) CHECK(problem == "");
      for (int m = 0; m < members; ++m) {
        const auto& tokens = split.tokens[m];
        const auto& experts = split.experts[m];
        compare(got[m],
                {part_of(wanted[0], 0, tokens), part_of(wanted[1], 0, tokens), part_of(wanted[2], 0, tokens),
                 part_of(wanted[3], 0, experts), part_of(wanted[4], 0, experts)},
                2e-5);
        REQUIRE(loads[m].size() == 5);
        for (std::int64_t e = 0; e < 5; ++e) CHECK(loads[m][e] == whole.indices.eq(e).sum().item<std::int64_t>());
      }
    }
  }
}

TEST_CASE("a routing is a tensor of numbers and comes back from it") {
  worker::RoutingOptions options;
  options.runs = {0, 4};
  const at::Tensor chosen = at::randint(4, {7}, at::kLong);
  const auto routing = worker::route(chosen, options, {});
  const worker::ExpertRouting back = worker::routing_from_tensor(worker::to_tensor(*routing));
  CHECK(back.order == routing->order);
  CHECK(back.send_rows == std::vector<std::int64_t>{7});
  CHECK(back.receive_rows == routing->receive_rows);
  CHECK(back.rows_per_expert == routing->rows_per_expert);
  CHECK(at::equal(back.own_experts, std::get<0>(chosen.sort())));
  options.runs = {0, 2};
  const worker::ExpertRouting none =
      worker::routing_from_tensor(worker::to_tensor(*worker::route(at::full({0}, 0, at::kLong), options, {})));
  CHECK(none.order.empty());
  CHECK(none.num_received() == 0);
}

TEST_CASE("a capacity that is exceeded is named by every member, with the expert and its rows") {
  const Runs experts = parts({2, 2});
  const auto problems = run_members(2, [&](const worker::ParallelLink& link, int) {
    worker::RoutingOptions options;
    options.runs = flat(experts);
    options.capacity = 5;
    options.where = "layers.1.mlp";
    // Three rows of each member chose expert 3.
    static_cast<void>(worker::route(at::full({3}, 3, at::kLong), options, link));
  });
  for (const std::string& problem : problems)
    CHECK_THAT(problem, Catch::Contains("layers.1.mlp: expert 3 got 6 rows, its capacity is 5"));
}

}  // namespace coxswain::tests
