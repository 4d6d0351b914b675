#include "plan/layout/transition_factors.h"

#include <algorithm>
#include <set>
#include <string>
#include <string_view>

#include "plan/layout/choices.h"

namespace coxswain::plan {
namespace {

using model::ModelGraph;
using model::Op;
using model::ValueId;

int position(const Op& op, std::string_view name) {
  for (std::size_t i = 0; i < op.arguments.size(); ++i)
    if (op.arguments[i].name == name) return static_cast<int>(i);
  return -1;
}

std::int64_t number(const Op& op, std::string_view name) {
  const int at = position(op, name);
  return at < 0 ? 0 : std::get<model::Dim>(op.arguments[static_cast<std::size_t>(at)].value).constant();
}

ValueId tensor(const Op& op, std::string_view name) {
  const int at = position(op, name);
  return at < 0 ? -1 : std::get<model::ValueRef>(op.arguments[static_cast<std::size_t>(at)].value).id;
}

class Maker {
 public:
  Maker(const ModelGraph& graph, const Op& op) : graph_(graph), op_(op) {}

  int factor(std::int64_t size, FactorKind kind = FactorKind::Free) {
    Factor factor;
    factor.name = "d" + std::to_string(made_.factors.size());
    factor.size = size;
    factor.kind = kind;
    made_.factors.push_back(factor);
    return static_cast<int>(made_.factors.size()) - 1;
  }
  std::vector<int> dim(std::int64_t size, FactorKind kind = FactorKind::Free) {
    return size == 1 ? std::vector<int>{} : std::vector<int>{factor(size, kind)};
  }
  /// Names a dim that is cut as (outer, rows, inner): the rows stay whole, the other two go on in both tensors.
  struct CutDim {
    std::vector<int> from, to;
  };
  CutDim cut_dim(std::int64_t from, std::int64_t to, const std::string& prefix) {
    const std::int64_t outer = number(op_, prefix + "outer"), inner = number(op_, prefix + "inner");
    const std::vector<int> before = dim(outer), behind = dim(inner);
    follow(prefix + "outer", before);
    follow(prefix + "inner", behind);
    CutDim cut{before, before};
    for (const int f : dim(from / (outer * inner), FactorKind::Whole)) cut.from.push_back(f);
    for (const int f : dim(to / (outer * inner), FactorKind::Whole)) cut.to.push_back(f);
    cut.from.insert(cut.from.end(), behind.begin(), behind.end());
    cut.to.insert(cut.to.end(), behind.begin(), behind.end());
    return cut;
  }
  void input(std::string_view name, std::vector<std::vector<int>> dims) {
    made_.inputs.push_back({position(op_, name), -1, tensor(op_, name), std::move(dims), false});
  }
  void output(std::vector<std::vector<int>> dims) {
    made_.outputs.push_back({0, -1, op_.outputs.front(), std::move(dims), false});
  }
  void linear() { made_.linear.push_back({0}); }
  OpFactors take() { return std::move(made_); }

 private:
  void follow(const std::string& name, const std::vector<int>& factors) {
    Rewrite rewrite;
    rewrite.argument = position(op_, name);
    rewrite.factors = factors;
    if (!factors.empty()) made_.rewrites.push_back(rewrite);
  }

  const ModelGraph& graph_;
  const Op& op_;
  OpFactors made_;
};

/// Every dim of `self` free, but those that are cut.
OpFactors along_cuts(const ModelGraph& graph, const Op& op, bool is_linear) {
  Maker maker(graph, op);
  const auto in = sizes_of(graph, tensor(op, "self")), out = sizes_of(graph, op.outputs.front());
  const int cut = position(op, "dim") < 0 ? -1 : static_cast<int>(number(op, "dim"));
  const int cut_to = position(op, "to_dim") < 0 ? -1 : static_cast<int>(number(op, "to_dim"));
  std::vector<std::vector<int>> from, to;
  for (std::size_t d = 0; d < in.size(); ++d) {
    const bool both = cut == cut_to && static_cast<int>(d) == cut;
    if (both) {  // gathered and split again: nothing inside it goes on alike
      from.push_back(maker.dim(in[d], FactorKind::Whole));
      to.push_back(maker.dim(out[d], FactorKind::Whole));
    } else if (static_cast<int>(d) == cut || static_cast<int>(d) == cut_to) {
      const auto dims = maker.cut_dim(in[d], out[d], static_cast<int>(d) == cut ? "" : "to_");
      from.push_back(dims.from);
      to.push_back(dims.to);
    } else {
      from.push_back(maker.dim(in[d]));
      to.push_back(from.back());
    }
  }
  maker.input("self", from);
  maker.output(to);
  if (is_linear) maker.linear();
  return maker.take();
}

OpFactors masked_rows(const ModelGraph& graph, const Op& op) {
  Maker maker(graph, op);
  std::vector<std::vector<int>> dims;
  for (const std::int64_t size : sizes_of(graph, tensor(op, "self"))) dims.push_back(maker.dim(size));
  maker.input("self", dims);
  const std::size_t rank = sizes_of(graph, tensor(op, "index")).size();
  maker.input("index", {dims.begin(), dims.begin() + static_cast<std::ptrdiff_t>(rank)});
  maker.output(dims);
  maker.linear();
  return maker.take();
}

/// Rows of a cross entropy: their losses add up.
OpFactors loss_rows(const ModelGraph& graph, const Op& op) {
  Maker maker(graph, op);
  const bool is_sum = number(op, "reduction") == 2, is_mean = number(op, "reduction") == 1;
  const auto sizes = sizes_of(graph, tensor(op, "self"));
  std::vector<std::vector<int>> dims, rows;
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    dims.push_back(maker.dim(sizes[d], d == 1 || is_mean ? FactorKind::Whole
                                       : is_sum          ? FactorKind::Sum
                                                         : FactorKind::Free));
    if (d != 1) rows.push_back(dims.back());
  }
  maker.input("self", dims);
  maker.input("target", rows);
  maker.output(is_sum || is_mean ? std::vector<std::vector<int>>{} : rows);
  return maker.take();
}

/// Samples and heads are free; queries, keys and depth stay whole.
std::optional<OpFactors> attention_heads(const ModelGraph& graph, const Op& op) {
  const auto query = sizes_of(graph, tensor(op, "query")), key = sizes_of(graph, tensor(op, "key"));
  if (query.size() != 4 || key.size() != 4 || query[1] % key[1] != 0) return std::nullopt;
  Maker maker(graph, op);
  const auto samples = maker.dim(query[0]), heads = maker.dim(key[1]), repeats = maker.dim(query[1] / key[1]);
  const auto rows = maker.dim(query[2], FactorKind::Whole), depth = maker.dim(query[3], FactorKind::Whole);
  const auto keys = maker.dim(key[2], FactorKind::Whole);
  std::vector<int> all_heads = heads;
  all_heads.insert(all_heads.end(), repeats.begin(), repeats.end());
  maker.input("query", {samples, all_heads, rows, depth});
  maker.input("key", {samples, heads, keys, depth});
  const auto value_depth = maker.dim(sizes_of(graph, tensor(op, "value"))[3], FactorKind::Whole);
  maker.input("value", {samples, heads, keys, value_depth});
  if (const int at = position(op, "attn_mask");
      at >= 0 && std::holds_alternative<model::ValueRef>(op.arguments[static_cast<std::size_t>(at)].value)) {
    const auto mask = sizes_of(graph, tensor(op, "attn_mask"));
    std::vector<std::vector<int>> all{samples, all_heads, rows, {}}, dims;
    for (std::size_t d = 0; d < mask.size(); ++d) {
      const std::size_t of_all = 4 - mask.size() + d;
      dims.push_back(mask[d] == 1  ? std::vector<int>{}
                     : of_all == 3 ? maker.dim(mask[d], FactorKind::Whole)
                                   : all[of_all]);
    }
    maker.input("attn_mask", dims);
  }
  maker.output({samples, all_heads, rows, value_depth});
  return maker.take();
}

}  // namespace

std::optional<OpFactors> bind_transition(const ModelGraph& graph, const Op& op) {
  static constexpr std::string_view kPrefix = "coxswain::";
  if (op.target.compare(0, kPrefix.size(), kPrefix) != 0) return std::nullopt;
  const std::string_view name = std::string_view(op.target).substr(kPrefix.size());
  static const std::set<std::string_view> kLinear{"all_reduce", "to_partial",     "all_gather",
                                                  "slice",      "reduce_scatter", "all_to_all"};
  if (kLinear.count(name) != 0) return along_cuts(graph, op, true);
  if (name == "local_index") return along_cuts(graph, op, false);
  if (name == "mask_rows") return masked_rows(graph, op);
  if (name == "cross_entropy") return loss_rows(graph, op);
  if (name == "ring_attention") return attention_heads(graph, op);
  return std::nullopt;
}

}  // namespace coxswain::plan
