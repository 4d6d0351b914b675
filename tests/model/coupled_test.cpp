#include "model/finish_parts.h"
#include "tests/model/raw_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::model;

namespace {

struct Model : RawGraph {
  std::vector<Dim> dims{batch, Dim(4)};
  ValueId x = input("x", dims);
  ValueId h = linear("layer", x, parameter("weight", {4, 4}), dims);

  ValueId mean(const std::string& path, ValueId value, std::int64_t dim, std::vector<Dim> out) {
    return op(path, "aten::mean.dim", {{"self", ValueRef{value}}, {"dim", std::vector<Dim>{Dim(dim)}}}, std::move(out));
  }
  /// Targets of the coupled operators, with their reasons.
  std::vector<std::string> finish(ValueId numerator) {
    loss(numerator);
    REQUIRE(finish_graph(graph).has_value());
    std::vector<std::string> found;
    for (const CoupledOp& one : graph.coupled) found.push_back(graph.ops[one.op].target + " " + one.reason);
    return found;
  }
};

using Found = std::vector<std::string>;

}  // namespace

TEST_CASE("sums over samples and linear operators after them couple nothing") {
  Model m;
  const ValueId a = m.sum("", m.unary("", "aten::tanh", m.h));
  const ValueId b = m.sum("", m.binary("", "aten::mul.Tensor", m.h, m.h, m.dims));
  const ValueId scaled = m.op("", "aten::mul.Tensor", {{"self", ValueRef{b}}, {"other", 0.25}}, {});
  CHECK(m.finish(m.binary("", "aten::add.Tensor", a, scaled, {})).empty());
}

TEST_CASE("per-sample normalisation and softmax over features couple nothing") {
  Model m;
  const ValueId soft = m.op("", "aten::softmax.int", {{"self", ValueRef{m.h}}, {"dim", Dim(-1)}}, m.dims);
  const ValueId centre =
      m.op("", "aten::mean.dim", {{"self", ValueRef{soft}}, {"dim", std::vector<Dim>{Dim(-1)}}, {"keepdim", true}},
           {m.batch, Dim(1)});
  CHECK(m.finish(m.sum("", m.binary("", "aten::sub.Tensor", soft, centre, m.dims))).empty());
}

TEST_CASE("batch norm in training is coupled, in evaluation it is not") {
  for (const bool training : {true, false}) {
    Model m;
    const ValueId normal = m.op("norm", "aten::batch_norm",
                                {{"input", ValueRef{m.h}},
                                 {"weight", None{}},
                                 {"bias", None{}},
                                 {"running_mean", None{}},
                                 {"running_var", None{}},
                                 {"training", training},
                                 {"momentum", 0.1},
                                 {"eps", 1e-5},
                                 {"cudnn_enabled", false}},
                                m.dims);
    const Found found = m.finish(m.sum("", normal));
    CHECK(found == (training ? Found{"aten::batch_norm normalises with statistics of the batch"} : Found{}));
  }
}

TEST_CASE("samples that meet a mean over the batch are coupled") {
  Model m;
  const ValueId centre = m.mean("", m.h, 0, {Dim(4)});
  CHECK(m.finish(m.sum("", m.binary("", "aten::sub.Tensor", m.h, centre, m.dims))) ==
        Found{"aten::sub.Tensor uses a sum over the batch for each sample"});
}

TEST_CASE("the product of two batch means of a balance loss is coupled") {
  Model m;
  const ValueId a = m.mean("moe", m.h, 0, {Dim(4)}),
                b = m.mean("moe", m.unary("moe", "aten::sigmoid", m.h), 0, {Dim(4)});
  CHECK(m.finish(m.sum("", m.binary("moe", "aten::mul.Tensor", a, b, {Dim(4)}))) ==
        Found{"aten::mul.Tensor multiplies two sums over the batch"});
}

TEST_CASE("means and totals that a coupled operator mixes samples by are known") {
  const auto sums = [](Model& m, ValueId numerator) {
    m.loss(numerator);
    REQUIRE(finish_graph(m.graph).has_value());
    REQUIRE(m.graph.coupled.size() == 1);
    return m.graph.coupled.front().sums;
  };
  using Sums = std::vector<BatchSum>;
  SECTION("two means, moved and scaled") {
    Model m;
    const ValueId a = m.mean("moe", m.h, 0, {Dim(4)});
    const ValueId b = m.mean("moe", m.unary("moe", "aten::sigmoid", m.h), 0, {Dim(4)});
    const ValueId up = m.op("moe", "aten::add.Scalar", {{"self", ValueRef{a}}, {"other", 0.5}}, {Dim(4)});
    const ValueId more = m.op("moe", "aten::mul.Tensor", {{"self", ValueRef{b}}, {"other", 2.0}}, {Dim(4)});
    const ValueId product = m.binary("moe", "aten::mul.Tensor", up, more, {Dim(4)});
    CHECK(sums(m, m.sum("moe", product)) == Sums{{up, true}, {more, true}});
    CHECK(follows_from_sums(m.graph, m.graph.loss.front().numerator));
  }
  SECTION("a total over a total") {
    Model m;
    const ValueId mask = m.input("mask", m.dims);
    const ValueId seen = m.sum("", m.binary("", "aten::mul.Tensor", m.h, mask, m.dims)), all = m.sum("", mask);
    CHECK(sums(m, m.binary("", "aten::div.Tensor", seen, all, {})) == Sums{{seen, false}, {all, false}});
  }
  SECTION("a total over the number of samples is a mean") {
    Model m;
    const ValueId mean =
        m.op("", "aten::div.Tensor", {{"self", ValueRef{m.sum("", m.h)}}, {"other", m.batch * Dim(4)}}, {});
    CHECK(sums(m, m.unary("", "aten::log", mean)) == Sums{{mean, true}});
  }
  SECTION("samples that meet a mean") {
    Model m;
    const ValueId centre = m.mean("", m.h, 0, {Dim(4)});
    CHECK(sums(m, m.sum("", m.binary("", "aten::sub.Tensor", m.h, centre, m.dims))) == Sums{{centre, true}});
  }
  SECTION("a total with something added grows in another way") {
    Model m;
    const ValueId more = m.op("", "aten::add.Scalar", {{"self", ValueRef{m.sum("", m.h)}}, {"other", 1.0}}, {});
    CHECK(sums(m, m.unary("", "aten::log", more)).empty());
  }
  SECTION("a mean over rows that do not grow as samples do") {
    Model m;
    const std::vector<Dim> longer{m.batch + Dim(1), Dim(4)};
    const ValueId padded = m.op(
        "", "aten::pad", {{"self", ValueRef{m.h}}, {"pad", std::vector<Dim>{Dim(0), Dim(0), Dim(0), Dim(1)}}}, longer);
    CHECK(sums(m, m.unary("", "aten::log", m.mean("", padded, 0, {Dim(4)}))).empty());
  }
  SECTION("what no sum makes up for") {
    Model m;
    CHECK(sums(m, m.op("", "aten::max", {{"self", ValueRef{m.h}}}, {})).empty());
  }
}

TEST_CASE("what was put together of a whole batch meets no number of samples of a part") {
  Model m;
  const ValueId a = m.sum("", m.h), b = m.sum("", m.unary("", "aten::sigmoid", m.h));
  const ValueId product = m.binary("", "aten::mul.Tensor", a, b, {});
  const ValueId mean = m.op("", "aten::div.Tensor", {{"self", ValueRef{product}}, {"other", m.batch * Dim(4)}}, {});
  CHECK(m.finish(mean) == Found{"aten::mul.Tensor multiplies two sums over the batch",
                                "aten::div.Tensor relates a sum over the whole batch to a number of samples"});
  CHECK(m.graph.coupled[0].sums.size() == 2);
  CHECK(m.graph.coupled[1].sums.empty());
  CHECK_FALSE(follows_from_sums(m.graph, m.graph.loss.front().numerator));
}

TEST_CASE("a total of rows that do not grow as samples do is none that can be put together") {
  Model m;
  const std::vector<Dim> longer{m.batch + Dim(1), Dim(4)};
  const ValueId padded = m.op(
      "", "aten::pad", {{"self", ValueRef{m.h}}, {"pad", std::vector<Dim>{Dim(0), Dim(0), Dim(0), Dim(1)}}}, longer);
  m.loss(m.unary("", "aten::log", m.sum("", padded)));
  REQUIRE(finish_graph(m.graph).has_value());
  REQUIRE(m.graph.coupled.size() == 1);
  CHECK(m.graph.coupled.front().sums.empty());
}

TEST_CASE("sums made in another block than they meet in are not put together") {
  Model m;
  const ValueId a = m.mean("layers.0", m.h, 0, {Dim(4)}), b = m.mean("layers.0", m.x, 0, {Dim(4)});
  const ValueId h1 = m.linear("layers.1", m.h, m.parameter("layers.1.weight", {4, 4}), m.dims);
  const ValueId product = m.binary("layers.1", "aten::mul.Tensor", a, b, {Dim(4)});
  m.loss(m.binary("", "aten::add.Tensor", m.sum("", h1), m.sum("", product), {}));
  REQUIRE(finish_graph(m.graph).has_value());
  REQUIRE(m.graph.num_blocks() > 1);
  REQUIRE_FALSE(m.graph.coupled.empty());
  for (const CoupledOp& one : m.graph.coupled) CHECK(one.sums.empty());
}

TEST_CASE("a nonlinear function of a batch sum is coupled") {
  Model m;
  CHECK(m.finish(m.unary("", "aten::log", m.sum("", m.h))) ==
        Found{"aten::log is a nonlinear function of a sum over the batch"});
}

TEST_CASE("in-batch similarities are coupled, and reported once") {
  Model m;
  const ValueId turned = m.op("", "aten::t", {{"self", ValueRef{m.h}}}, {Dim(4), m.batch});
  const ValueId scores =
      m.op("", "aten::mm", {{"self", ValueRef{m.h}}, {"mat2", ValueRef{turned}}}, {m.batch, m.batch});
  const Found found = m.finish(m.sum("", scores));
  CHECK(found == Found{"aten::mm compares every sample with every other"});
}

TEST_CASE("work along the batch dim is coupled") {
  Model m;
  CHECK(m.finish(m.sum("", m.op("", "aten::softmax.int", {{"self", ValueRef{m.h}}, {"dim", Dim(0)}}, m.dims))) ==
        Found{"aten::softmax.int works along the batch"});
}

TEST_CASE("a maximum over the batch is coupled") {
  Model m;
  CHECK(m.finish(m.op("", "aten::max", {{"self", ValueRef{m.h}}}, {})) ==
        Found{"aten::max reduces over the batch by something other than a sum"});
}
