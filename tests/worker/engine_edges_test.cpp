// What crosses an edge between meshes: every receiving position gets what it holds, once, and gradients add up to those
// of the whole tensor. Cuts of the test's own; the exchange is copied by hand.
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cstring>
#include <map>

#include "tests/worker/training_run.h"
#include "worker/engine/edge_buffers.h"

#undef CHECK
#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using plan::Action;
using plan::ActionKind;
using plan::Cut;

/// One value [batch, 6, 4] that crosses, and one without samples, [6].
model::ModelGraph make_graph() {
  model::ModelGraph graph;
  for (const bool samples : {true, false}) {
    model::Value value;
    value.dims = samples ? std::vector<model::Dim>{model::Dim::symbol("batch"), 6, 4} : std::vector<model::Dim>{6};
    value.dtype = DType::Float32;
    value.depends_on_parameter = value.requires_grad = true;
    value.producer = 0;
    graph.values.push_back(value);
  }
  return graph;
}

/// Rows of the dim of 6 by context position, columns of 4 by tensor position; or nothing.
std::vector<Cut> cuts_of(const model::ModelGraph&, model::ValueId value, std::int64_t, const plan::Replica& replica,
                         int position) {
  std::vector<Cut> cuts;
  const int dim = value == 0 ? 1 : 0;
  if (replica.context == 2) {
    const int c = position / replica.tensor;
    cuts.push_back({dim, 1, 6, 1, 1, c == 0 ? std::vector<Cut::Run>{{0, 1}, {4, 2}} : std::vector<Cut::Run>{{1, 3}}});
  }
  if (value == 0 && replica.tensor == 2) cuts.push_back({2, 2, 2, 1, 2, {{position % 2, 1}}});
  return cuts;
}

struct World {
  model::ModelGraph graph = make_graph();
  plan::Plan plan;
  std::vector<model::ValueId> values{0, 1};
  const worker::EdgeCuts cuts = cuts_of;

  [[nodiscard]] const plan::Replica& replica(int rank) const {
    const auto place = plan::place_of(plan, rank);
    return plan.stages[place.stage].replicas[place.replica];
  }
  /// What `rank` holds of a whole value of the micro-batch.
  [[nodiscard]] at::Tensor held(int rank, model::ValueId value, const at::Tensor& whole) const {
    const auto place = plan::place_of(plan, rank);
    const plan::Replica& own = replica(rank);
    at::Tensor part =
        value == 0 ? whole.narrow(0, plan::first_sample(plan.stages[place.stage], place.replica), own.samples) : whole;
    for (const Cut& cut : cuts(graph, value, own.samples, own, place.position)) {
      std::vector<std::int64_t> rows;
      for (std::int64_t i = 0; i < cut.outer * cut.extent; ++i)
        for (const Cut::Run& run : cut.runs)
          if (i % cut.extent >= run.first && i % cut.extent < run.first + run.size) rows.push_back(i);
      part = part.index_select(cut.dim, at::tensor(rows, c10::ScalarType::Long));
    }
    return part.contiguous();
  }
  [[nodiscard]] worker::EdgeSpec edge(int rank) const {
    worker::EdgeSpec edge;
    const int stage = plan::place_of(plan, rank).stage;
    edge.exists = true;
    edge.values = values;
    edge.pieces = worker::edge_pieces(graph, plan, values, rank, 1 - stage, stage == 0, cuts);
    for (std::size_t v = 0; v < values.size(); ++v) {
      const at::Tensor whole =
          at::zeros(v == 0 ? std::vector<std::int64_t>{plan.batch.micro, 6, 4} : std::vector<std::int64_t>{6});
      edge.sizes.push_back(held(rank, values[v], whole).sizes().vec());
      edge.whole.push_back(worker::covers_once(edge.pieces, v, edge.sizes[v]) ? 1 : 0);
    }
    return edge;
  }
};

/// Moves everything from the ranks of stage `from` to those of the other; `sent[rank]` and the result by value.
std::map<int, std::vector<at::Tensor>> exchange(const World& world, int from, const Action& send, const Action& receive,
                                                std::map<int, std::vector<at::Tensor>> sent) {
  std::map<int, worker::EdgeBuffers> buffers;
  std::map<std::pair<int, int>, std::vector<collective::BufferView>> mail;
  std::map<int, std::vector<at::Tensor>> received;
  for (int rank = 0; rank < plan::num_ranks(world.plan); ++rank) {
    buffers.emplace(rank, worker::EdgeBuffers(world.graph, plan::Precision::Float32));
    if (plan::place_of(world.plan, rank).stage != from) continue;
    for (const auto& one : buffers.at(rank).send(send, world.edge(rank), sent.at(rank)))
      mail[{rank, one.peer}].push_back(one.buffer);
  }
  for (int rank = 0; rank < plan::num_ranks(world.plan); ++rank) {
    if (plan::place_of(world.plan, rank).stage == from) continue;
    const auto edge = world.edge(rank);
    for (const auto& one : buffers.at(rank).receive(receive, edge)) {
      auto& box = mail[{one.peer, rank}];
      REQUIRE_FALSE(box.empty());
      REQUIRE(box.front().count == one.buffer.count);
      std::memcpy(one.buffer.data, box.front().data, static_cast<std::size_t>(one.buffer.bytes().value));
      box.erase(box.begin());
    }
    received[rank] = buffers.at(rank).take(receive, edge);
  }
  for (const auto& [pair, box] : mail) CHECK(box.empty());
  return received;
}

/// Puts what a rank holds of a value back into a whole tensor, added up.
void add_to_whole(const World& world, int rank, model::ValueId value, const at::Tensor& part, const at::Tensor& whole) {
  std::int64_t count = whole.numel();
  const at::Tensor numbers = at::arange(count).view(whole.sizes());
  whole.view({-1}).index_add_(0, world.held(rank, value, numbers).view({-1}), part.reshape({-1}));
}

}  // namespace

TEST_CASE("meshes of any sizes exchange what each position holds, and gradients come back once") {
  const std::vector<std::pair<std::string, PlanSpec>> plans = {
      {"one to one", {{{1, {4}}, {2, {4}}}}},
      {"replicas that do not meet", {{{1, {3, 1}}, {2, {1, 2, 1}}}}},
      {"tensor cut on both sides", {{{1, {4}, {2}}, {2, {4}, {2}}}}},
      {"cut to whole", {{{1, {4}, {2}}, {2, {4}}}}},
      {"whole to cut", {{{1, {4}}, {2, {4}, {2}}}}},
      {"three that hold all to one", {{{1, {4}, {3}}, {2, {4}}}}},
      {"three that hold all to two replicas of four and one", {{{1, {4}, {3}}, {2, {1, 3}, {4, 1}}}}},
      {"one to three that hold all", {{{1, {2, 2}}, {2, {4}, {3}}}}},
      {"context and tensor cuts", {{{1, {4}, {2}, {2}}, {2, {3, 1}, {1, 2}, {2, 1}}}}},
      {"context runs to replicas that do not meet", {{{1, {3, 1}, {1, 2}, {2, 2}}, {2, {2, 2}, {2, 3}, {1, 2}}}}},
  };
  at::manual_seed(1);
  const auto numbers = [](at::IntArrayRef sizes) {
    return at::randint(-8, 9, sizes, at::TensorOptions().dtype(c10::ScalarType::Float));
  };
  for (const auto& [name, spec] : plans) {
    DYNAMIC_SECTION(name) {
      World world;
      world.graph.blocks.resize(2);
      world.plan = make_plan(world.graph, spec);
      const std::vector<at::Tensor> whole{numbers({world.plan.batch.micro, 6, 4}), numbers({6})};
      std::map<int, std::vector<at::Tensor>> sent, gradients;
      std::vector<at::Tensor> expected{at::zeros_like(whole[0]), at::zeros_like(whole[1])};
      std::vector<at::Tensor> arrived{at::zeros_like(whole[0]), at::zeros_like(whole[1])};
      for (int rank = 0; rank < plan::num_ranks(world.plan); ++rank)
        for (const model::ValueId v : world.values) sent[rank].push_back(world.held(rank, v, whole[v]));
      const auto received =
          exchange(world, 0, {ActionKind::SendActivation, 0}, {ActionKind::ReceiveActivation, 0}, sent);
      for (const auto& [rank, tensors] : received) {
        for (const model::ValueId v : world.values) {
          CAPTURE(rank, v);
          CHECK(at::equal(tensors[v], world.held(rank, v, whole[v])));
          gradients[rank].push_back(numbers(tensors[v].sizes()));
          add_to_whole(world, rank, v, gradients[rank].back(), expected[v]);
        }
      }
      const auto back = exchange(world, 1, {ActionKind::SendGradient, 0}, {ActionKind::ReceiveGradient, 0}, gradients);
      for (const auto& [rank, tensors] : back)
        for (const model::ValueId v : world.values) add_to_whole(world, rank, v, tensors[v], arrived[v]);
      for (const model::ValueId v : world.values) CHECK(at::equal(arrived[v], expected[v]));
    }
  }
}

}  // namespace coxswain::tests
