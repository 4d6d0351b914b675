// A backward in two halves: the bits of the whole one, parameters' gradients only from the second half (those of norms
// only from the first), and between them in memory what the second half reads and nothing else.
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include <functional>

#include "tests/worker/engine_support.h"
#include "worker/engine/attention.h"
#include "worker/engine/caching_allocator.h"
#include "worker/engine/inputs.h"
#include "worker/engine/local_model.h"
#include "worker/engine/split_backward.h"

#undef CHECK
#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

constexpr double kSentinel = -7;

template <class T>
T get(Result<T> result) {
  if (!result) throw std::runtime_error(to_text(result.error()));
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

/// A forward of blocks [first, end) with what its backward needs.
worker::MicroBatch run_forward(worker::LocalModel& local, const model::ModelGraph& graph, int first, int end,
                               std::int64_t samples) {
  worker::RunMode mode;
  mode.seed = 3;
  worker::MicroBatch batch = local.runner().make_micro_batch(mode);
  at::manual_seed(1);  // of the made-up values
  for (const int i : local.runner().stage().slice.inputs)
    batch.values[graph.inputs[i].value] = worker::make_up_value(graph, graph.inputs[i].value, samples);
  local.fill_received(batch);
  const auto counts = get(local.runner().count(batch));
  get(local.runner().forward(batch, first, end));
  get(local.fill_gradients(batch, counts));
  return batch;
}

}  // namespace

TEST_CASE("both halves together give the bits of the whole backward") {
  for (const std::string name : {"gpt_four_layers.pt2", "gpt_shared_layers.pt2", "gpt2.pt2", "llama.pt2"}) {
    const model::ModelGraph graph = load_fixture(name);
    for (const int first : {0, 1}) {
      DYNAMIC_SECTION(name << ", blocks from " << first) {
        constexpr std::int64_t kSamples = 4;
        const int end = graph.num_blocks();
        auto local = get(worker::LocalModel::make(graph, first, end, 5, false));
        get(local.lower(kSamples));
        const at::Tensor& gradient = local.store().gradient(0);
        const auto received = local.runner().stage().slice.received;

        local.store().begin_step();
        auto whole = run_forward(local, graph, first, end, kSamples);
        get(local.runner().backward(whole, first, end));
        local.store().complete_gradient(0);
        const at::Tensor expected = gradient.clone();

        local.store().begin_step();
        gradient.fill_(kSentinel);
        auto split = run_forward(local, graph, first, end, kSamples);
        get(local.runner().backward_inputs(split, first, end));
        for (const int p : local.runner().stage().slice.parameters) {
          INFO(graph.parameters[p].name);
          if (local.store().has(p) && graph.parameters[p].dims.size() > 1)
            CHECK(local.store().gradient_of(p).eq(kSentinel).all().item<bool>());
        }
        for (const model::ValueId v : received)
          if (whole.gradients[v].defined()) CHECK(at::equal(split.gradients[v], whole.gradients[v]));
        auto owed = std::move(split.owed);
        split = {};
        get(local.runner().backward_weights(owed, first, end));
        local.store().complete_gradient(0);
        // Parameter by parameter: padding between them keeps what it held.
        for (const int p : local.runner().stage().slice.parameters) {
          INFO(graph.parameters[p].name);
          if (!local.store().has(p)) continue;
          const at::Tensor now = local.store().gradient_of(p);
          CHECK(at::equal(now, expected.as_strided(now.sizes(), now.strides(), now.storage_offset())));
        }
      }
    }
  }
}

TEST_CASE("a cut graph gives the bits of the whole, whatever has parameters") {
  using Function = std::function<at::Tensor(const at::Tensor&, const std::vector<at::Tensor>&)>;
  struct Case {
    std::string name;
    std::vector<std::vector<std::int64_t>> parameters;
    Function function;            // of an input [4, 6, 8]
    std::vector<int> early = {};  // parameters whose gradient comes from the first half
  };
  const std::vector<Case> cases = {
      {"a weight used twice, one above the other",
       {{8, 8}},
       [](const auto& x, const auto& p) { return at::linear(at::gelu(at::linear(x, p[0])), p[0]); }},
      {"linear with bias, norm with both",
       {{8, 8}, {8}, {8}, {8}},
       [](const auto& x, const auto& p) { return x.add(at::layer_norm(at::linear(x, p[0], p[1]), {8}, p[2], p[3])); },
       {2, 3}},
      {"a gain", {{8}}, [](const auto& x, const auto& p) { return x.mul(p[0]).tanh(); }, {0}},
      {"a gain that is a bias too",
       {{8, 8}, {8}},
       [](const auto& x, const auto& p) { return at::linear(x, p[0], p[1]).mul(p[1]); }},
      {"a gain of what has no input below it",
       {{6, 8}, {8}},
       [](const auto& x, const auto& p) { return x.mul(p[0].mul(p[1])); }},
      {"convolution", {{5, 6, 3}, {5}}, [](const auto& x, const auto& p) { return at::conv1d(x, p[0], p[1]); }},
      {"a product of parameters",
       {{8, 3}, {3, 8}},
       [](const auto& x, const auto& p) { return at::matmul(x, at::matmul(p[0], p[1])); }},
      {"a parameter beside the input", {{6, 8}}, [](const auto& x, const auto& p) { return x.add(p[0]).mul(p[0]); }},
      {"nothing but parameters", {{4, 6, 8}}, [](const auto&, const auto& p) { return p[0].mul(2).tanh(); }},
      {"no parameter", {{8}}, [](const auto& x, const auto&) { return x.tanh(); }},
      {"learned queries of an attention with dropout", {{4, 2, 3, 8}, {8, 8}}, [](const auto& x, const auto& p) {
         worker::AttentionArguments arguments;
         arguments.query = p[0];
         arguments.key = at::linear(x, p[1]).unsqueeze(1).expand({4, 2, 6, 8});
         arguments.value = x.unsqueeze(1).expand({4, 2, 6, 8});
         arguments.stream = worker::make_dropout_stream(5, 2, 17, 0.25);
         arguments.place = {0, 1, 0};
         return worker::dropout_attention(arguments);
       }}};
  for (const Case& one : cases) {
    DYNAMIC_SECTION(one.name) {
      const at::Tensor input = at::randn({4, 6, 8}).requires_grad_();
      std::vector<at::Tensor> parameters;
      for (const auto& sizes : one.parameters) parameters.push_back(at::randn(sizes).requires_grad_());
      std::vector<at::Tensor> all{input};
      all.insert(all.end(), parameters.begin(), parameters.end());
      const at::Tensor output = one.function(input, parameters);
      const at::Tensor arriving = at::randn(output.sizes());
      const auto expected = torch::autograd::grad({output}, all, {arriving}, {}, false, /*allow_unused=*/true);

      torch::autograd::edge_list parameter_edges;
      for (const at::Tensor& p : parameters) parameter_edges.push_back(torch::autograd::impl::gradient_edge(p));
      worker::WeightWork work;
      auto results =
          worker::run_input_half({torch::autograd::impl::gradient_edge(one.function(input, parameters))}, {arriving},
                                 {torch::autograd::impl::gradient_edge(input)}, parameter_edges, work);
      const auto late = worker::run_weight_half(std::move(work), parameter_edges);
      for (std::size_t p = 0; p < late.size(); ++p) {
        INFO(p);
        const bool is_early = std::count(one.early.begin(), one.early.end(), static_cast<int>(p)) > 0;
        at::Tensor& early = results.at(1 + p);
        CHECK(early.defined() == is_early);
        REQUIRE_FALSE((early.defined() && late[p].defined()));
        if (!early.defined()) early = late[p];
      }
      REQUIRE(results.size() == expected.size());
      for (std::size_t i = 0; i < results.size(); ++i) {
        INFO(i);
        REQUIRE(results[i].defined() == expected[i].defined());
        if (results[i].defined()) CHECK(at::equal(results[i], expected[i]));
      }
    }
  }
}

TEST_CASE("what the second half needs is kept until then, and no more") {
  worker::install_caching_allocator();
  const model::ModelGraph graph = load_fixture("gpt_four_layers.pt2");
  constexpr std::int64_t kSamples = 8, kLength = 16, kWidth = 32;
  auto local = get(worker::LocalModel::make(graph, 1, 2, 5, false));
  get(local.lower(kSamples));
  local.store().begin_step();
  const Bytes before = worker::memory_in_use();
  auto batch = run_forward(local, graph, 1, 2, kSamples);
  get(local.runner().backward_inputs(batch, 1, 2));
  auto owed = std::move(batch.owed);
  batch = {};
  const Bytes kept = worker::memory_in_use() - before;
  // By hand, in activations of the block's width: inputs of its projections 1 + 1 + 1 + 4, gradients of what they give
  // 3 + 1 + 4 + 1. Norms are done with.
  const std::int64_t rows = kSamples * kLength;
  CHECK(kept.value == 4 * 16 * rows * kWidth);
  get(local.runner().backward_weights(owed, 1, 2));
  CHECK(worker::memory_in_use() == before);
}

}  // namespace coxswain::tests
