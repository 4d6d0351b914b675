#pragma once
// The expert axis as a plan and a model have it: which parameters are tables of experts, and which replicas hold which
// of them. Read off operators, by no model's name. Called by whoever derives lists, groups and layouts.
// Threads: pure. Source: docs/plan.md, "Experts"; docs/adr/0015; docs/cost_model.md, C32 and C33.
#include <cstdint>
#include <vector>

#include "model/model_graph.h"
#include "plan/plan.h"

namespace coxswain::plan {

/// By parameter: how many experts have a row each of its first dim; 0: it is no table of experts. A table is read by
/// nothing but `aten::index(table, {indices})`, with one int64 for each row; and with the same indices matrices are
/// read that enter a batched product (so biases of experts are tables too, and tokens' embeddings are none).
[[nodiscard]] std::vector<std::int64_t> expert_counts(const model::ModelGraph& graph);

/// The operator that reads rows of a table in that form: the table's value and that of the indices; -1: another one.
struct TableRead {
  model::ValueId table = -1, indices = -1;
};
[[nodiscard]] TableRead table_read(const model::ModelGraph& graph, const model::Op& op);

/// Rows that choose an expert each: `indices` (rows), int64, which tables of `experts` are read with.
struct ExpertChoice {
  model::ValueId indices = -1;
  int block = -1;
  std::int64_t experts = 0;
};
/// All of a model, in the order in which tables are read.
[[nodiscard]] std::vector<ExpertChoice> expert_choices(const model::ModelGraph& graph);

/// A replica's place among the `size` replicas in a row that hold all experts together.
struct ExpertPlace {
  int size = 1, index = 0;
  friend bool operator==(const ExpertPlace&, const ExpertPlace&) = default;
};
/// Requires: `expert` divides the number of replicas (V25).
[[nodiscard]] ExpertPlace expert_place(const Stage& stage, int replica);
/// Of all replicas that hold all experts together with this one.
[[nodiscard]] std::int64_t expert_samples(const Stage& stage, int replica);
[[nodiscard]] bool has_expert_axis(const Stage& stage);
/// expert_counts where a stage of the plan has an expert axis, else empty: lists are made by the thousand.
[[nodiscard]] std::vector<std::int64_t> divided_counts(const Plan& plan, const model::ModelGraph& graph);
/// Devices of a stage that hold the same experts: replicas of one place, with each part of a sequence.
[[nodiscard]] int num_expert_holders(const Stage& stage);

/// Blocks whose bucket has gradients of tables for several devices to add up, by the lowest of the stage that uses a
/// table, ascending; none where each expert has one holder. `counts`: expert_counts; `uses`: ParameterUses::blocks
/// (program.h).
[[nodiscard]] std::vector<int> reduced_expert_blocks(const Stage& stage, const std::vector<std::int64_t>& counts,
                                                     const std::vector<std::vector<int>>& uses);

}  // namespace coxswain::plan
