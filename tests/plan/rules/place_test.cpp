#include <array>

#include "plan/rules/rules.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::plan;

namespace {

// [b i], [o i], [o] -> [b o]; sum i; add the bias.
OpFactors linear() {
  OpFactors op;
  op.factors = {{"b", 4, FactorKind::Free}, {"i", 6, FactorKind::Sum}, {"o", 12, FactorKind::Free}};
  op.inputs = {{0, -1, 0, {{0}, {1}}, false}, {1, -1, 1, {{2}, {1}}, false}, {2, -1, 2, {{2}}, true}};
  op.outputs = {{0, -1, 3, {{0}, {2}}, false}};
  op.linear = {{0, 2}, {1, 2}};
  return op;
}

}  // namespace

using enum PlacementKind;

TEST_CASE("placements follow from where a factor stands") {
  const OpFactors op = linear();
  CHECK(place_shard(op, 0).inputs == std::vector{Shard, Replicate, Replicate});
  CHECK(place_shard(op, 0).outputs == std::vector{Shard});
  CHECK(place_shard(op, 1).inputs == std::vector{Shard, Shard, PartialSum});
  CHECK(place_shard(op, 1).outputs == std::vector{PartialSum});
  CHECK(place_shard(op, 2).inputs == std::vector{Replicate, Shard, Shard});
  CHECK(place_partial(op, 0).inputs == std::vector{PartialSum, Replicate, PartialSum});
  CHECK(place_partial(op, 0).outputs == std::vector{PartialSum});
}

TEST_CASE("gradients have the dual placement") {
  CHECK(dual(Shard) == Shard);
  CHECK(dual(Replicate) == PartialSum);
  CHECK(dual(PartialSum) == Replicate);
  CHECK_FALSE(dual(PartialMax).has_value());
}

TEST_CASE("a factor is refined in every tensor and argument") {
  OpFactors op = linear();
  op.rewrites = {{5, 1, 0, 1, {0, 2}}};
  const std::array<std::int64_t, 3> sizes{3, 2, 2};
  const OpFactors refined = refine(op, 2, sizes);
  CHECK(to_text(refined) == "[b i], [(o.0 o.1 o.2) i], [(o.0 o.1 o.2)] -> [b (o.0 o.1 o.2)]; sum i");
  CHECK(refined.factors[2].size == 3);
  CHECK(refined.rewrites[0].factors == std::vector{0, 2, 3, 4});
}

TEST_CASE("arguments follow the part") {
  OpFactors op;
  op.factors = {{"a", 4, FactorKind::Free}, {"b", 6, FactorKind::Free}};
  // Sizes (4 x 6, 2 x 6), and a first row 10 + 3 first.
  op.rewrites = {{0, 0, 0, 1, {0, 1}},
                 {0, 1, 0, 2, {1}},
                 {1, -1, 10, 3, {1}, Rewrite::From::First},
                 {2, -1, 10, 3, {1}, Rewrite::From::End}};
  model::Op whole;
  whole.arguments = {{"size", std::vector<model::Dim>{24, 12}}, {"start", model::Dim(10)}, {"end", model::Dim(28)}};
  const std::array<Part, 1> parts{Part{1, 4, 2}};
  const model::Op local = localise(whole, op, parts);
  CHECK(std::get<std::vector<model::Dim>>(local.arguments[0].value) == std::vector<model::Dim>{8, 4});
  CHECK(std::get<model::Dim>(local.arguments[1].value) == model::Dim(22));
  CHECK(std::get<model::Dim>(local.arguments[2].value) == model::Dim(28));
}
