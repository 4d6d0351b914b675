#pragma once
// The run of operators that work on rows which a router gave to experts: from the first read of a table to the last
// operator that has what a table gave as an operand. Found by the sharding rules: an operator belongs to a run where
// rows are a free factor of it, so that it may run on any rows, whoever they belong to, and on any number of them.
// Called by localise_stage. Private to plan/layout. Threads: pure. Source: docs/layout.md, "Experts"; docs/adr/0015.
#include <utility>
#include <vector>

#include "common/result.h"
#include "model/model_graph.h"
#include "plan/layout/local_graph.h"

namespace coxswain::plan {

struct ExpertRun {
  model::ValueId indices = -1;                    // (rows), int64: the expert of each row
  std::int64_t count = 0;                         // of experts
  std::vector<model::OpId> ops;                   // ascending
  std::vector<model::OpId> reads;                 // of tables, among them
  std::vector<model::ValueId> tables;             // parameters
  std::vector<model::ValueId> entering, leaving;  // rows made outside that it reads; rows of its own that others read
  /// (operator, argument, element) of sizes that say how many rows there are.
  struct RowCount {
    model::OpId op = -1;
    int argument = -1, element = -1;
  };
  std::vector<RowCount> row_counts;
};

/// Of one block, by first operator. The graph has numbers for dims; `counts`: expert_counts of the whole graph. A
/// transition belongs to a run where the positions that take part have the same rows, since then the same rows come to
/// each of them. Errors: Unimplemented: an operator that cannot run on some rows alone, by name; a table that is cut.
[[nodiscard]] Result<std::vector<ExpertRun>> find_expert_runs(const LocalGraph& local, const model::Block& block,
                                                              const std::vector<std::int64_t>& counts);

}  // namespace coxswain::plan
