// Experts in the grouped form of transformers 5 (its default), written in the form in which each row gathers its
// expert's matrix. The grouped form sorts the rows of all samples by expert, multiplies groups of rows by a Python
// custom operator, and puts the rows back. What lies between works row by row, so the order changes no number, and
// without the sort no operator mixes samples: the batch may be split, and every later pass sees one form of experts.
//
//   sorted, order = sort(experts)                        experts
//   x[order // chosen], w[order]                         repeat_interleave(x, chosen), w
//   grouped_mm_fallback(x, table^T, cumsum(histc(...)))  bmm(table[experts], x)
//   y[inverse of order]                                  y
//
// A sort whose rows meet an operator that is not known to work row by row is left as it is.
#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "model/op_rules.h"
#include "model/op_values.h"
#include "model/pt2_reader.h"

namespace coxswain::model {
namespace {

constexpr std::string_view kGroupedProduct = "transformers::grouped_mm_fallback";

/// Work along the argument `dim` (default: the last one); row by row where that is not the first dim.
constexpr std::array<std::string_view, 11> kAlongOneDim{
    "aten::chunk",   "aten::split",   "aten::split_with_sizes", "aten::narrow",      "aten::select", "aten::slice",
    "aten::softmax", "aten::squeeze", "aten::unsqueeze",        "aten::log_softmax", "aten::glu"};
/// Work on the last dims and read nothing else by row.
constexpr std::array<std::string_view, 3> kOnLastDims{"aten::linear", "aten::layer_norm", "aten::rms_norm"};

bool is_one_of(std::string_view name, const auto& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

class Ungrouping {
 public:
  Ungrouping(ModelGraph& graph, std::size_t sort)
      : graph_(graph), sort_(sort), roles_(graph.values.size(), Role::None) {}

  /// False, and nothing changed: the pattern does not hold.
  bool run() {
    const std::size_t num_values = graph_.values.size();
    const bool holds = follow();
    if (holds) {
      apply();
    } else {
      graph_.values.resize(num_values);
    }
    return holds;
  }

 private:
  bool follow() {
    const Op& sort = graph_.ops[sort_];
    experts_ = value_argument(sort, "self");
    if (experts_ < 0 || dims(experts_).size() != 1 || bool_argument(sort, "descending", false) ||
        sort.outputs.size() != 2 || sort.outputs[1] < 0)
      return false;
    rows_ = dims(experts_)[0];
    order_ = sort.outputs[1];
    roles_[order_] = Role::Order;
    if (sort.outputs[0] >= 0) by_row(sort.outputs[0], experts_);
    for (at_ = sort_ + 1; at_ < graph_.ops.size(); ++at_)
      if (is_tracked(graph_.ops[at_]) && !visit(graph_.ops[at_])) return false;
    for (const LossTerm& term : graph_.loss)
      if (is_tracked(term.numerator) || (term.denominator && is_tracked(*term.denominator))) return false;
    return num_products_ > 0;
  }

  /// What a value is to the sort. Row: it has its rows in the sorted order. Quotient: the order by the number of
  /// experts that a token chose. Shell, Inverse: of the order. Counts, Ends: of the groups.
  enum class Role : char { None, Order, Row, Quotient, Shell, Inverse, Counts, Ends };

  [[nodiscard]] Role role(ValueId value) const {
    return value >= 0 && value < static_cast<ValueId>(roles_.size()) ? roles_[value] : Role::None;
  }
  [[nodiscard]] bool is_tracked(ValueId value) const { return role(value) != Role::None; }
  [[nodiscard]] bool is_tracked(const Op& op) const {
    bool any = false;
    for_each_input(op, [&](ValueId value) { any = any || is_tracked(value); });
    return any;
  }
  [[nodiscard]] const std::vector<Dim>& dims(ValueId value) const { return graph_.values[value].dims; }
  bool become(ValueId value, Role role) {
    roles_[value] = role;
    return true;
  }
  /// `value` has its rows in the sorted order; in the other form it is `now`.
  void by_row(ValueId value, ValueId now) {
    roles_[value] = Role::Row;
    now_[value] = now;
  }
  [[nodiscard]] ValueId now(ValueId value) const {
    const auto found = now_.find(value);
    return found == now_.end() ? value : found->second;
  }

  void substitute(Op& op) const {
    for (Argument& argument : op.arguments) {
      if (auto* reference = std::get_if<ValueRef>(&argument.value)) {
        reference->id = now(reference->id);
      } else if (auto* list = std::get_if<std::vector<std::optional<ValueRef>>>(&argument.value)) {
        for (auto& element : *list)
          if (element) element->id = now(element->id);
      }
    }
  }
  /// An operator in place of the one that is looked at. `part` names its own value; "" where it makes `output`.
  ValueId emit(std::string_view target, NamedArguments given, const std::string& part, std::vector<Dim> dims) {
    const Op like = graph_.ops[at_];
    ValueId output = like.outputs.front();
    if (!part.empty()) {
      const Value& value = graph_.values[output];
      output = add_value(graph_, value.name + "_" + part, std::move(dims), value.dtype);
      roles_.push_back(Role::None);
    }
    Op op = make_op(target, given, {like.module_path, like.source, like.grad_enabled});
    op.outputs.push_back(output);
    instead_[at_].push_back(std::move(op));
    return output;
  }
  // The sort, the order and what is made of them stay without users, and finish_graph drops them.
  void apply() {
    std::vector<Op> ops;
    ops.reserve(graph_.ops.size());
    for (std::size_t i = 0; i < graph_.ops.size(); ++i) {
      const auto found = instead_.find(i);
      if (found == instead_.end()) {
        ops.push_back(std::move(graph_.ops[i]));
      } else {
        for (Op& op : found->second) ops.push_back(std::move(op));
      }
    }
    graph_.ops = std::move(ops);
    for (std::size_t i = sort_ + 1; i < graph_.ops.size(); ++i) substitute(graph_.ops[i]);
  }

  bool visit(const Op& op) {
    const std::string_view name = base_name(op.target);
    if (op.outputs.empty() || op.outputs.front() < 0) return false;
    const ValueId output = op.outputs.front(), self = value_argument(op, "self");
    if (name == "aten::index") return visit_index(op);
    if (name == kGroupedProduct) return visit_product(op);
    if (name == "aten::floor_divide" && self == order_) {
      chosen_ = integer_argument(op, "other").value_or(0);
      return chosen_ > 0 && become(output, Role::Quotient);
    }
    if (name == "aten::empty_like" && self == order_) return become(output, Role::Shell);
    if (name == "aten::index_put") return visit_inverse(op);
    if (name == "aten::histc" && is_experts(self)) return become(output, Role::Counts);
    if (name == "aten::cumsum" && role(self) == Role::Counts) return become(output, Role::Ends);
    return visit_row_wise(op);
  }

  /// The sorted experts themselves, perhaps in another dtype.
  [[nodiscard]] bool is_experts(ValueId value) const {
    const ValueId sorted = graph_.ops[sort_].outputs[0];
    while (value != sorted) {
      const Op* made = role(value) == Role::Row ? producer(value) : nullptr;
      if (made == nullptr || base_name(made->target) != "aten::to") return false;
      value = value_argument(*made, "self");
    }
    return value >= 0;
  }
  [[nodiscard]] const Op* producer(ValueId value) const {
    for (std::size_t i = at_; i-- > 0;)
      if (std::find(graph_.ops[i].outputs.begin(), graph_.ops[i].outputs.end(), value) != graph_.ops[i].outputs.end())
        return &graph_.ops[i];
    return nullptr;
  }
  [[nodiscard]] static ValueId single_index(const Op& op) {
    const Argument* argument = find_argument(op, "indices");
    const auto* list =
        argument == nullptr ? nullptr : std::get_if<std::vector<std::optional<ValueRef>>>(&argument->value);
    return list == nullptr || list->size() != 1 || !list->front() ? -1 : list->front()->id;
  }

  bool visit_index(const Op& op) {
    const ValueId self = value_argument(op, "self"), index = single_index(op), output = op.outputs.front();
    if (self < 0 || index < 0) return false;
    if (role(self) == Role::Row) {
      now_[output] = now(self);  // back in the first order
      return role(index) == Role::Inverse;
    }
    if (is_tracked(self)) return false;
    // Tokens as they are, or each as often as it chose experts; or rows of a table that are looked up by what has its
    // own rows in the order.
    switch (role(index)) {
      case Role::Order: by_row(output, now(self)); return dims(self)[0] == rows_;
      case Role::Quotient:
        if (!(dims(self)[0] * Dim(chosen_) == rows_)) return false;
        emit("aten::repeat_interleave.self_int", {{"self", ValueRef{self}}, {"repeats", Dim(chosen_)}, {"dim", Dim(0)}},
             "", {});
        by_row(output, output);
        return true;
      case Role::Row: by_row(output, output); return true;
      default: return false;
    }
  }

  bool visit_inverse(const Op& op) {
    const Op* values = producer(value_argument(op, "values"));
    return role(value_argument(op, "self")) == Role::Shell && single_index(op) == order_ && values != nullptr &&
           values->target == "aten::arange" && become(op.outputs.front(), Role::Inverse);
  }

  /// The table behind its transposed form, where it stands as (experts, out, in); else -1.
  [[nodiscard]] ValueId untransposed(ValueId weight) const {
    const Op* made = producer(weight);
    if (made == nullptr || made->target != "aten::transpose.int") return -1;
    const auto first = wrap_dim(integer_argument(*made, "dim0").value_or(0), 3);
    const auto second = wrap_dim(integer_argument(*made, "dim1").value_or(0), 3);
    return first + second == 3 && first != 0 && second != 0 ? value_argument(*made, "self") : -1;
  }

  bool visit_product(const Op& op) {
    const ValueId input = value_argument(op, "input"), weight = value_argument(op, "weight");
    if (role(input) != Role::Row || role(value_argument(op, "offs")) != Role::Ends || weight < 0 || is_tracked(weight))
      return false;
    const ValueId output = op.outputs.front(), table = untransposed(weight);
    const bool by_columns = table >= 0;
    const Dim in = dims(weight)[1], out = dims(weight)[2], one(1);
    const Dim single(by_columns ? 2 : 1);
    const std::vector<std::optional<ValueRef>> indices{ValueRef{experts_}};
    const ValueId matrices =
        emit("aten::index.Tensor", {{"self", ValueRef{by_columns ? table : weight}}, {"indices", indices}}, "matrices",
             by_columns ? std::vector<Dim>{rows_, out, in} : std::vector<Dim>{rows_, in, out});
    const ValueId vectors = emit("aten::unsqueeze", {{"self", ValueRef{input}}, {"dim", single}}, "vectors",
                                 by_columns ? std::vector<Dim>{rows_, in, one} : std::vector<Dim>{rows_, one, in});
    const ValueId product =
        emit("aten::bmm",
             {{"self", ValueRef{by_columns ? matrices : vectors}}, {"mat2", ValueRef{by_columns ? vectors : matrices}}},
             "product", by_columns ? std::vector<Dim>{rows_, out, one} : std::vector<Dim>{rows_, one, out});
    emit("aten::squeeze.dim", {{"self", ValueRef{product}}, {"dim", single}}, "", {});
    by_row(output, output);
    ++num_products_;
    return true;
  }

  /// An operator after which rows stand as before.
  bool visit_row_wise(const Op& op) {
    const std::string_view name = base_name(op.target);
    const std::size_t rank = dims(op.outputs.front()).size();
    ValueId rows = -1;
    bool fits = rank > 0 && dims(op.outputs.front())[0] == rows_;
    for_each_input(op, [&](ValueId value) {
      const bool ordered = role(value) == Role::Row;
      if (ordered) rows = value;
      // What else it reads is the same for every row.
      const bool shared = !is_tracked(value) && (dims(value).size() < rank || dims(value)[0] == Dim(1));
      fits = fits && (ordered || shared || is_one_of(name, kOnLastDims));
    });
    if (rows < 0 || !fits) return false;
    if (!keeps_rows(op, name, rows, rank)) return false;
    for (const ValueId output : op.outputs)
      if (output >= 0) by_row(output, output);
    return true;
  }
  [[nodiscard]] bool keeps_rows(const Op& op, std::string_view name, ValueId rows, std::size_t rank) const {
    if (is_one_of(name, kAlongOneDim)) {
      const std::size_t whole = name == "aten::unsqueeze" ? rank : dims(rows).size();
      return wrap_dim(integer_argument(op, "dim").value_or(name == "aten::glu" ? -1 : 0), whole) != 0;
    }
    if (is_one_of(name, kOnLastDims)) return value_argument(op, "input") == rows && dims(rows).size() > 1;
    const OpRule* rule = find_rule(op.target);
    if (rule == nullptr || rule->op_class != OpClass::Pointwise || name.find("dropout") != std::string_view::npos)
      return false;
    bool same_rank = true;
    for_each_input(op, [&](ValueId value) {
      if (role(value) == Role::Row) same_rank = same_rank && dims(value).size() == rank;
    });
    return same_rank;
  }

  ModelGraph& graph_;
  std::size_t sort_, at_ = 0;
  ValueId experts_ = -1, order_ = -1;
  Dim rows_;
  std::int64_t chosen_ = 0;
  int num_products_ = 0;
  std::vector<Role> roles_;         // by value
  std::map<ValueId, ValueId> now_;  // what stands for a value in the other form
  std::map<std::size_t, std::vector<Op>> instead_;
};

}  // namespace

void ungroup_experts(ModelGraph& graph) {
  for (std::size_t i = 0; i < graph.ops.size(); ++i) {
    if (base_name(graph.ops[i].target) == "aten::sort") Ungrouping(graph, i).run();
  }
}

}  // namespace coxswain::model
