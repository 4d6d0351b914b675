#include "plan/layout/local_block.h"

#include <algorithm>
#include <string>

#include "plan/layout/choices.h"
#include "plan/layout/context_runs.h"

namespace coxswain::plan {
namespace {

using model::Argument;
using model::Dim;
using model::ModelGraph;
using model::Op;
using model::OpId;
using model::ValueId;
using model::ValueRef;

/// A block with a stand-in for what is before it and one for what is behind it.
class BlockExtract {
 public:
  BlockExtract(const ModelGraph& graph, int block)
      : from_(graph), range_(graph.blocks[static_cast<std::size_t>(block)]), number_(graph.values.size(), -1) {
    const model::StageSlice slice = model::slice_stage(graph, block, block + 1);
    to_.batch_symbol = graph.batch_symbol;
    to_.static_batch = graph.static_batch;
    for (const ValueId v : slice.received) outside(v);
    for (OpId id = range_.first_op; id < range_.end_op; ++id) {
      for_each_read(graph.ops[static_cast<std::size_t>(id)], [&](ValueId v) { outside(v); });
      for (const ValueId v : graph.ops[static_cast<std::size_t>(id)].outputs)
        if (v >= 0) number(v);
    }
    add_leaves();
    add_ops(slice.sent);
    for (const model::LossTerm& term : graph.loss) {
      if (!is_inside(graph.values[static_cast<std::size_t>(term.numerator)].producer)) continue;
      to_.loss.push_back({term.coefficient, number(term.numerator), std::nullopt});
    }
  }

  ModelGraph graph() { return std::move(to_); }
  std::vector<int> parameters() { return std::move(parameters_); }

 private:
  template <class Visit>
  static void for_each_read(const Op& op, Visit&& visit) {
    for (const Argument& argument : op.arguments) {
      if (const auto* one = std::get_if<ValueRef>(&argument.value)) visit(one->id);
      if (const auto* list = std::get_if<std::vector<std::optional<ValueRef>>>(&argument.value))
        for (const auto& element : *list)
          if (element) visit(element->id);
    }
  }

  [[nodiscard]] bool is_inside(OpId op) const { return op >= range_.first_op && op < range_.end_op; }

  ValueId number(ValueId v) {
    ValueId& own = number_[static_cast<std::size_t>(v)];
    if (own >= 0) return own;
    own = static_cast<ValueId>(to_.values.size());
    to_.values.push_back(from_.values[static_cast<std::size_t>(v)]);
    to_.values.back().producer = -1;
    return own;
  }

  /// What operators elsewhere make; parameters, buffers and inputs have no producer.
  void outside(ValueId v) {
    const OpId producer = from_.values[static_cast<std::size_t>(v)].producer;
    const bool seen = number_[static_cast<std::size_t>(v)] >= 0;
    const ValueId own = number(v);
    if (!seen && producer >= 0 && !is_inside(producer)) made_outside_.push_back(own);
  }

  void add_leaves() {
    const auto own = [&](ValueId v) { return number_[static_cast<std::size_t>(v)]; };
    for (std::size_t p = 0; p < from_.parameters.size(); ++p) {
      if (own(from_.parameters[p].value) < 0) continue;
      to_.parameters.push_back(from_.parameters[p]);
      to_.parameters.back().value = own(from_.parameters[p].value);
      parameters_.push_back(static_cast<int>(p));
    }
    for (const model::Buffer& buffer : from_.buffers) {
      if (own(buffer.value) < 0) continue;
      to_.buffers.push_back(buffer);
      to_.buffers.back().value = own(buffer.value);
    }
    for (const model::Input& input : from_.inputs) {
      if (own(input.value) < 0) continue;
      to_.inputs.push_back(input);
      to_.inputs.back().value = own(input.value);
    }
  }

  void add(Op op) {
    const auto id = static_cast<OpId>(to_.ops.size());
    for (const ValueId v : op.outputs)
      if (v >= 0) to_.values[static_cast<std::size_t>(v)].producer = id;
    to_.ops.push_back(std::move(op));
  }

  void add_ops(const std::vector<ValueId>& sent) {
    Op before;
    before.target = "coxswain::outside";
    before.outputs = made_outside_;
    if (!made_outside_.empty()) add(std::move(before));
    const auto first = static_cast<OpId>(to_.ops.size());
    to_.blocks.push_back({"outside", 0, first, "outside"});
    for (OpId id = range_.first_op; id < range_.end_op; ++id) {
      Op op = from_.ops[static_cast<std::size_t>(id)];
      for (Argument& argument : op.arguments) {
        if (auto* one = std::get_if<ValueRef>(&argument.value)) one->id = number(one->id);
        if (auto* list = std::get_if<std::vector<std::optional<ValueRef>>>(&argument.value))
          for (auto& element : *list)
            if (element) element->id = number(element->id);
      }
      for (ValueId& v : op.outputs)
        if (v >= 0) v = number(v);
      add(std::move(op));
    }
    const auto end = static_cast<OpId>(to_.ops.size());
    to_.blocks.push_back({range_.name, first, end, range_.signature});
    Op behind;
    behind.target = "coxswain::reader";
    std::vector<std::optional<ValueRef>> read;
    for (const ValueId v : sent) read.emplace_back(ValueRef{number(v)});
    behind.arguments = {{"values", std::move(read)}};
    if (!sent.empty()) add(std::move(behind));
    to_.blocks.push_back({"reader", end, static_cast<OpId>(to_.ops.size()), "reader"});
  }

  const ModelGraph& from_;
  const model::Block& range_;
  std::vector<ValueId> number_;  // by value of the whole graph
  std::vector<ValueId> made_outside_;
  std::vector<int> parameters_;
  ModelGraph to_;
};

/// Sizes that hold the stand-in for the samples are multiples of the batch again.
void restore_batch(ModelGraph& graph, const std::string& symbol) {
  const Dim batch = Dim::symbol(symbol);
  const auto restore = [&](Dim& dim) {
    const std::int64_t size = dim.constant();
    if (size != 0 && size % kSamples == 0) dim = batch * Dim(size / kSamples);
  };
  for (model::Value& value : graph.values)
    for (Dim& dim : value.dims) restore(dim);
  for (Op& op : graph.ops) {
    for (Argument& argument : op.arguments) {
      if (auto* dim = std::get_if<Dim>(&argument.value)) restore(*dim);
      if (auto* dims = std::get_if<std::vector<Dim>>(&argument.value))
        for (Dim& dim : *dims) restore(dim);
    }
  }
  graph.batch_symbol = symbol;
  graph.static_batch = 0;
}

}  // namespace

Result<LocalBlock> localise_block(const ModelGraph& graph, int block, int tensor, int context) {
  BlockExtract extract(graph, block);
  const ModelGraph alone = extract.graph();
  Stage stage;
  stage.first_block = kBlock;
  stage.end_block = kBlock + 1;
  Replica replica;
  replica.tensor = tensor;
  replica.context = context;
  replica.devices.resize(static_cast<std::size_t>(tensor) * static_cast<std::size_t>(context));
  replica.samples = graph.batch_symbol.empty() ? graph.static_batch : kSamples;
  COX_TRY(auto local, localise_stage(alone, stage, replica, 0, context_runs(graph)));
  LocalBlock result;
  result.graph = std::move(local.graph);
  result.axes = std::move(local.axes);
  result.parameters = extract.parameters();
  result.gradient_axes = std::move(local.gradient_axes);
  const OpId first = alone.blocks[kBlock].first_op;
  const model::Block& range = result.graph.blocks[kBlock];
  for (OpId id = 0; id < static_cast<OpId>(result.graph.ops.size()); ++id) {
    const OpId whole = local.origin[static_cast<std::size_t>(id)];
    result.origin.push_back(whole >= 0 && id >= range.first_op && id < range.end_op ? whole - first : -1);
  }
  if (!graph.batch_symbol.empty()) restore_batch(result.graph, graph.batch_symbol);
  return result;
}

}  // namespace coxswain::plan
