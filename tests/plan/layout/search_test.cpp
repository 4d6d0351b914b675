// The dynamic programme against every assignment of choices, costed one by one, on small graphs.
#include "plan/layout/search.h"

#include "tests/plan/layout/graph_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::plan;
using coxswain::tests::LayoutGraph;

namespace {

/// Cost of one assignment, by the rules of the header: what is at hand stays at hand.
std::optional<LayoutCost> cost_of(const model::ModelGraph& graph, const MeshStep& step,
                                  const std::map<model::OpId, OpChoices>& all, const std::vector<std::size_t>& picks) {
  LayoutCost cost;
  std::map<model::ValueId, std::vector<Form>> at_hand;
  const auto bytes_of = [&](model::ValueId v) {
    double bytes = 4;
    for (const auto size : sizes_of(graph, v)) bytes *= static_cast<double>(size);
    return bytes;
  };
  const auto is_parameter = [&](model::ValueId v) {
    for (const auto& p : graph.parameters)
      if (p.value == v) return true;
    return false;
  };
  const auto bring = [&](model::ValueId v, const Form& wanted) {
    auto& forms = at_hand[v];
    if (forms.empty()) {
      const Form stored = wanted.kind == Form::Kind::Shard ? wanted : replicate();
      if (stored == replicate()) cost.whole_parameter_bytes += bytes_of(v);
      forms.push_back(stored);
    }
    std::optional<double> least;
    bool from_part = false;
    for (const Form& form : forms) {
      if (form == wanted) return true;
      const auto seconds = transition_seconds(form, wanted, bytes_of(v), true, step);
      if (!seconds || (least && *least <= *seconds)) continue;
      least = seconds;
      from_part = form.kind == Form::Kind::Shard;
    }
    if (!least) return false;
    cost.seconds += *least;
    if (from_part && is_parameter(v)) cost.whole_parameter_bytes += bytes_of(v);
    forms.push_back(wanted);
    return true;
  };
  std::size_t i = 0;
  for (const auto& [id, op] : all) {
    const Choice& choice = op.choices[picks[i++]];
    cost.seconds += choice.seconds;
    for (std::size_t r = 0; r < op.reads.size(); ++r) {
      const auto& value = graph.values[static_cast<std::size_t>(op.reads[r].value)];
      if (value.producer < 0 && !is_parameter(op.reads[r].value)) continue;
      if (!bring(op.reads[r].value, choice.reads[r])) return std::nullopt;
    }
    for (std::size_t w = 0; w < op.writes.size(); ++w)
      at_hand[graph.ops[static_cast<std::size_t>(id)].outputs[static_cast<std::size_t>(op.writes[w])]] = {
          choice.writes[w]};
  }
  if (!bring(graph.loss[0].numerator, replicate())) return std::nullopt;
  return cost;
}

LayoutCost best_of_all(const model::ModelGraph& graph, const MeshStep& step,
                       const std::map<model::OpId, OpChoices>& all, int& tried) {
  std::vector<std::size_t> picks(all.size(), 0);
  std::optional<LayoutCost> best;
  while (true) {
    ++tried;
    const auto cost = cost_of(graph, step, all, picks);
    if (cost && (!best || *cost < *best)) best = cost;
    std::size_t i = 0;
    for (auto op = all.begin(); op != all.end(); ++op, ++i) {
      if (++picks[i] < op->second.choices.size()) break;
      picks[i] = 0;
    }
    if (i == all.size()) break;
  }
  REQUIRE(best);
  return *best;
}

}  // namespace

TEST_CASE("the search finds the least of all assignments", "[search_test]") {
  for (const int size : {2, 4}) {
    for (const bool shared : {false, true}) {
      LayoutGraph builder;
      const auto input = builder.value({kSamples, 8, 16}, false);
      const auto first = builder.parameter({32, 16}), second = builder.parameter({16, 32});
      const auto hidden = builder.relu(builder.linear(input, first, {kSamples, 8, 32}), {kSamples, 8, 32});
      auto result = builder.linear(hidden, second, {kSamples, 8, 16});
      // A residual: the same value is read twice.
      if (shared)
        result = builder.op("aten::add.Tensor",
                            {{"self", model::ValueRef{result}},
                             {"other", model::ValueRef{builder.relu(result, {kSamples, 8, 16})}},
                             {"alpha", model::Dim(1)}},
                            {kSamples, 8, 16});
      auto& graph = builder.finish(result);
      std::vector<int> edge_dims;
      const MeshStep step = tests::tensor_step(graph, size, edge_dims);
      const auto choices = list_choices(graph, {0, 1}, step);
      std::map<model::ValueId, Form> stored;
      const RunLayout found = find_layout(graph, {0, 1}, step, choices, stored);
      int tried = 0;
      const LayoutCost best = best_of_all(graph, step, choices, tried);
      CHECK(tried > 100);
      CHECK(found.cost.whole_parameter_bytes == best.whole_parameter_bytes);
      CHECK(found.cost.seconds == Approx(best.seconds).epsilon(1e-12));
      // Columns, then rows (Shoeybi et al. 2019): both weights split, one sum.
      CHECK(stored.at(first) == shard({0, 1, 32, 1}));
      CHECK(stored.at(second) == shard({1, 1, 32, 1}));
    }
  }
}
