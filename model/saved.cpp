// C3: what backward keeps. The tables name graph values; this file adds what lies inside composite operators.
#include <algorithm>
#include <string_view>

#include "model/op_values.h"
#include "model/storage.h"

namespace coxswain::model {
namespace {

constexpr std::int64_t kStatisticBytes = 4;  // float32 on every device
constexpr std::int64_t kIndexBytes = 8;

bool requires_grad(const ModelGraph& graph, const Op& op, std::string_view argument) {
  const ValueId value = value_argument(op, argument);
  return value >= 0 && graph.values[value].requires_grad;
}

/// Operands of a batched product are merged to matrices first; one that cannot be merged as it lies is copied, and the
/// copy is kept.
bool is_copied_for_product(const StorageMap& storage, const Op& op, ValueId operand) {
  const std::string_view name = base_name(op.target);
  const Placed& placed = storage.at(operand);
  const std::size_t rank = placed.dims.size();
  if (name == "aten::linear" && rank > 2) {
    std::int64_t rows = 1;
    for (std::size_t d = 0; d + 1 < rank; ++d) rows *= placed.dims[d];
    return !restride(placed.dims, placed.strides, {rows, placed.dims[rank - 1]});
  }
  if (name == "aten::matmul" && rank > 3) {
    std::int64_t matrices = 1;
    for (std::size_t d = 0; d + 2 < rank; ++d) matrices *= placed.dims[d];
    return !restride(placed.dims, placed.strides, {matrices, placed.dims[rank - 2], placed.dims[rank - 1]});
  }
  return false;
}

std::int64_t attention_scores(const Op& op, const StorageMap& storage) {
  const Placed& query = storage.at(value_argument(op, "query"));
  const Placed& key = storage.at(value_argument(op, "key"));
  const std::int64_t depth = std::max<std::int64_t>(query.dims.back(), 1);
  return query.elements / depth * key.dims[key.dims.size() - 2];
}

bool is_repeated_for_attention(const Op& op, const StorageMap& storage, ValueId operand) {
  const Sizes& query = storage.at(value_argument(op, "query")).dims;
  const Sizes& dims = storage.at(operand).dims;
  return query.size() >= 4 && dims.size() >= 3 && dims[dims.size() - 3] != query[query.size() - 3];
}

/// With dropout our engine merges leading dims and repeats grouped heads first (worker/engine/attention.cpp).
bool is_copied_for_attention(const Op& op, const StorageMap& storage, ValueId operand) {
  return is_repeated_for_attention(op, storage, operand) || !storage.is_contiguous(operand);
}

/// Bytes an element that `op` computes in.
Bytes computed_size(const ModelGraph& graph, const Op& op, const StorageMap& storage, ValueId operand) {
  return storage.widths().computed(op).value_or(storage.widths().mixed() ? storage.widths().element(operand)
                                                                         : size_of(graph.values[operand].dtype));
}

Bytes attention_hidden(const ModelGraph& graph, const Op& op, const StorageMap& storage) {
  const ValueId query = value_argument(op, "query");
  const Placed& placed = storage.at(query);
  const std::int64_t element = computed_size(graph, op, storage, query).value;
  if (!drops(op)) {
    // Flash attention: one log-sum-exp per row; a boolean mask is turned into floats.
    Bytes bytes(kStatisticBytes * (placed.elements / std::max<std::int64_t>(placed.dims.back(), 1)));
    const ValueId mask = value_argument(op, "attn_mask");
    const bool converts = base_name(op.target) != "coxswain::ring_attention";  // reads booleans as they are
    if (converts && mask >= 0 && graph.values[mask].dtype == DType::Bool)
      bytes += Bytes(element * storage.at(mask).elements);
    return bytes;
  }
  Bytes bytes(element * attention_scores(op, storage));  // probabilities; their signs say what was dropped
  for (const char* name : {"query", "key", "value"}) {
    const ValueId operand = value_argument(op, name);
    if (!is_copied_for_attention(op, storage, operand)) continue;
    const Placed& copied = storage.at(operand);
    const std::int64_t heads = is_repeated_for_attention(op, storage, operand)
                                   ? placed.dims[placed.dims.size() - 3] / copied.dims[copied.dims.size() - 3]
                                   : 1;
    bytes += Bytes(element * copied.elements * heads);
  }
  return bytes;
}

std::int64_t normalised_rows(const Op& op, std::int64_t elements) {
  std::int64_t row = 1;
  for (const std::int64_t size : integers_argument(op, "normalized_shape").value_or(Sizes{})) row *= size;
  return elements / std::max<std::int64_t>(row, 1);
}

Bytes hidden_bytes(const ModelGraph& graph, const Op& op, const OpRule& rule, const StorageMap& storage) {
  const auto elements = [&](std::string_view name) {
    const ValueId value = value_argument(op, name);
    return value < 0 ? std::int64_t{0} : storage.at(value).elements;
  };
  switch (rule.hidden) {
    case Hidden::None: return Bytes(0);
    case Hidden::RowStatistics2: return Bytes(2 * kStatisticBytes * normalised_rows(op, elements("input")));
    case Hidden::RmsNorm:
      // Composite on CPU: with a weight, what it multiplies is kept too.
      return Bytes(kStatisticBytes * (normalised_rows(op, elements("input")) +
                                      (value_argument(op, "weight") >= 0 ? elements("input") : 0)));
    case Hidden::GroupStatistics2: {
      const ValueId input = value_argument(op, "input");
      const auto groups = integer_argument(op, find_argument(op, "num_groups") != nullptr ? "num_groups" : "group");
      return input < 0 ? Bytes(0)
                       : Bytes(2 * kStatisticBytes * storage.at(input).dims.front() *
                               groups.value_or(storage.at(input).dims[1]));
    }
    case Hidden::ChannelStatistics2: {
      const ValueId input = value_argument(op, "input");
      return input < 0 || storage.at(input).dims.size() < 2 ? Bytes(0)
                                                            : Bytes(2 * kStatisticBytes * storage.at(input).dims[1]);
    }
    case Hidden::Attention: return attention_hidden(graph, op, storage);
    case Hidden::LogSoftmax: {
      const ValueId input = value_argument(op, "self");
      return input < 0 ? Bytes(0) : computed_size(graph, op, storage, input) * (storage.at(input).elements + 1);
    }
    case Hidden::RowStatistic: return Bytes(kStatisticBytes * elements("target"));
    case Hidden::LossWeight: return size_of(graph.values[op.outputs.front()].dtype);
    case Hidden::OutputIndices: return Bytes(kIndexBytes * storage.at(op.outputs.front()).elements);
  }
  return Bytes(0);
}

}  // namespace

SavedStorages saved_storages(const ModelGraph& graph, const Op& op, const StorageMap& storage) {
  SavedStorages saved;
  if (!is_differentiated(graph, op)) return saved;
  const OpRule* rule = find_rule(op.target);
  const bool explicit_attention = rule != nullptr && rule->hidden == Hidden::Attention && drops(op);
  const auto keep = [&](ValueId value) {
    if (value < 0) return;
    if (storage.widths().casts(op, value)) {  // a copy in the width that it computes in
      const Bytes copy = computed_size(graph, op, storage, value) * storage.at(value).elements;
      saved.hidden += copy;
      saved.copies += copy;
      return;
    }
    if (is_copied_for_product(storage, op, value)) {
      saved.hidden += storage.value_bytes(value);
      return;
    }
    if (explicit_attention && is_copied_for_attention(op, storage, value))
      return;  // its copy is among the hidden bytes
    const ValueId base = storage.base(value);
    if (std::find(saved.bases.begin(), saved.bases.end(), base) == saved.bases.end()) saved.bases.push_back(base);
  };
  if (rule == nullptr) {
    for_each_input(op, [&](ValueId value) {
      if (is_floating_point(graph.values[value].dtype)) keep(value);
    });
    return saved;
  }
  for (const Saved& entry : rule->saves) {
    if (entry.value.empty()) break;
    if (!entry.when.empty() && !requires_grad(graph, op, entry.when)) continue;
    if (entry.value == "out" || entry.value == "out1") {
      const std::size_t index = entry.value == "out" ? 0 : 1;
      if (index < op.outputs.size()) keep(op.outputs[index]);
      continue;
    }
    const Argument* argument = find_argument(op, entry.value);
    if (argument == nullptr) continue;
    if (const auto* reference = std::get_if<ValueRef>(&argument->value)) keep(reference->id);
    if (const auto* list = std::get_if<std::vector<std::optional<ValueRef>>>(&argument->value))
      for (const auto& element : *list)
        if (element) keep(element->id);
  }
  // Flash attention keeps its result and its mask; the explicit form (with dropout) neither.
  if (rule->hidden == Hidden::Attention && !explicit_attention) {
    keep(op.outputs.front());
    const ValueId mask = value_argument(op, "attn_mask");
    const bool reads = mask >= 0 && base_name(op.target) == "coxswain::ring_attention";
    if (reads || (mask >= 0 && is_floating_point(graph.values[mask].dtype))) keep(mask);
  }
  const Bytes hidden = hidden_bytes(graph, op, *rule, storage);
  saved.hidden += hidden;
  if (explicit_attention) saved.copies += hidden;
  return saved;
}

namespace {

/// Copies in another width: all at once in forward, one gradient at a time in backward.
Workspace casts_of(const Op& op, const StorageMap& storage) {
  Workspace workspace;
  for_each_input(op, [&](ValueId value) {
    if (!storage.widths().casts(op, value)) return;
    const Bytes copy = *storage.widths().computed(op) * storage.at(value).elements;
    workspace.forward += copy;
    workspace.backward = std::max(workspace.backward, copy);
  });
  if (storage.widths().rounds(op) && !op.outputs.empty() && op.outputs.front() >= 0) {
    const Bytes wide = size_of(DType::Float32) * storage.at(op.outputs.front()).elements;
    workspace.forward += wide;
    workspace.backward += wide;
  }
  return workspace;
}

/// In float32 only what multiplies the values, and in backward the gradient of the scores; in 16 bits both matrices of
/// float32 beside what is kept.
Workspace explicit_attention_workspace(const Op& op, const StorageMap& storage) {
  const Bytes element = storage.widths().computed(op).value_or(size_of(DType::Float32));
  const std::int64_t scores = attention_scores(op, storage);
  const bool narrow = element < size_of(DType::Float32);
  const Bytes matrices = size_of(DType::Float32) * scores * (narrow ? 2 : 1);
  return {matrices, matrices + element * storage.at(op.outputs.front()).elements};
}

}  // namespace

Workspace workspace_of(const ModelGraph& graph, const Op& op, const StorageMap& storage) {
  const std::string_view name = base_name(op.target);
  if (name == "aten::scaled_dot_product_attention" && drops(op)) return explicit_attention_workspace(op, storage);
  Workspace workspace = casts_of(op, storage);
  if (name == "aten::cross_entropy_loss") {
    // The gradient of the log-softmax stands beside that of the logits, before that is cast.
    const ValueId input = value_argument(op, "self");
    workspace.backward =
        computed_size(graph, op, storage, input) * storage.at(input).elements * 2 - storage.value_bytes(input);
  } else if (name == "coxswain::ring_attention") {
    // Blocks of another member and of the one behind it: keys and values, in backward their gradients too.
    Bytes block{0};
    for (const char* passed : {"key", "value"}) {
      const ValueId operand = value_argument(op, passed);
      block += storage.value_bytes(operand);
    }
    workspace = {block * 2, block * 4};
  } else if (name == "coxswain::all_gather" || name == "coxswain::reduce_scatter") {
    // The members' parts, one after another; a gather's backward is a scatter of the same, and the other way round.
    // Parts of the first dim lie so already.
    const ValueId whole = name == "coxswain::all_gather" ? op.outputs.front() : value_argument(op, "self");
    if (integer_argument(op, "dim").value_or(1) > 0)
      workspace = {storage.value_bytes(whole), storage.value_bytes(whole)};
  } else if (name == "coxswain::all_to_all") {
    // What goes out is packed, what comes in unpacked, except along the first dim.
    const std::int64_t from = integer_argument(op, "dim").value_or(1), to = integer_argument(op, "to_dim").value_or(1);
    Bytes packed{0};
    if (to > 0 || to == from) packed += storage.value_bytes(value_argument(op, "self"));
    if (from > 0 || to == from) packed += storage.value_bytes(op.outputs.front());
    workspace = {packed, packed};
  } else if (name.starts_with("aten::conv")) {
    // What comes back through a transpose (patches as a sequence) is made contiguous.
    workspace.backward += op.outputs.front() < 0 ? Bytes(0) : storage.value_bytes(op.outputs.front());
  } else if (name == "aten::pow") {
    workspace.backward += op.outputs.front() < 0 ? Bytes(0) : storage.value_bytes(op.outputs.front());
  } else if (name == "aten::dropout" && drops(op) && op.outputs.front() >= 0 &&
             storage.widths().element(op.outputs.front()) < size_of(graph.values[op.outputs.front()].dtype)) {
    // Drawn and applied in float32, there and back.
    workspace.forward += size_of(DType::Float32) * storage.at(op.outputs.front()).elements * 2;
    workspace.backward += size_of(DType::Float32) * storage.at(op.outputs.front()).elements * 2;
  }
  return workspace;
}

}  // namespace coxswain::model
