#include "model/storage.h"

#include <algorithm>
#include <numeric>
#include <string_view>

#include "model/op_values.h"

namespace coxswain::model {
namespace {

std::int64_t product(const Sizes& dims) {
  return std::accumulate(dims.begin(), dims.end(), std::int64_t{1}, std::multiplies<>());
}

bool same_order_as_dense(const Sizes& dims, const Sizes& strides) {
  std::int64_t expected = 1;
  for (std::size_t d = dims.size(); d-- > 0;) {
    if (dims[d] == 1) continue;
    if (strides[d] != expected) return false;
    expected *= dims[d];
  }
  return true;
}

/// First tensor argument; the source of every view operator.
ValueId first_input(const Op& op) {
  ValueId first = -1;
  for_each_input(op, [&](ValueId value) { first = first < 0 ? value : first; });
  return first;
}

}  // namespace

Sizes contiguous_strides(const Sizes& dims) {
  Sizes strides(dims.size());
  std::int64_t stride = 1;
  for (std::size_t d = dims.size(); d-- > 0;) {
    strides[d] = stride;
    stride *= std::max<std::int64_t>(dims[d], 1);
  }
  return strides;
}

// Dims that follow each other in memory without a gap form a run (4 x 8 with strides 8, 1 is a run of 32). A new shape
// fits when its dims, taken from the innermost outward, fill run after run exactly.
std::optional<Sizes> restride(const Sizes& from, const Sizes& strides, const Sizes& to) {
  if (from.empty() || product(from) == 0) return contiguous_strides(to);
  Sizes result(to.size());
  std::size_t open = to.size();
  std::int64_t run = 1, unit = strides.back();
  for (std::size_t d = from.size(); d-- > 0;) {
    run *= from[d];
    const bool run_ends = d == 0 || (from[d - 1] != 1 && strides[d - 1] != run * unit);
    if (!run_ends) continue;
    std::int64_t filled = 1;
    while (open > 0 && (filled < run || to[open - 1] == 1)) {
      --open;
      result[open] = filled * unit;
      filled *= to[open];
    }
    if (filled != run) return std::nullopt;
    if (d > 0) {
      unit = strides[d - 1];
      run = 1;
    }
  }
  if (open != 0) return std::nullopt;
  return result;
}

bool gathers_experts(const ModelGraph& graph, const Op& op) {
  if (base_name(op.target) != "aten::index") return false;
  const ValueId table = value_argument(op, "self");
  return table >= 0 && graph.values[table].producer < 0 && graph.values[table].requires_grad &&
         graph.values[table].dims.size() == 3;
}

bool drops(const Op& op) {
  const std::string_view name = base_name(op.target);
  if (name == "aten::scaled_dot_product_attention") return number_argument(op, "dropout_p", 0) > 0;
  return number_argument(op, "p", 0) > 0 && bool_argument(op, "train", true);
}

bool is_differentiated(const ModelGraph& graph, const Op& op) {
  return op.grad_enabled && std::any_of(op.outputs.begin(), op.outputs.end(),
                                        [&](ValueId value) { return value >= 0 && graph.values[value].requires_grad; });
}

StorageMap::StorageMap(const ModelGraph& graph, OpId first, OpId end, std::int64_t samples, ExpertForm experts,
                       Width width)
    : graph_(graph),
      samples_(samples),
      bindings_{{graph.batch_symbol, samples}},
      experts_(experts),
      widths_(graph, first, end, width),
      slot_(graph.values.size(), -1) {
  placed_.reserve(static_cast<std::size_t>(end - first) * 2 + 16);
  for (OpId id = first; id < end; ++id) {
    for_each_input(graph.ops[id], [&](ValueId value) { add_outside(value); });
    run(graph.ops[id]);
  }
}

Sizes StorageMap::evaluate(ValueId value) const {
  const std::vector<Dim>& dims = graph_.values[value].dims;
  Sizes sizes(dims.size());
  for (std::size_t d = 0; d < dims.size(); ++d)
    sizes[d] = dims[d].is_constant() ? dims[d].constant() : dims[d].evaluate(bindings_);
  return sizes;
}

int StorageMap::new_slot(ValueId value) {
  slot_[value] = static_cast<int>(placed_.size());
  placed_.emplace_back();
  return slot_[value];
}

void StorageMap::add_outside(ValueId value) {
  if (slot_[value] >= 0) return;
  Sizes dims = evaluate(value);
  Sizes strides = contiguous_strides(dims);
  const std::int64_t elements = product(dims);
  placed_[new_slot(value)] = {value, value, std::move(dims), std::move(strides), elements};
}

/// Memory order of the first input that has the output's shape, without its gaps.
Sizes StorageMap::pointwise_strides(const Op& op, const Sizes& dims) const {
  const Placed* model = nullptr;
  for_each_input(op, [&](ValueId value) {
    if (model == nullptr && at(value).dims == dims) model = &at(value);
  });
  if (model == nullptr || same_order_as_dense(dims, model->strides)) return contiguous_strides(dims);
  std::vector<std::size_t> order(dims.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  // A repeated dim (stride 0) says nothing about order and keeps its place.
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return model->strides[a] != 0 && model->strides[b] != 0 && model->strides[a] > model->strides[b];
  });
  Sizes strides(dims.size());
  std::int64_t stride = 1;
  for (std::size_t i = order.size(); i-- > 0;) {
    strides[order[i]] = stride;
    stride *= dims[order[i]];
  }
  return strides;
}

/// Strides of a view of `source`; nothing when the operator copies.
std::optional<Sizes> StorageMap::view_strides(const Op& op, Layout layout, const Placed& source,
                                              const Sizes& dims) const {
  const std::size_t rank = source.dims.size();
  Sizes strides = source.strides;
  switch (layout) {
    case Layout::Alias: return strides;
    case Layout::Transpose: {
      const auto a = integer_argument(op, find_argument(op, "dim0") != nullptr ? "dim0" : "axis0");
      const auto b = integer_argument(op, find_argument(op, "dim1") != nullptr ? "dim1" : "axis1");
      if (!a || !b) return std::nullopt;
      std::swap(strides[wrap_dim(*a, rank)], strides[wrap_dim(*b, rank)]);
      return strides;
    }
    case Layout::Permute: {
      const auto order = integers_argument(op, "dims");
      if (!order) return std::nullopt;
      for (std::size_t d = 0; d < rank; ++d) strides[d] = source.strides[wrap_dim((*order)[d], rank)];
      return strides;
    }
    case Layout::Reverse:
      if (rank >= 2) std::swap(strides[rank - 1], strides[rank - 2]);
      return strides;
    case Layout::Expand: {
      Sizes wide(dims.size(), 0);
      for (std::size_t d = 0; d < rank; ++d) {
        const std::size_t target = dims.size() - rank + d;
        wide[target] = source.dims[d] == dims[target] ? strides[d] : 0;
      }
      return wide;
    }
    case Layout::Slice: {
      const auto dim = integer_argument(op, "dim");
      const auto step = integer_argument(op, "step");
      if (dim && step) strides[wrap_dim(*dim, rank)] *= *step;
      return strides;
    }
    case Layout::Select: {
      const auto dim = integer_argument(op, "dim");
      if (!dim) return std::nullopt;
      strides.erase(strides.begin() + static_cast<std::ptrdiff_t>(wrap_dim(*dim, rank)));
      return strides;
    }
    case Layout::Unsqueeze: {
      const auto dim = integer_argument(op, "dim");
      if (!dim) return std::nullopt;
      const std::size_t place = wrap_dim(*dim, rank + 1);
      strides.insert(strides.begin() + static_cast<std::ptrdiff_t>(place),
                     place < rank ? strides[place] * source.dims[place] : 1);
      return strides;
    }
    case Layout::Squeeze:
    case Layout::View:
    case Layout::Reshape: return restride(source.dims, source.strides, dims);
    case Layout::Contiguous: return same_order_as_dense(dims, strides) ? std::optional(strides) : std::nullopt;
    default: return std::nullopt;
  }
}

void StorageMap::run_split(const Op& op, const Placed& source) {
  const OpRule* rule = find_rule(op.target);
  const auto dim = integer_argument(op, "dim");
  for (const ValueId output : op.outputs) {
    if (output < 0) continue;
    Placed piece{source.base, output, evaluate(output), source.strides, 0};
    if (rule->layout == Layout::Unbind)
      piece.strides.erase(piece.strides.begin() +
                          static_cast<std::ptrdiff_t>(wrap_dim(dim.value_or(0), source.dims.size())));
    piece.elements = product(piece.dims);
    placed_[new_slot(output)] = std::move(piece);
  }
}

void StorageMap::run(const Op& op) {
  const OpRule* rule = find_rule(op.target);
  Layout layout = rule == nullptr ? Layout::Dense : rule->layout;
  const ValueId input = first_input(op);
  // By value: new slots may move the vector.
  const Placed source = input < 0 ? Placed{} : at(input);
  const ValueId output = op.outputs.empty() ? -1 : op.outputs.front();
  if (layout == Layout::Dropout) layout = drops(op) ? Layout::Pointwise : Layout::Alias;
  if (layout == Layout::Convert)
    layout = input >= 0 && output >= 0 && graph_.values[input].dtype == graph_.values[output].dtype &&
                     widths_.element(input) == widths_.element(output) && !bool_argument(op, "copy", false)
                 ? Layout::Alias
                 : Layout::Pointwise;
  if (layout == Layout::Split || layout == Layout::Unbind) {
    run_split(op, source);
    return;
  }
  for (const ValueId value : op.outputs) {
    if (value < 0) continue;
    Placed made{value, value, evaluate(value), {}, 0};
    made.elements = product(made.dims);
    std::optional<Sizes> view;
    if (value == output && input >= 0) view = view_strides(op, layout, source, made.dims);
    if (experts_ == ExpertForm::Grouped && gathers_experts(graph_, op)) {
      made.base = source.base;
      made.gradient_owner = source.gradient_owner;
      made.strides = contiguous_strides(made.dims);
      made.of_table = source.elements;
    } else if (view) {
      made.base = source.base;
      made.strides = std::move(*view);
      if (made.elements == source.elements) made.gradient_owner = source.gradient_owner;
    } else if (layout == Layout::Pointwise) {
      made.strides = pointwise_strides(op, made.dims);
    } else if (layout == Layout::Attention && made.dims.size() == 4 && !drops(op)) {
      made.strides = {made.dims[1] * made.dims[2] * made.dims[3], made.dims[3], made.dims[1] * made.dims[3], 1};
    } else {
      made.strides = contiguous_strides(made.dims);
    }
    placed_[new_slot(value)] = std::move(made);
  }
}

Bytes StorageMap::storage_bytes(ValueId value) const {
  const ValueId owner = base(value);
  return widths_.element(owner) * at(owner).elements;
}

Bytes StorageMap::distinct_bytes(ValueId value) const {
  const Placed& placed = at(value);
  if (placed.of_table > 0) return size_of(graph_.values[value].dtype) * placed.of_table;
  std::int64_t elements = 1;
  for (std::size_t d = 0; d < placed.dims.size(); ++d)
    if (placed.strides[d] != 0) elements *= placed.dims[d];
  return size_of(graph_.values[value].dtype) * elements;
}

bool StorageMap::is_view(const Op& op) const {
  return std::all_of(op.outputs.begin(), op.outputs.end(),
                     [&](ValueId value) { return value < 0 || base(value) != value; });
}

bool StorageMap::is_contiguous(ValueId value) const { return same_order_as_dense(at(value).dims, at(value).strides); }

}  // namespace coxswain::model
