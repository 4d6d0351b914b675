// Rendezvous and sharing in virtual time.
#include "cost_model/virtual_network.h"

#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

namespace {

struct Fixture {
  model::ModelGraph graph = make_chain(2, 8);
  cluster::ResourceGraph resources;
  std::unique_ptr<FakeCost> cost;
  plan::Plan plan;
  std::vector<plan::Group> groups;
  VirtualClock clock;
  std::vector<int> started;
  std::unique_ptr<VirtualNetwork> network;

  /// Stage 0 on node 0, stage 1 on node 1, two replicas each.
  explicit Fixture(int sharing) {
    resources = make_cluster({make_device("cpu", 1 << 30)}, {2}, 2, make_link("inner", 0, 1e18),
                             make_link("outer", 0, 32, sharing));
    cost = std::make_unique<FakeCost>(graph, resources);
    plan = make_plan(graph, resources, {{0, 2, {{0, 0}, {0, 1}}, {1, 1}}, {2, 4, {{0, 2}, {0, 3}}, {1, 1}}}, 1);
    groups = plan::make_groups(plan, graph);
    network = std::make_unique<VirtualNetwork>(*cost, plan, groups, clock,
                                               [this](int operation) { started.push_back(operation); });
  }
  int edge() const { return plan::group_of(plan, groups, 0, {plan::ActionKind::SendActivation, 0}); }
};

collective::PointToPoint message(collective::PointToPoint::Kind kind, int peer, std::int64_t bytes) {
  return {kind, peer, {nullptr, bytes, DType::UInt8}};
}

}  // namespace

TEST_CASE("a message starts when both sides have come", "[virtual_network_test]") {
  Fixture f(0);
  using Kind = collective::PointToPoint::Kind;
  const int send = f.network->issue_exchange(0, 0, f.edge(), {message(Kind::Send, 2, 32)});
  CHECK(f.started.empty());
  f.clock.advance_to(7'000'000'000);
  const int receive = f.network->issue_exchange(1, 0, f.edge(), {message(Kind::Receive, 0, 32)});
  CHECK(f.started.size() == 2);
  CHECK(f.network->operation(send).start == 7'000'000'000);
  CHECK(f.network->operation(send).issued == 0);
  CHECK(f.network->operation(receive).end == 8'000'000'000);
}

TEST_CASE("C18: two replicas' messages share a link that carries one at full rate", "[virtual_network_test]") {
  Fixture f(1);
  using Kind = collective::PointToPoint::Kind;
  const int send = f.network->issue_exchange(0, 0, f.edge(), {message(Kind::Send, 2, 32)});
  f.network->issue_exchange(1, 0, f.edge(), {message(Kind::Receive, 0, 32)});
  CHECK(f.network->operation(send).end == 2'000'000'000);
}

TEST_CASE("C18: what one device sends to two follows each other and shares nothing", "[virtual_network_test]") {
  Fixture f(1);
  f.plan = make_plan(f.graph, f.resources, {{0, 2, {{0, 0}}, {2}}, {2, 4, {{0, 2}, {0, 3}}, {1, 1}}}, 1);
  f.groups = plan::make_groups(f.plan, f.graph);
  VirtualNetwork network(*f.cost, f.plan, f.groups, f.clock, [](int) {});
  using Kind = collective::PointToPoint::Kind;
  const int send = network.issue_exchange(0, 0, f.edge(), {message(Kind::Send, 1, 32), message(Kind::Send, 2, 32)});
  network.issue_exchange(1, 0, f.edge(), {message(Kind::Receive, 0, 32)});
  // 64 bytes at 32 bytes a second.
  CHECK(network.operation(send).end == 2'000'000'000);
}

TEST_CASE("a reduction waits for every role and the k-th calls belong together", "[virtual_network_test]") {
  Fixture f(0);
  const int first = f.network->issue_collective(0, 0, 0, collective::CollectiveKind::AllReduce, Bytes(16));
  const int again = f.network->issue_collective(0, 1, 0, collective::CollectiveKind::AllReduce, Bytes(16));
  CHECK(f.started.empty());
  f.clock.advance_to(5);
  f.network->issue_collective(1, 0, 0, collective::CollectiveKind::AllReduce, Bytes(16));
  CHECK(f.network->operation(first).start == 5);
  CHECK(f.network->operation(again).start == -1);
}
