#include "model/shard.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace coxswain::model {
namespace {

const Value* value_at(const ModelGraph& graph, const Op& op, std::size_t position) {
  if (position >= op.arguments.size()) return nullptr;
  const auto* reference = std::get_if<ValueRef>(&op.arguments[position].value);
  if (reference == nullptr || reference->id < 0) return nullptr;
  return &graph.values[static_cast<std::size_t>(reference->id)];
}

bool equal_dims(const Value& a, const Value& b) {
  return std::equal(a.dims.begin(), a.dims.end(), b.dims.begin(), b.dims.end());
}

/// The activation that flows from block to block: what this block receives that needs a gradient.
const Value* find_stream(const ModelGraph& graph, const Block& block) {
  std::set<ValueId> own;
  for (const Parameter& parameter : graph.parameters) own.insert(parameter.value);
  for (OpId op = block.first_op; op < block.end_op; ++op) {
    const Op& here = graph.ops[static_cast<std::size_t>(op)];
    for (std::size_t i = 0; i < here.arguments.size(); ++i) {
      const auto* reference = std::get_if<ValueRef>(&here.arguments[i].value);
      if (reference == nullptr || reference->id < 0 || own.contains(reference->id)) continue;
      const Value& value = graph.values[static_cast<std::size_t>(reference->id)];
      if (value.requires_grad) return &value;
    }
    own.insert(here.outputs.begin(), here.outputs.end());
  }
  return nullptr;
}

/// Heads stand before rows and columns of the scores, or before rows and depth of the queries.
std::int64_t heads_of(const Value* value) {
  if (value == nullptr || value->dims.size() != 4 || !value->dims[1].is_constant()) return 0;
  return value->dims[1].constant();
}

bool is_attention(const Op& op) { return op.target.rfind("aten::scaled_dot_product_attention", 0) == 0; }
bool is_softmax(const Op& op) {
  return op.target.rfind("aten::softmax", 0) == 0 || op.target.rfind("aten::_softmax", 0) == 0;
}

}  // namespace

// C25
BlockShard find_block_shard(const ModelGraph& graph, int block) {
  const Block& shape = graph.blocks[static_cast<std::size_t>(block)];
  const Value* stream = find_stream(graph, shape);
  std::set<ValueId> weights;
  for (const Parameter& parameter : graph.parameters) {
    if (is_sharded(parameter)) weights.insert(parameter.value);
  }
  BlockShard shard;
  bool contracts = false;
  for (OpId op = shape.first_op; op < shape.end_op; ++op) {
    const Op& here = graph.ops[static_cast<std::size_t>(op)];
    if (is_attention(here) || is_softmax(here))
      shard.num_heads = std::gcd(shard.num_heads, heads_of(value_at(graph, here, 0)));
    contracts = contracts || std::any_of(here.arguments.begin(), here.arguments.end(), [&](const Argument& argument) {
                  const auto* reference = std::get_if<ValueRef>(&argument.value);
                  return reference != nullptr && weights.contains(reference->id);
                });
    // A run of contractions ends where its result joins the stream.
    if (here.target != "aten::add.Tensor" || stream == nullptr) continue;
    const Value* a = value_at(graph, here, 0);
    const Value* b = value_at(graph, here, 1);
    if (a == nullptr || b == nullptr || !a->requires_grad || !b->requires_grad) continue;
    if (equal_dims(*a, *stream) && equal_dims(*b, *stream)) ++shard.num_runs;
  }
  if (shard.num_runs == 0 && contracts) shard.num_runs = 1;
  return shard;
}

}  // namespace coxswain::model
