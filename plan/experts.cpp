#include "plan/experts.h"

#include <algorithm>
#include <map>
#include <set>

#include "plan/derive.h"
#include "plan/operands.h"

namespace coxswain::plan {
namespace {

using model::ModelGraph;
using model::Op;
using model::ValueId;
using model::ValueRef;

bool is_product(const Op& op) {
  const std::string_view name = without_overload(op.target);
  return name == "aten::bmm" || name == "aten::matmul";
}

/// What reads each candidate, and which lists of indices pick matrices for a product.
struct Readers {
  std::map<ValueId, int> parameter_of;                // of trainable parameters
  std::map<int, std::set<ValueId>> indices_of;        // by parameter
  std::map<ValueId, std::set<std::int64_t>> extents;  // by list of indices: first dims of what it picks from
  std::set<int> read_otherwise;                       // parameters
  std::set<ValueId> of_matrices;                      // lists of indices

  explicit Readers(const ModelGraph& graph) {
    for (std::size_t p = 0; p < graph.parameters.size(); ++p)
      if (graph.parameters[p].trainable) parameter_of.emplace(graph.parameters[p].value, static_cast<int>(p));
    std::map<ValueId, ValueId> matrices;  // to the indices that picked them
    for (const Op& op : graph.ops) {
      const TableRead read = table_read(graph, op);
      const auto table = parameter_of.find(read.table);
      if (table != parameter_of.end()) {
        const std::vector<std::int64_t>& dims = graph.parameters[static_cast<std::size_t>(table->second)].dims;
        indices_of[table->second].insert(read.indices);
        extents[read.indices].insert(dims.front());
        if (dims.size() == 3) matrices.emplace(op.outputs.front(), read.indices);
      }
      visit_operands(op, [&](ValueId value) {
        if (const auto found = matrices.find(value); found != matrices.end() && is_product(op))
          of_matrices.insert(found->second);
        if (const auto found = parameter_of.find(value); found != parameter_of.end() && found != table)
          read_otherwise.insert(found->second);
      });
    }
  }
};

}  // namespace

TableRead table_read(const ModelGraph& graph, const Op& op) {
  if (without_overload(op.target) != "aten::index" || op.outputs.size() != 1 || op.outputs.front() < 0) return {};
  TableRead read;
  for (const model::Argument& argument : op.arguments) {
    const auto* table = std::get_if<ValueRef>(&argument.value);
    if (argument.name == "self" && table != nullptr) read.table = table->id;
    const auto* list = std::get_if<std::vector<std::optional<ValueRef>>>(&argument.value);
    if (argument.name == "indices" && list != nullptr && list->size() == 1 && list->front())
      read.indices = list->front()->id;
  }
  if (read.table < 0 || read.indices < 0) return {};
  const model::Value& indices = graph.values[static_cast<std::size_t>(read.indices)];
  if (indices.dims.size() != 1 || indices.dtype != DType::Int64) return {};
  return read;
}

std::vector<std::int64_t> expert_counts(const ModelGraph& graph) {
  const Readers readers(graph);
  std::vector<std::int64_t> counts(graph.parameters.size(), 0);
  for (const auto& [parameter, lists] : readers.indices_of) {
    if (readers.read_otherwise.contains(parameter)) continue;
    const bool chosen = std::all_of(lists.begin(), lists.end(), [&](ValueId indices) {
      return readers.of_matrices.contains(indices) && readers.extents.at(indices).size() == 1;
    });
    if (chosen)
      counts[static_cast<std::size_t>(parameter)] = graph.parameters[static_cast<std::size_t>(parameter)].dims.front();
  }
  return counts;
}

std::vector<ExpertChoice> expert_choices(const ModelGraph& graph) {
  const std::vector<std::int64_t> counts = expert_counts(graph);
  std::map<ValueId, std::int64_t> tables;
  for (std::size_t p = 0; p < counts.size(); ++p)
    if (counts[p] > 0) tables.emplace(graph.parameters[p].value, counts[p]);
  std::vector<ExpertChoice> choices;
  if (tables.empty()) return choices;
  std::set<ValueId> seen;
  for (int b = 0; b < graph.num_blocks(); ++b) {
    const model::Block& block = graph.blocks[static_cast<std::size_t>(b)];
    for (model::OpId id = block.first_op; id < block.end_op; ++id) {
      const TableRead read = table_read(graph, graph.ops[static_cast<std::size_t>(id)]);
      const auto table = tables.find(read.table);
      if (table != tables.end() && seen.insert(read.indices).second)
        choices.push_back({read.indices, b, table->second});
    }
  }
  return choices;
}

ExpertPlace expert_place(const Stage& stage, int replica) {
  const int size = std::max(1, stage.replicas[static_cast<std::size_t>(replica)].expert);
  return {size, replica % size};
}

std::int64_t expert_samples(const Stage& stage, int replica) {
  const ExpertPlace place = expert_place(stage, replica);
  std::int64_t sum = 0;
  for (int i = 0; i < place.size; ++i)
    sum += stage.replicas[static_cast<std::size_t>(replica - place.index + i)].samples;
  return sum;
}

bool has_expert_axis(const Stage& stage) {
  return std::any_of(stage.replicas.begin(), stage.replicas.end(), [](const Replica& r) { return r.expert > 1; });
}

int num_expert_holders(const Stage& stage) {
  return num_holders(stage) / (stage.replicas.empty() ? 1 : std::max(1, stage.replicas.front().expert));
}

std::vector<std::int64_t> divided_counts(const Plan& plan, const ModelGraph& graph) {
  if (std::none_of(plan.stages.begin(), plan.stages.end(), has_expert_axis)) return {};
  return expert_counts(graph);
}

std::vector<int> reduced_expert_blocks(const Stage& stage, const std::vector<std::int64_t>& counts,
                                       const std::vector<std::vector<int>>& uses) {
  if (!has_expert_axis(stage) || num_expert_holders(stage) < 2) return {};
  std::set<int> blocks;
  for (std::size_t p = 0; p < counts.size(); ++p) {
    const bool inside = std::all_of(uses[p].begin(), uses[p].end(), [&](int b) { return position_of(stage, b) >= 0; });
    if (counts[p] > 0 && inside && !uses[p].empty()) blocks.insert(uses[p].front());
  }
  return {blocks.begin(), blocks.end()};
}

}  // namespace coxswain::plan
