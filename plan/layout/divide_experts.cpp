#include "plan/layout/divide_experts.h"

#include <algorithm>
#include <map>
#include <utility>

#include "common/ensure.h"
#include "plan/layout/form.h"
#include "plan/operands.h"

namespace coxswain::plan {
namespace {

using model::Dim;
using model::Op;
using model::OpId;
using model::ValueId;
using model::ValueRef;

class Divider {
 public:
  Divider(LocalGraph& local, const std::vector<ExpertRun>& runs, const ExpertPlace& place)
      : local_(local), runs_(runs), place_(place), states_(runs.size()) {
    for (std::size_t r = 0; r < runs.size(); ++r)
      for (const OpId id : runs[r].ops) COX_ENSURE(run_of_.emplace(id, r).second, id);
  }

  void run() {
    std::vector<Op> before = std::move(local_.graph.ops);
    const std::vector<OpId> origin = std::exchange(local_.origin, {});
    local_.graph.ops.clear();
    for (model::Block& block : local_.graph.blocks) {
      const OpId first = block.first_op, end = block.end_op;
      block.first_op = num_ops();
      for (OpId id = first; id < end; ++id) {
        const auto run = run_of_.find(id);
        Op& op = before[static_cast<std::size_t>(id)];
        if (run == run_of_.end()) {
          add(std::move(op), origin[static_cast<std::size_t>(id)]);
        } else {
          visit(std::move(op), id, run->second, origin[static_cast<std::size_t>(id)]);
        }
      }
      block.end_op = num_ops();
    }
    for (std::size_t id = 0; id < local_.graph.ops.size(); ++id)
      for (const ValueId v : local_.graph.ops[id].outputs)
        if (v >= 0) value(v).producer = static_cast<OpId>(id);
    // Indices of coupled operators are those of the whole graph's text, not used behind this point.
    local_.graph.coupled.clear();
    for (const ExpertRun& run : runs_)
      for (const ValueId table : run.tables) cut(table, run.count);
  }

 private:
  struct State {
    ValueId routing = -1, indices = -1;
    std::map<ValueId, ValueId> inside;  // by the value that it stands for: rows of the experts here
  };

  [[nodiscard]] OpId num_ops() const { return static_cast<OpId>(local_.graph.ops.size()); }
  model::Value& value(ValueId v) { return local_.graph.values[static_cast<std::size_t>(v)]; }

  void add(Op op, OpId origin) {
    local_.graph.ops.push_back(std::move(op));
    local_.origin.push_back(origin);
  }

  ValueId new_value(ValueId of, const char* suffix) {
    const auto id = static_cast<ValueId>(local_.graph.values.size());
    local_.graph.values.push_back(value(of));
    local_.graph.values.back().name += suffix;
    local_.cuts.push_back(local_.cuts[static_cast<std::size_t>(of)]);
    return id;
  }

  Op own_op(const char* target, const Op& reader) const {
    Op op;
    op.target = target;
    op.module_path = reader.module_path;
    op.source = reader.source;
    return op;
  }

  [[nodiscard]] Cut::Run own_experts(std::int64_t count) const {
    return part_of_extent(count, place_.size, place_.index);
  }

  void begin(const ExpertRun& run, State& state, const Op& reader) {
    state.routing = new_value(run.indices, ".routing");
    state.indices = new_value(run.indices, ".here");
    std::vector<Dim> experts;
    for (int member = 0; member < place_.size; ++member) {
      const Cut::Run held = part_of_extent(run.count, place_.size, member);
      experts.emplace_back(held.first);
      experts.emplace_back(held.size);
    }
    Op route = own_op("coxswain::expert_route", reader);
    route.arguments = {{"indices", ValueRef{run.indices}},
                       {"axes", Dim(static_cast<std::int64_t>(kExpertAxis))},
                       {"runs", std::move(experts)}};
    route.outputs = {state.routing};
    add(std::move(route), -1);
    Op here = own_op("coxswain::expert_indices", reader);
    here.arguments = {{"routing", ValueRef{state.routing}}};
    here.outputs = {state.indices};
    add(std::move(here), -1);
  }

  void travel(const char* target, ValueId from, ValueId to, const State& state, const Op& reader) {
    Op op = own_op(target, reader);
    op.arguments = {{"self", ValueRef{from}},
                    {"routing", ValueRef{state.routing}},
                    {"axes", Dim(static_cast<std::int64_t>(kExpertAxis))}};
    op.outputs = {to};
    add(std::move(op), -1);
  }

  void visit(Op op, OpId id, std::size_t number, OpId origin) {
    const ExpertRun& run = runs_[number];
    State& state = states_[number];
    if (state.routing < 0) begin(run, state, op);
    for (const ValueId entering : run.entering) {
      bool reads = false;
      visit_operands(op, [&](ValueId v) { reads = reads || v == entering; });
      if (!reads || state.inside.contains(entering)) continue;
      const ValueId inside = new_value(entering, ".dispatched");
      travel("coxswain::expert_dispatch", entering, inside, state, op);
      state.inside.emplace(entering, inside);
    }
    const bool reads_table = std::find(run.reads.begin(), run.reads.end(), id) != run.reads.end();
    replace_operands(op, [&](ValueId& v) {
      if (reads_table && v == run.indices) v = state.indices;
      if (const auto found = state.inside.find(v); found != state.inside.end()) v = found->second;
    });
    for (const ExpertRun::RowCount& rows : run.row_counts) {
      if (rows.op != id) continue;
      auto& sizes = std::get<std::vector<Dim>>(op.arguments[static_cast<std::size_t>(rows.argument)].value);
      sizes[static_cast<std::size_t>(rows.element)] = Dim(-1);
    }
    std::vector<std::pair<ValueId, ValueId>> leaving;
    for (ValueId& v : op.outputs) {
      if (v < 0 || std::find(run.leaving.begin(), run.leaving.end(), v) == run.leaving.end()) continue;
      const ValueId outside = v;
      v = new_value(outside, ".of_experts");
      state.inside.emplace(outside, v);
      leaving.emplace_back(v, outside);
    }
    const Op reader = op;
    add(std::move(op), origin);
    for (const auto& [from, to] : leaving) travel("coxswain::expert_combine", from, to, state, reader);
  }

  void cut(ValueId table, std::int64_t count) {
    const auto parameter = std::find_if(local_.graph.parameters.begin(), local_.graph.parameters.end(),
                                        [&](const model::Parameter& p) { return p.value == table; });
    COX_ENSURE(parameter != local_.graph.parameters.end(), table);
    if (parameter->dims.front() != count) return;  // of an earlier run
    const Cut::Run own = own_experts(count);
    parameter->dims.front() = own.size;
    value(table).dims.front() = Dim(own.size);
    local_.cuts[static_cast<std::size_t>(table)].push_back({0, 1, count, 1, kExpertAxis, {own}});
  }

  LocalGraph& local_;
  const std::vector<ExpertRun>& runs_;
  const ExpertPlace place_;
  std::map<OpId, std::size_t> run_of_;
  std::vector<State> states_;
};

}  // namespace

void divide_experts(LocalGraph& local, const std::vector<ExpertRun>& runs, const ExpertPlace& place) {
  if (!runs.empty()) Divider(local, runs, place).run();
}

}  // namespace coxswain::plan
