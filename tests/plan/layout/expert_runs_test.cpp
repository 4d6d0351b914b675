#include "plan/layout/expert_runs.h"

#include "plan/experts.h"
#include "tests/plan/layout/graph_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using model::OpId;
using model::ValueId;
using model::ValueRef;

constexpr std::int64_t kRows = 2 * plan::kSamples, kExperts = 4, kWidth = 8, kInner = 6;

/// Rows of tokens, and an expert for each, with products as a test adds them.
struct Mixture : LayoutGraph {
  ValueId rows = value({kRows, kWidth}), indices = value({kRows}), up = parameter({kExperts, kInner, kWidth}),
          down = parameter({kExperts, kWidth, kInner});
  Mixture() { graph.values[indices].dtype = DType::Int64; }

  ValueId read(ValueId table, const std::vector<std::int64_t>& sizes) {
    return op("aten::index.Tensor",
              {{"self", ValueRef{table}}, {"indices", std::vector<std::optional<ValueRef>>{ValueRef{indices}}}}, sizes);
  }
  ValueId unsqueeze(ValueId of, std::int64_t width) {
    return op("aten::unsqueeze", {{"self", ValueRef{of}}, {"dim", model::Dim(2)}}, {kRows, width, 1});
  }
  ValueId squeeze(ValueId of, std::int64_t width) {
    return op("aten::squeeze.dim", {{"self", ValueRef{of}}, {"dim", model::Dim(2)}}, {kRows, width});
  }
  ValueId product(ValueId table, ValueId of, std::int64_t out, std::int64_t in) {
    const ValueId matrices = read(table, {kRows, out, in}), vectors = unsqueeze(of, in);
    return squeeze(op("aten::bmm", {{"self", ValueRef{matrices}}, {"mat2", ValueRef{vectors}}}, {kRows, out, 1}), out);
  }
  Result<std::vector<plan::ExpertRun>> runs(ValueId result) {
    finish(result);
    plan::LocalGraph local;
    local.graph = graph;
    local.cuts = cuts;
    local.cuts.resize(graph.values.size());
    return plan::find_expert_runs(local, graph.blocks.front(), plan::expert_counts(graph));
  }
  std::vector<std::vector<plan::Cut>> cuts;  // by value
  [[nodiscard]] std::vector<std::string> names(const plan::ExpertRun& run) const {
    std::vector<std::string> all;
    for (const OpId id : run.ops) all.push_back(graph.ops[id].target);
    return all;
  }
};

}  // namespace

TEST_CASE("a run goes from the first table to the last product, and takes its views of rows in") {
  Mixture m;
  const ValueId first = m.product(m.up, m.rows, kInner, kWidth);
  const ValueId second = m.product(m.down, m.relu(first, {kRows, kInner}), kWidth, kInner);
  const auto runs = m.runs(m.relu(second, {kRows, kWidth}));
  REQUIRE(runs);
  REQUIRE(runs->size() == 1);
  const plan::ExpertRun& run = runs->front();
  CHECK(run.indices == m.indices);
  CHECK(run.count == kExperts);
  CHECK(run.tables == std::vector<ValueId>{m.up, m.down});
  CHECK(run.entering == std::vector<ValueId>{m.rows});
  CHECK(m.names(run) == std::vector<std::string>{"aten::index.Tensor", "aten::unsqueeze", "aten::bmm",
                                                 "aten::squeeze.dim", "aten::relu", "aten::index.Tensor",
                                                 "aten::unsqueeze", "aten::bmm"});
  // What is outside reads the last product.
  REQUIRE(run.leaving.size() == 1);
  CHECK(m.graph.values[run.leaving.front()].producer == run.ops.back());
  CHECK(run.row_counts.empty());
}

TEST_CASE("what several products read travels once, and a view's count of rows is left open") {
  Mixture m;
  const ValueId gate = m.parameter({kExperts, kInner, kWidth});
  const ValueId a = m.product(m.up, m.rows, kInner, kWidth), b = m.product(gate, m.rows, kInner, kWidth);
  const ValueId both = m.op("aten::mul.Tensor", {{"self", ValueRef{a}}, {"other", ValueRef{b}}}, {kRows, kInner});
  const ValueId viewed =
      m.op("aten::view", {{"self", ValueRef{both}}, {"size", std::vector<model::Dim>{kRows, 2, kInner / 2}}},
           {kRows, 2, kInner / 2});
  const ValueId back = m.op(
      "aten::view", {{"self", ValueRef{viewed}}, {"size", std::vector<model::Dim>{kRows, kInner}}}, {kRows, kInner});
  const auto runs = m.runs(m.product(m.down, back, kWidth, kInner));
  REQUIRE(runs);
  CHECK(runs->front().entering == std::vector<ValueId>{m.rows});
  CHECK(runs->front().row_counts.size() == 2);
}

TEST_CASE("biases of experts are tables too, and an addition belongs to the run") {
  Mixture m;
  const ValueId bias = m.parameter({kExperts, kInner});
  const ValueId out = m.product(m.up, m.rows, kInner, kWidth), added = m.read(bias, {kRows, kInner});
  const auto runs =
      m.runs(m.op("aten::add.Tensor", {{"self", ValueRef{out}}, {"other", ValueRef{added}}}, {kRows, kInner}));
  REQUIRE(runs);
  CHECK(runs->front().tables == std::vector<ValueId>{m.up, bias});
  CHECK(m.names(runs->front()).back() == "aten::add.Tensor");
}

TEST_CASE("an operator that does not go row by row is named") {
  Mixture m;
  const ValueId first = m.product(m.up, m.rows, kInner, kWidth);
  const ValueId mixed = m.op("aten::cumsum", {{"self", ValueRef{first}}, {"dim", model::Dim(0)}}, {kRows, kInner});
  const auto runs = m.runs(m.product(m.down, mixed, kWidth, kInner));
  REQUIRE_FALSE(runs);
  CHECK(runs.error().code == ErrorCode::Unimplemented);
  CHECK(to_text(runs.error()).find("aten::cumsum") != std::string::npos);
}

TEST_CASE("transitions belong to a run where the positions have the same rows") {
  for (const bool same_rows : {true, false}) {
    Mixture m;
    const ValueId part = m.product(m.up, m.rows, kInner, kWidth);
    const ValueId all = m.op("coxswain::all_gather",
                             {{"self", ValueRef{part}},
                              {"axes", model::Dim(1)},
                              {"dim", model::Dim(1)},
                              {"outer", model::Dim(1)},
                              {"inner", model::Dim(1)},
                              {"runs", std::vector<model::Dim>{0, kInner, kInner, kInner}}},
                             {kRows, 2 * kInner});
    const ValueId table = m.parameter({kExperts, kWidth, 2 * kInner});
    const ValueId result = m.product(table, all, kWidth, 2 * kInner);
    m.cuts.resize(m.graph.values.size());
    // Along another axis rows may differ.
    m.cuts[part].push_back({0, 1, 2 * kRows, 1, plan::AxisSet{same_rows ? 2U : 3U}, {{0, kRows}}});
    const auto runs = m.runs(result);
    CHECK(runs.has_value() == same_rows);
    if (!runs) CHECK(to_text(runs.error()).find("coxswain::all_gather") != std::string::npos);
  }
}

TEST_CASE("blocks without tables have no runs") {
  Mixture m;
  const auto runs = m.runs(m.relu(m.rows, {kRows, kWidth}));
  REQUIRE(runs);
  CHECK(runs->empty());
}

}  // namespace coxswain::tests
