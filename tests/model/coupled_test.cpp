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
