// Each transition on threads against the whole tensor, forward and backward: what the positions hold together before
// and after must be one tensor, and so must their gradients. Small whole numbers, so that sums are exact.
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <thread>

#include "tests/worker/thread_communicator.h"
#include "worker/engine/op_call.h"
#include "worker/engine/tensor_types.h"
#include "worker/engine/transitions.h"

#undef CHECK
#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using Runs = std::vector<std::pair<std::int64_t, std::int64_t>>;  // first, size

/// How a dim is split: (outer, extent, inner), runs by member.
struct Split {
  std::int64_t dim, outer, extent, inner;
  std::vector<Runs> runs;
};

enum class Held { Part, Whole, Sum };

/// By brute force: indices of the dim that a member has.
at::Tensor rows_of(const Split& split, std::size_t member) {
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i < split.outer * split.extent * split.inner; ++i) {
    const std::int64_t row = i / split.inner % split.extent;
    for (const auto& [first, size] : split.runs[member])
      if (first <= row && row < first + size) rows.push_back(i);
  }
  return at::tensor(rows, c10::ScalarType::Long);
}

at::Tensor whole_numbers(at::IntArrayRef sizes, c10::ScalarType type) {
  return at::randint(-8, 9, sizes, at::TensorOptions().dtype(c10::ScalarType::Float)).to(type);
}

/// What each member holds of `whole`.
std::vector<at::Tensor> distribute(const at::Tensor& whole, Held held, const Split& split, std::size_t members) {
  std::vector<at::Tensor> parts;
  at::Tensor rest = whole.clone();
  for (std::size_t m = 0; m < members; ++m) {
    if (held == Held::Part) {
      parts.push_back(whole.index_select(split.dim, rows_of(split, m)));
    } else if (held == Held::Whole) {
      parts.push_back(whole.clone());
    } else {
      parts.push_back(m + 1 < members ? whole_numbers(whole.sizes(), whole.scalar_type()) : rest);
      rest = rest.sub(parts.back());
    }
  }
  return parts;
}

void check_held(const std::vector<at::Tensor>& parts, const at::Tensor& whole, Held held, const Split& split) {
  at::Tensor sum = at::zeros_like(whole);
  for (std::size_t m = 0; m < parts.size(); ++m) {
    CAPTURE(m);
    if (held == Held::Part) CHECK(at::equal(parts[m], whole.index_select(split.dim, rows_of(split, m))));
    if (held == Held::Whole) CHECK(at::equal(parts[m], whole));
    CHECK(parts[m].is_contiguous());
    if (held == Held::Sum) sum = sum.add(parts[m]);
  }
  if (held == Held::Sum) CHECK(at::equal(sum, whole));
}

Held dual(Held held) { return held == Held::Part ? held : held == Held::Whole ? Held::Sum : Held::Whole; }

void add_split(model::Op& op, const Split& split, const std::string& prefix) {
  std::vector<model::Dim> runs;
  for (const Runs& of_member : split.runs)
    for (const auto& [first, size] : of_member) {
      runs.emplace_back(first);
      runs.emplace_back(size);
    }
  op.arguments.push_back({prefix + "dim", model::Dim(split.dim)});
  op.arguments.push_back({prefix + "outer", model::Dim(split.outer)});
  op.arguments.push_back({prefix + "inner", model::Dim(split.inner)});
  op.arguments.push_back({prefix + "runs", std::move(runs)});
}

/// Runs `body(member, link)` on a thread each; what it throws ends the test.
void on_mesh(std::size_t members, const std::function<void(std::size_t, const worker::MeshLink&)>& body) {
  const auto group = std::make_shared<ThreadGroup>(static_cast<int>(members));
  std::vector<std::string> problems(members);
  std::vector<std::thread> threads;
  for (std::size_t m = 0; m < members; ++m) {
    threads.emplace_back([&, m] {
      ThreadCommunicator communicator(group, static_cast<int>(m));
      worker::MeshLink link;
      link.deadline = Deadline::after(steady_clock(), Seconds(60));
      worker::MeshGroup of_axes;
      for (std::size_t i = 0; i < members; ++i) of_axes.ranks.push_back(static_cast<int>(10 + i));
      of_axes.place = static_cast<int>(m);
      of_axes.communicator = &communicator;
      link.groups.emplace(1, of_axes);
      try {
        body(m, link);
      } catch (const std::exception& error) {
        problems[m] = error.what();
        group->abort("another member failed");
      }
    });
  }
  for (auto& thread : threads) thread.join();
  REQUIRE(problems == std::vector<std::string>(members));
}

struct Case {
  std::string target;
  Held before, after;
};

void check_transition(const Case& given, at::IntArrayRef sizes, const Split& split, const Split& to,
                      c10::ScalarType type) {
  const std::size_t members = split.runs.size();
  const bool moves = given.target == "coxswain::all_to_all";
  model::Op op;
  op.target = given.target;
  op.arguments = {{"self", model::ValueRef{0}}, {"axes", model::Dim(1)}};
  if (given.before != given.after || moves) add_split(op, split, "");
  if (moves) add_split(op, to, "to_");
  const Split& split_after = moves ? to : split;
  const at::Tensor whole = whole_numbers(sizes, type), gradient = whole_numbers(sizes, type);
  const auto inputs = distribute(whole, given.before, split, members);
  const auto output_gradients = distribute(gradient, dual(given.after), split_after, members);
  std::vector<at::Tensor> outputs(members), input_gradients(members);
  const std::string where = "here";
  on_mesh(members, [&](std::size_t m, const worker::MeshLink& link) {
    // Neither inputs nor gradients need be contiguous.
    at::Tensor input = inputs[m].transpose(0, -1).contiguous().transpose(0, -1).set_requires_grad(true);
    const worker::RunMode mode;
    const at::Tensor output = worker::find_mesh_kernel(op.target)(worker::MeshCall(op, {&input, 1}, link, mode, where));
    outputs[m] = output.detach();
    const at::Tensor strided = output_gradients[m].transpose(0, -1).contiguous().transpose(0, -1);
    input_gradients[m] = torch::autograd::grad({output}, {input}, {strided})[0];
  });
  check_held(outputs, whole, given.after, split_after);
  check_held(input_gradients, gradient, dual(given.before), split);
}

const std::vector<Case> kCases = {
    {"coxswain::all_reduce", Held::Sum, Held::Whole},  {"coxswain::to_partial", Held::Whole, Held::Sum},
    {"coxswain::all_gather", Held::Part, Held::Whole}, {"coxswain::reduce_scatter", Held::Sum, Held::Part},
    {"coxswain::slice", Held::Whole, Held::Part},
};

}  // namespace

TEST_CASE("transitions and their gradients are those of the whole tensor") {
  struct Shape {
    std::string name;
    std::vector<std::int64_t> sizes;
    Split split;
  };
  const std::vector<Shape> shapes = {
      {"first dim, equal", {6, 5}, {0, 1, 6, 1, {{{0, 3}}, {{3, 3}}}}},
      {"first dim, uneven, one member has nothing", {7, 3}, {0, 1, 7, 1, {{{0, 4}}, {{4, 3}}, {{7, 0}}}}},
      {"middle dim", {2, 5, 3}, {1, 1, 5, 1, {{{0, 2}}, {{2, 3}}}}},
      {"last dim, fused projection", {2, 24}, {1, 3, 4, 2, {{{0, 3}}, {{3, 1}}}}},
      {"merged samples and rows", {12, 2}, {0, 3, 4, 1, {{{0, 1}}, {{1, 3}}}}},
      {"two runs each", {2, 8, 3}, {1, 1, 8, 1, {{{0, 2}, {6, 2}}, {{2, 2}, {4, 2}}}}},
      {"two uneven runs of an outer factor", {14, 2}, {0, 1, 7, 2, {{{0, 1}, {5, 2}}, {{1, 2}, {3, 2}}}}},
      {"one member", {4, 3}, {0, 1, 4, 1, {{{0, 4}}}}},
      {"one row", {1, 5}, {1, 1, 5, 1, {{{0, 2}}, {{2, 1}}, {{3, 2}}}}},
  };
  at::manual_seed(1);
  for (const Case& given : kCases)
    for (const Shape& shape : shapes)
      for (const auto type : {c10::ScalarType::Float, c10::ScalarType::BFloat16}) {
        INFO(given.target << ", " << shape.name << ", " << c10::toString(type));
        check_transition(given, shape.sizes, shape.split, shape.split, type);
      }
}

TEST_CASE("all_to_all moves a cut to another dim, or cuts the same dim in another way") {
  const Split rows{0, 1, 6, 1, {{{0, 4}}, {{4, 2}}}}, columns{1, 1, 5, 1, {{{0, 2}}, {{2, 3}}}};
  const Split heads{1, 3, 2, 2, {{{0, 1}}, {{1, 1}}}}, runs{0, 1, 6, 1, {{{0, 1}, {5, 1}}, {{1, 2}, {3, 2}}}};
  const Split inner{0, 2, 3, 1, {{{0, 2}}, {{2, 1}}}};
  const Case given{"coxswain::all_to_all", Held::Part, Held::Part};
  at::manual_seed(2);
  for (const auto type : {c10::ScalarType::Float, c10::ScalarType::BFloat16}) {
    check_transition(given, {6, 5, 2}, rows, columns, type);
    check_transition(given, {6, 5, 2}, columns, rows, type);
    check_transition(given, {6, 12}, runs, heads, type);
    check_transition(given, {6, 12}, heads, runs, type);
    check_transition(given, {6, 3}, rows, runs, type);
    check_transition(given, {6, 3}, runs, inner, type);
  }
}

TEST_CASE("a table cut by rows embeds as the whole table does") {
  at::manual_seed(3);
  const at::Tensor table = whole_numbers({10, 4}, c10::ScalarType::Float);
  const at::Tensor index = at::randint(0, 10, {3, 5}, at::TensorOptions().dtype(c10::ScalarType::Long));
  const at::Tensor gradient = whole_numbers({3, 5, 4}, c10::ScalarType::Float);
  at::Tensor whole = table.clone().set_requires_grad(true);
  const at::Tensor expected = at::embedding(whole, index);
  const at::Tensor expected_gradient = torch::autograd::grad({expected}, {whole}, {gradient})[0];
  at::Tensor sum = at::zeros_like(expected);
  for (const auto& [first, size] : Runs{{0, 7}, {7, 3}}) {
    model::Op local, mask;
    local.target = "coxswain::local_index";
    mask.target = "coxswain::mask_rows";
    local.arguments = {{"self", model::ValueRef{0}}, {"first", model::Dim(first)}, {"size", model::Dim(size)}};
    mask.arguments = local.arguments;
    mask.arguments.insert(mask.arguments.begin() + 1, {"index", model::ValueRef{1}});
    const worker::MeshLink link;
    const worker::RunMode mode;
    const std::string where;
    at::Tensor part = table.narrow(0, first, size).clone().set_requires_grad(true);
    const std::vector<at::Tensor> index_only{index};
    const at::Tensor own = worker::local_index(worker::MeshCall(local, index_only, link, mode, where));
    const std::vector<at::Tensor> both{at::embedding(part, own), index};
    const at::Tensor masked = worker::mask_rows(worker::MeshCall(mask, both, link, mode, where));
    sum = sum.add(masked.detach());
    CHECK(at::equal(torch::autograd::grad({masked}, {part}, {gradient})[0], expected_gradient.narrow(0, first, size)));
  }
  CHECK(at::equal(sum, expected.detach()));
}

TEST_CASE("cuts one after another leave what each takes") {
  // Context cuts the rows, then the tensor axis what is left of them.
  const at::Tensor whole = at::randint(0, 100, {16, 2}, at::TensorOptions().dtype(c10::ScalarType::Float));
  const std::vector<plan::Cut> cuts = {{0, 2, 8, 1, 1, {{1, 2}, {5, 2}}}, {0, 2, 4, 1, 2, {{1, 2}}}};
  const at::Tensor expected = whole.index_select(0, at::tensor(std::vector<std::int64_t>{2, 5, 10, 13}));
  CHECK(at::equal(worker::cut_tensor(whole, cuts), expected));
}

TEST_CASE("a collective that fails inside a block names block, operator and peers") {
  const auto group = std::make_shared<ThreadGroup>(2);
  ThreadCommunicator communicator(group, 0);
  worker::MeshLink link;
  link.deadline = Deadline::after(steady_clock(), Seconds(60));
  link.groups.emplace(1, worker::MeshGroup{{4, 7}, 0, &communicator});
  model::Op op;
  op.arguments = {{"self", model::ValueRef{0}}, {"axes", model::Dim(1)}};
  const worker::RunMode mode;
  const std::string where = "block h.3: h.3.mlp: coxswain::all_reduce";
  const at::Tensor input = whole_numbers({3}, c10::ScalarType::Float);
  group->abort("rank 7 is lost");
  try {
    static_cast<void>(worker::all_reduce(worker::MeshCall(op, {&input, 1}, link, mode, where)));
    FAIL("no error");
  } catch (const worker::CommunicationError& carried) {
    const std::string text = to_text(carried.error());
    INFO(text);
    CHECK(carried.error().code == ErrorCode::Aborted);
    CHECK(text.find("rank 7 is lost") != std::string::npos);
    CHECK(text.find(where) != std::string::npos);
    CHECK(text.find("ranks 7 at the same operator") != std::string::npos);
  }
}

}  // namespace coxswain::tests
