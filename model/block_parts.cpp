// Which operators of a block are attention and which are experts.
#include <algorithm>
#include <numeric>
#include <set>
#include <string_view>

#include "model/op_values.h"
#include "model/shard.h"

namespace coxswain::model {
namespace {

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_fused_attention(const Op& op) { return op.target.rfind("aten::scaled_dot_product_attention", 0) == 0; }
bool is_softmax(const Op& op) { return is_one_of(base_name(op.target), {"aten::softmax", "aten::_softmax"}); }
bool is_product(const Op& op) {
  return is_one_of(base_name(op.target), {"aten::matmul", "aten::bmm", "aten::baddbmm"});
}

/// What hands its input on in another shape.
bool is_reshaping(const Op& op) {
  return is_one_of(base_name(op.target),
                   {"aten::view", "aten::reshape", "aten::_unsafe_view", "aten::expand", "aten::unsqueeze",
                    "aten::squeeze", "aten::transpose", "aten::permute", "aten::contiguous", "aten::clone",
                    "aten::repeat_interleave", "aten::to", "aten::_to_copy", "aten::mul"});
}

class BlockReader {
 public:
  BlockReader(const ModelGraph& graph, int block)
      : graph_(graph), range_(graph.blocks[static_cast<std::size_t>(block)]) {}

  [[nodiscard]] OpId first() const { return range_.first_op; }
  [[nodiscard]] OpId end() const { return range_.end_op; }
  [[nodiscard]] const Op& op(OpId id) const { return graph_.ops[static_cast<std::size_t>(id)]; }
  [[nodiscard]] const Value& value(ValueId id) const { return graph_.values[static_cast<std::size_t>(id)]; }
  /// The operator of this block that makes `id`, or -1.
  [[nodiscard]] OpId producer(ValueId id) const {
    const OpId made = id < 0 ? -1 : value(id).producer;
    return made >= range_.first_op && made < range_.end_op ? made : -1;
  }
  [[nodiscard]] static std::vector<ValueId> inputs(const Op& op) {
    std::vector<ValueId> values;
    for_each_input(op, [&](ValueId value) { values.push_back(value); });
    return values;
  }
  [[nodiscard]] std::int64_t elements(ValueId id) const { return num_elements(graph_, id, unit()); }

  /// The value that `id` is another shape of, or (`repeats`) a repeat of.
  [[nodiscard]] ValueId origin(ValueId id, bool repeats) const {
    for (OpId made = producer(id); made >= 0 && is_reshaping(op(made)); made = producer(id)) {
      const ValueId from = inputs(op(made)).front();
      if (elements(from) > elements(id) || (!repeats && elements(from) < elements(id))) break;
      id = from;
    }
    return id;
  }

 private:
  [[nodiscard]] std::int64_t unit() const { return graph_.batch_symbol.empty() ? graph_.static_batch : 1; }

  const ModelGraph& graph_;
  const Block& range_;
};

std::int64_t constant_dim(const Value& value, std::size_t from_end) {
  if (value.dims.size() < from_end || !value.dims[value.dims.size() - from_end].is_constant()) return 0;
  return value.dims[value.dims.size() - from_end].constant();
}

/// Product of queries and keys that a softmax over four dims takes its scores from, with what lies between; -1: none.
OpId find_scores(const BlockReader& block, OpId softmax, std::vector<OpId>& between) {
  ValueId at = block.inputs(block.op(softmax)).front();
  if (block.value(at).dims.size() != 4) return -1;
  for (OpId made = block.producer(at); made >= 0; made = block.producer(at)) {
    between.push_back(made);
    if (is_product(block.op(made))) return made;
    const std::vector<ValueId> from = block.inputs(block.op(made));
    const auto next = std::find_if(from.begin(), from.end(), [&](ValueId id) { return block.value(id).requires_grad; });
    if (next == from.end()) return -1;
    at = *next;
  }
  return -1;
}

/// Product of a softmax's result and the values, with what lies between; -1: none.
OpId find_mix(const BlockReader& block, OpId softmax, std::vector<OpId>& between) {
  ValueId at = block.op(softmax).outputs.front();
  for (OpId id = softmax + 1; id < block.end(); ++id) {
    const std::vector<ValueId> from = block.inputs(block.op(id));
    if (std::find(from.begin(), from.end(), at) == from.end()) continue;
    between.push_back(id);
    if (is_product(block.op(id))) return id;
    if (block.op(id).outputs.empty()) return -1;
    at = block.op(id).outputs.front();
  }
  return -1;
}

}  // namespace

bool BlockAttention::contains(int op) const { return std::binary_search(ops.begin(), ops.end(), op); }

BlockAttention find_attention(const ModelGraph& graph, int block) {
  const BlockReader reader(graph, block);
  BlockAttention found;
  std::set<OpId> ops;
  const auto add = [&](ValueId key, ValueId value, std::size_t length_from_end) {
    const ValueId passed_key = reader.origin(key, true);
    found.passed.push_back(passed_key);
    found.passed.push_back(reader.origin(value, true));
    found.length = std::gcd(found.length, constant_dim(reader.value(key), length_from_end));
    // Keys and queries have equal depth, so elements count the heads that are not repeated.
    const std::int64_t heads = constant_dim(reader.value(key), 3), whole = reader.elements(key);
    if (whole > 0) found.num_key_heads = std::gcd(found.num_key_heads, heads * reader.elements(passed_key) / whole);
  };
  for (OpId id = reader.first(); id < reader.end(); ++id) {
    const Op& op = reader.op(id);
    if (is_fused_attention(op)) {
      ops.insert(id);
      add(value_argument(op, "key"), value_argument(op, "value"), 2);
    } else if (is_softmax(op)) {
      std::vector<OpId> between{id};
      const OpId scores = find_scores(reader, id, between), mix = scores < 0 ? -1 : find_mix(reader, id, between);
      if (mix < 0) continue;
      ops.insert(between.begin(), between.end());
      // The keys come transposed.
      add(reader.inputs(reader.op(scores))[1], reader.inputs(reader.op(mix))[1], 1);
    }
  }
  for (const OpId id : ops) found.ops.push_back(id - reader.first());
  return found;
}

BlockExperts find_experts(const ModelGraph& graph, int block) {
  const BlockReader reader(graph, block);
  BlockExperts found;
  std::set<ValueId> gathered;
  for (OpId id = reader.first(); id < reader.end(); ++id) {
    const Op& op = reader.op(id);
    const std::string_view name = base_name(op.target);
    if (name == "aten::topk") found.chosen = integer_argument(op, "k").value_or(0);
    if (name == "aten::index") {
      const ValueId table = value_argument(op, "self");
      const auto parameter = std::find_if(graph.parameters.begin(), graph.parameters.end(),
                                          [&](const Parameter& candidate) { return candidate.value == table; });
      if (parameter == graph.parameters.end() || parameter->dims.size() != 3) continue;
      if (found.tables.empty()) found.first_op = id - reader.first();
      found.tables.push_back(table);
      found.count = parameter->dims.front();
      gathered.insert(op.outputs.front());
    }
    if (!is_product(op)) continue;
    const std::vector<ValueId> operands = reader.inputs(op);
    if (operands.size() < 2) continue;
    const bool by_columns = gathered.contains(operands[0]);
    if (!by_columns && !gathered.contains(operands[1])) continue;
    if (found.dispatched < 0) found.dispatched = reader.origin(operands[by_columns ? 1 : 0], false);
    found.end_op = id + 1 - reader.first();
  }
  if (found.end_op == 0) return {};
  return found;
}

}  // namespace coxswain::model
