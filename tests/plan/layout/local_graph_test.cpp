#include "plan/layout/local_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain::plan;

TEST_CASE("a mesh has its context axis and the primes of its tensor axis, outermost first", "[local_graph_test]") {
  Replica replica;
  replica.tensor = 12;
  replica.context = 5;
  const std::vector<MeshAxis> expected{
      {AxisKind::Context, 5, 12}, {AxisKind::Tensor, 2, 6}, {AxisKind::Tensor, 2, 3}, {AxisKind::Tensor, 3, 1}};
  CHECK(mesh_axes(replica) == expected);
  CHECK(mesh_axes(Replica{}).empty());
}

TEST_CASE("a group holds the positions that differ along its axes alone", "[local_graph_test]") {
  Replica replica;
  replica.tensor = 4;
  replica.context = 2;
  const auto axes = mesh_axes(replica);  // context stride 4, tensor strides 2 and 1
  CHECK(members_of(axes, 0b001, 6) == std::vector<int>{2, 6});
  CHECK(members_of(axes, 0b010, 6) == std::vector<int>{4, 6});
  CHECK(members_of(axes, 0b110, 6) == std::vector<int>{4, 5, 6, 7});
  CHECK(members_of(axes, 0b111, 3) == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7});
  CHECK(members_of(axes, 0, 3) == std::vector<int>{3});
}
