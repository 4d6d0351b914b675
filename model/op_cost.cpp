#include "model/op_cost.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <unordered_map>

#include "model/finish_parts.h"
#include "model/op_rules.h"
#include "model/op_values.h"
#include "model/storage.h"

namespace coxswain::model {
namespace {

/// Base name (or a full name that has its own line) -> rule. Only looked up, never iterated.
std::unordered_map<std::string_view, const OpRule*> index_rules() {
  std::unordered_map<std::string_view, const OpRule*> index;
  for (const auto rules :
       {contraction_rules(), pointwise_rules(), reduction_rules(), movement_rules(), transition_rules()})
    for (const OpRule& rule : rules) index.emplace(rule.target, &rule);
  return index;
}

/// Sizes of all indices of an einsum, multiplied: each element of the product is one multiply-add.
double einsum_multiplications(const Op& op, const StorageMap& storage) {
  const Argument* equation = find_argument(op, "equation");
  const auto* text = equation == nullptr ? nullptr : std::get_if<std::string>(&equation->value);
  if (text == nullptr) return 0;
  std::vector<std::string> terms(1);
  for (const char c : text->substr(0, text->find('-'))) {
    if (c == ',') terms.emplace_back();
    if (c != ',' && c != ' ') terms.back() += c;
  }
  std::vector<ValueId> operands;
  for_each_input(op, [&](ValueId value) { operands.push_back(value); });
  std::map<char, std::int64_t> sizes;
  std::int64_t dots = 1;
  for (std::size_t i = 0; i < operands.size() && i < terms.size(); ++i) {
    const Sizes& dims = storage.at(operands[i]).dims;
    const std::size_t letters =
        static_cast<std::size_t>(std::count_if(terms[i].begin(), terms[i].end(), [](char c) { return c != '.'; }));
    std::size_t d = 0;
    std::int64_t hidden = 1;
    for (std::size_t c = 0; c < terms[i].size() && d < dims.size(); ++c) {
      if (terms[i][c] != '.') {
        sizes[terms[i][c]] = dims[d++];
      } else if (c == 0 || terms[i][c - 1] != '.') {
        for (std::size_t k = letters; k < dims.size(); ++k) hidden *= dims[d++];
      }
    }
    dots = std::max(dots, hidden);
  }
  double product = static_cast<double>(dots);
  for (const auto& [letter, size] : sizes) product *= static_cast<double>(size);
  return product;
}

/// Keys of a whole ring: the rows of all its members.
std::optional<std::int64_t> ring_length(const Op& op) {
  if (base_name(op.target) != "coxswain::ring_attention") return std::nullopt;
  const auto runs = integers_argument(op, "runs");
  if (!runs) return std::nullopt;
  std::int64_t rows = 0;
  for (std::size_t i = 1; i < runs->size(); i += 2) rows += (*runs)[i];
  return rows;
}

double forward_flop(const Op& op, const OpRule& rule, const StorageMap& storage) {
  const double out =
      op.outputs.empty() || op.outputs.front() < 0 ? 0.0 : static_cast<double>(storage.at(op.outputs.front()).elements);
  switch (rule.flop) {
    case FlopRule::None: return 0;
    case FlopRule::Contraction: {
      if (base_name(op.target) == "aten::einsum") return 2 * einsum_multiplications(op, storage);
      const ValueId left = value_argument(op, rule.saves[0].value);
      if (left < 0) return 0;
      double inner = static_cast<double>(storage.at(left).dims.back());
      if (base_name(op.target) == "aten::bilinear")
        inner *= static_cast<double>(storage.at(value_argument(op, "input2")).dims.back());
      return 2 * out * inner;
    }
    case FlopRule::Convolution: {
      const ValueId input = value_argument(op, "input"), weight = value_argument(op, "weight");
      if (input < 0 || weight < 0) return 0;
      const Placed& kernel = storage.at(weight);
      const double per_element =
          static_cast<double>(kernel.elements) / static_cast<double>(std::max<std::int64_t>(kernel.dims.front(), 1));
      // Transposed: every input element meets every weight of its channel.
      return 2 * per_element *
             (bool_argument(op, "transposed", false) ? static_cast<double>(storage.at(input).elements) : out);
    }
    case FlopRule::Attention: {
      const Placed& query = storage.at(value_argument(op, "query"));
      const Placed& key = storage.at(value_argument(op, "key"));
      const Placed& value = storage.at(value_argument(op, "value"));
      const double rows = static_cast<double>(query.elements / std::max<std::int64_t>(query.dims.back(), 1));
      const double columns = static_cast<double>(ring_length(op).value_or(key.dims[key.dims.size() - 2]));
      return 2 * rows * columns * static_cast<double>(query.dims.back() + value.dims.back());
    }
  }
  return 0;
}

/// `value` is a trainable parameter, a view of one, rows of one (as experts' tables are read), or one in another
/// placement: its gradient is of use to the parameter alone.
bool is_parameter(const ModelGraph& graph, ValueId value) {
  for (;;) {
    const Value& current = graph.values[value];
    if (!current.requires_grad) return false;
    if (current.producer < 0) return true;
    const Op& op = graph.ops[current.producer];
    const OpRule* rule = find_rule(op.target);
    const bool placed = op.target.starts_with("coxswain::");
    const bool gathered = base_name(op.target) == "aten::index";
    if (rule == nullptr || (rule->op_class != OpClass::View && !placed && !gathered)) return false;
    ValueId source = -1;
    for_each_input(op, [&](ValueId input) { source = source < 0 ? input : source; });
    value = source;
  }
}

/// Flash attention recomputes the scores: five products against forward's two. The explicit form (with dropout): four.
constexpr double kFlashBackwardRatio = 2.5;
constexpr double kExplicitBackwardRatio = 2.0;

void add_backward_flop(const ModelGraph& graph, const Op& op, const OpRule& rule, OpCost& cost) {
  if (rule.flop == FlopRule::None || !is_differentiated(graph, op)) return;
  if (rule.flop == FlopRule::Attention) {
    cost.backward_input_flop = cost.forward_flop * (drops(op) ? kExplicitBackwardRatio : kFlashBackwardRatio);
    return;
  }
  const auto add = [&](ValueId operand) {
    if (operand < 0 || !graph.values[operand].requires_grad) return;
    (is_parameter(graph, operand) ? cost.backward_weight_flop : cost.backward_input_flop) += cost.forward_flop;
  };
  if (base_name(op.target) == "aten::einsum") {
    for_each_input(op, add);
    return;
  }
  for (const Saved& operand : rule.saves)
    if (!operand.value.empty()) add(value_argument(op, operand.value));
}

std::vector<ValueId> distinct_inputs(const Op& op) {
  std::vector<ValueId> inputs;
  for_each_input(op, [&](ValueId value) {
    if (std::find(inputs.begin(), inputs.end(), value) == inputs.end()) inputs.push_back(value);
  });
  return inputs;
}

Bytes output_bytes(const ModelGraph& graph, const Op& op, const StorageMap& storage) {
  Bytes bytes{0};
  for (const ValueId output : op.outputs)
    if (output >= 0) bytes += size_of(graph.values[output].dtype) * storage.at(output).elements;
  return bytes;
}

bool reads_selected_rows(std::string_view name) {
  return name == "aten::embedding" || name == "aten::index" || name == "aten::index_select" || name == "aten::gather" ||
         name == "coxswain::slice";
}

Bytes forward_bytes(const ModelGraph& graph, const Op& op, const OpRule* rule, const StorageMap& storage,
                    Bytes hidden) {
  if (storage.is_view(op)) return Bytes(0);
  const Bytes written = output_bytes(graph, op, storage);
  Bytes read{0};
  const std::vector<ValueId> inputs = distinct_inputs(op);
  for (std::size_t i = 0; i < inputs.size(); ++i)
    read += i == 0 && reads_selected_rows(base_name(op.target)) ? written : storage.distinct_bytes(inputs[i]);
  // What a composite keeps inside is written, and read again by its next part.
  const bool composite =
      rule != nullptr && (rule->hidden == Hidden::LogSoftmax || (rule->hidden == Hidden::Attention && drops(op)));
  return read + written + hidden * (composite ? 2 : 1);
}

/// Sums hand the gradient on as it is.
bool passes_gradient(const ModelGraph& graph, const Op& op) {
  const std::string_view name = base_name(op.target);
  if (name != "aten::add" && name != "aten::sub") return false;
  return op.outputs.front() >= 0 && graph.values[op.outputs.front()].requires_grad;
}

Bytes backward_bytes(const ModelGraph& graph, const Op& op, const OpRule* rule, const StorageMap& storage,
                     const SavedStorages& saved) {
  if (!is_differentiated(graph, op)) return Bytes(0);
  const Bytes gradient = output_bytes(graph, op, storage);
  Bytes made{0};
  std::int64_t num_made = 0;
  for (const ValueId input : distinct_inputs(op)) {
    if (!graph.values[input].requires_grad) continue;
    if (passes_gradient(graph, op) && storage.at(input).dims == storage.at(op.outputs.front()).dims) continue;
    made += storage.at(input).of_table > 0 ? storage.distinct_bytes(input)
                                           : size_of(graph.values[input].dtype) * storage.at(input).elements;
    ++num_made;
  }
  if (num_made == 0) return Bytes(0);
  if (storage.is_view(op)) {
    // Undoing a view is a view, except that pieces are written into a whole and repeats are summed.
    const Layout layout = rule == nullptr ? Layout::Dense : rule->layout;
    const bool moves = layout == Layout::Split || layout == Layout::Unbind || layout == Layout::Slice ||
                       layout == Layout::Select || layout == Layout::Expand;
    return moves ? gradient + made : Bytes(0);
  }
  Bytes kept = saved.hidden;
  for (const ValueId base : saved.bases) kept += storage.storage_bytes(base);
  const bool contraction = rule != nullptr && rule->flop != FlopRule::None;
  return gradient * (contraction ? num_made : 1) + kept + made;
}

}  // namespace

const OpRule* find_rule(std::string_view target) {
  static const std::unordered_map<std::string_view, const OpRule*> index = index_rules();
  auto found = index.find(target);
  if (found == index.end()) found = index.find(base_name(target));
  return found == index.end() ? nullptr : found->second;
}

std::optional<std::span<const Saved>> saved_arguments(std::string_view target) {
  const OpRule* rule = find_rule(target);
  if (rule == nullptr) return std::nullopt;
  std::size_t count = 0;
  while (count < rule->saves.size() && !rule->saves[count].value.empty()) ++count;
  return std::span<const Saved>(rule->saves.data(), count);
}

bool has_cost_rule(const Op& op) { return find_rule(op.target) != nullptr; }

std::string_view to_text(OpClass op_class) {
  switch (op_class) {
    case OpClass::Matmul: return "matmul";
    case OpClass::Attention: return "attention";
    case OpClass::Normalisation: return "normalisation";
    case OpClass::Softmax: return "softmax";
    case OpClass::Pointwise: return "pointwise";
    case OpClass::Reduction: return "reduction";
    case OpClass::Index: return "index";
    case OpClass::Convolution: return "convolution";
    case OpClass::View: return "view";
    case OpClass::Factory: return "factory";
    case OpClass::Transition: return "transition";
    case OpClass::Other: return "other";
  }
  return "other";
}

OpCost cost_of(const ModelGraph& graph, const Op& op, const StorageMap& storage) {
  const OpRule* rule = find_rule(op.target);
  const SavedStorages saved = saved_storages(graph, op, storage);
  OpCost cost;
  if (rule != nullptr) {
    cost.op_class = rule->op_class;
    if (cost.op_class == OpClass::Pointwise && storage.is_view(op)) cost.op_class = OpClass::View;
    if (cost.op_class == OpClass::View && !storage.is_view(op)) cost.op_class = OpClass::Pointwise;
    if (cost.op_class == OpClass::Index && storage.is_view(op)) cost.op_class = OpClass::View;
    cost.forward_flop = Flop(forward_flop(op, *rule, storage));
    add_backward_flop(graph, op, *rule, cost);
  }
  cost.forward_bytes = forward_bytes(graph, op, rule, storage, saved.hidden);
  cost.backward_bytes = backward_bytes(graph, op, rule, storage, saved);
  if (!storage.is_view(op)) {
    for (const ValueId input : distinct_inputs(op))
      if (storage.at(input).of_table > 0) cost.table_bytes += storage.distinct_bytes(input);
  }
  return cost;
}

OpCost estimate_op_cost(const ModelGraph& graph, OpId op, std::int64_t samples) {
  const StorageMap storage(graph, graph.blocks[block_of(graph, op)].first_op, op + 1, samples);
  return cost_of(graph, graph.ops[op], storage);
}

std::vector<OpCost> estimate_op_costs(const ModelGraph& graph, int block, std::int64_t samples, ExpertForm experts) {
  const Block& range = graph.blocks[block];
  const StorageMap storage(graph, range.first_op, range.end_op, samples, experts);
  std::vector<OpCost> costs;
  for (OpId op = range.first_op; op < range.end_op; ++op) costs.push_back(cost_of(graph, graph.ops[op], storage));
  return costs;
}

namespace {

/// Sharing does not depend on the number of samples; any above one keeps batch dims apart from dims of one.
constexpr std::int64_t kAnySamples = 2;

}  // namespace

ValueId storage_of(const ModelGraph& graph, ValueId value) {
  for (;;) {
    const OpId producer = graph.values[value].producer;
    if (producer < 0) return value;
    const StorageMap storage(graph, graph.blocks[block_of(graph, producer)].first_op, producer + 1, kAnySamples);
    const ValueId base = storage.base(value);
    if (base == value || graph.values[base].producer >= graph.blocks[block_of(graph, producer)].first_op) return base;
    value = base;  // a view of something from an earlier block
  }
}

std::vector<ValueId> saved_values(const ModelGraph& graph, OpId op) {
  const StorageMap storage(graph, graph.blocks[block_of(graph, op)].first_op, op + 1, kAnySamples);
  std::vector<ValueId> values;
  for (const ValueId base : saved_storages(graph, graph.ops[op], storage).bases) {
    const ValueId owner = storage_of(graph, base);
    const bool parameter = graph.values[owner].producer < 0 && graph.values[owner].depends_on_parameter;
    if (!parameter) values.push_back(owner);
  }
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  return values;
}

Bytes saved_hidden_bytes(const ModelGraph& graph, OpId op, std::int64_t samples) {
  const StorageMap storage(graph, graph.blocks[block_of(graph, op)].first_op, op + 1, samples);
  return saved_storages(graph, graph.ops[op], storage).hidden;
}

}  // namespace coxswain::model
