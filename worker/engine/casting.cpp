#include "worker/engine/casting.h"

#include <algorithm>

namespace coxswain::worker {
namespace {

using model::OpId;
using model::ValueId;

/// -1: outside of the blocks, where no parameter has an influence.
int block_of(const model::ModelGraph& graph, int first_block, int end_block, OpId id) {
  for (int b = first_block; b < end_block; ++b)
    if (id >= graph.blocks[b].first_op && id < graph.blocks[b].end_op) return b;
  return -1;
}

bool is_influenced(const model::ModelGraph& graph, const model::Op& op) {
  return std::any_of(op.outputs.begin(), op.outputs.end(),
                     [&](ValueId v) { return v >= 0 && graph.values[v].depends_on_parameter; });
}

bool asks_for_float32(const model::Op& op) {
  return std::any_of(op.arguments.begin(), op.arguments.end(), [](const model::Argument& argument) {
    const auto* dtype = std::get_if<DType>(&argument.value);
    return dtype != nullptr && *dtype == DType::Float32;
  });
}

}  // namespace

int trainable_parameter(const model::ModelGraph& graph, ValueId value) {
  if (graph.values[value].producer >= 0) return -1;
  for (std::size_t p = 0; p < graph.parameters.size(); ++p)
    if (graph.parameters[p].value == value) return graph.parameters[p].trainable ? static_cast<int>(p) : -1;
  return -1;
}

std::vector<Casting> castings_of(const model::ModelGraph& graph, const model::StageSlice& slice, int first_block,
                                 int end_block, plan::Precision precision) {
  std::vector<Casting> castings(slice.ops.size());
  if (!plan::is_mixed(precision)) return castings;
  // Values of this block known to be float32, as far as that decides which copy of a parameter is read beside them.
  std::vector<char> wide(graph.values.size(), 0);
  for (std::size_t i = 0; i < slice.ops.size(); ++i) {
    const model::Op& op = graph.ops[slice.ops[i]];
    if (!is_influenced(graph, op)) continue;
    const int block = block_of(graph, first_block, end_block, slice.ops[i]);
    // From another block comes what was rounded there.
    bool any_wide = false;
    for_each_tensor(op, [&](ValueId v) {
      any_wide =
          any_wide || (wide[v] != 0 && block_of(graph, first_block, end_block, graph.values[v].producer) == block);
    });
    Casting& casting = castings[i];
    casting.rule = compute_rule_of(op.target);
    casting.dtype = plan::computed_dtype(precision);
    const bool follows = casting.rule == ComputeRule::Follow || casting.rule == ComputeRule::Float32Inside;
    casting.wide = casting.rule == ComputeRule::Float32 || (follows && (any_wide || asks_for_float32(op)));
    casting.reads_copies = casting.rule == ComputeRule::Narrow || (casting.rule == ComputeRule::Follow && !any_wide);
    for (const ValueId v : op.outputs)
      if (v >= 0) wide[v] = casting.wide ? 1 : 0;
  }
  return castings;
}

ParameterReads find_reads(const model::ModelGraph& graph, const std::vector<plan::BlockRun>& runs,
                          plan::Precision precision) {
  const std::vector<char> none(graph.parameters.size(), 0);
  ParameterReads reads{none, none};
  for (const plan::BlockRun& run : runs) {
    const model::StageSlice slice = model::slice_stage(graph, run.first_block, run.end_block);
    const std::vector<Casting> castings = castings_of(graph, slice, run.first_block, run.end_block, precision);
    for (std::size_t i = 0; i < castings.size(); ++i) {
      for_each_tensor(graph.ops[slice.ops[i]], [&](ValueId v) {
        if (const int p = trainable_parameter(graph, v); p >= 0)
          (castings[i].reads_copies ? reads.copy : reads.master)[p] = 1;
      });
    }
  }
  return reads;
}

}  // namespace coxswain::worker
