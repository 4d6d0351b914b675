#include "plan/layout/expert_runs.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "plan/experts.h"
#include "plan/operands.h"
#include "plan/rules/rules.h"

namespace coxswain::plan {
namespace {

using model::ModelGraph;
using model::Op;
using model::OpId;
using model::ValueId;

// Their masks belong to elements of the whole.
constexpr std::array<std::string_view, 2> kRandom{"aten::dropout", "aten::native_dropout"};
constexpr std::array<std::string_view, 5> kTransitions{"coxswain::all_reduce", "coxswain::to_partial",
                                                       "coxswain::all_gather", "coxswain::reduce_scatter",
                                                       "coxswain::slice"};
// Those whose size may be left for the operator to find.
constexpr std::array<std::string_view, 3> kViews{"aten::view", "aten::reshape", "aten::_unsafe_view"};

template <std::size_t N>
bool is_one_of(std::string_view name, const std::array<std::string_view, N>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// The run of one list of indices.
class RunFinder {
 public:
  RunFinder(const LocalGraph& local, const model::Block& block, const std::vector<std::vector<OpId>>& readers,
            ExpertRun& run)
      : graph_(local.graph), cuts_(local.cuts), block_(block), readers_(readers), run_(run) {}

  Result<void> find() {
    reads_ = {run_.reads.begin(), run_.reads.end()};
    collect();
    do {
      COX_TRY_VOID(find_rows());
    } while (take_in_views());
    run_.ops = {ops_.begin(), ops_.end()};
    for (const OpId id : ops_)
      for (const ValueId v : op(id).outputs)
        if (v >= 0 && leaves(v)) run_.leaving.push_back(v);
    return {};
  }

 private:
  [[nodiscard]] const Op& op(OpId id) const { return graph_.ops[static_cast<std::size_t>(id)]; }
  [[nodiscard]] const std::vector<OpId>& readers(ValueId v) const { return readers_[static_cast<std::size_t>(v)]; }
  [[nodiscard]] bool is_made_here(ValueId v) const {
    return ops_.contains(graph_.values[static_cast<std::size_t>(v)].producer);
  }

  /// What depends on a table's rows, up to the last operator that reads some.
  void collect() {
    std::set<OpId> behind;  // a read of a table
    std::set<ValueId> made;
    for (OpId id = block_.first_op; id < block_.end_op; ++id) {
      bool depends = reads_.contains(id);
      visit_operands(op(id), [&](ValueId v) { depends = depends || made.contains(v); });
      if (!depends) continue;
      behind.insert(id);
      for (const ValueId v : op(id).outputs) made.insert(v);
    }
    ops_ = reads_;
    std::set<OpId> needed;
    for (const OpId read : reads_)
      for (const OpId reader : readers(op(read).outputs.front())) needed.insert(reader);
    for (auto id = behind.rbegin(); id != behind.rend(); ++id) {
      bool inside = needed.contains(*id);
      for (const ValueId v : op(*id).outputs)
        for (const OpId reader : v >= 0 ? readers(v) : std::vector<OpId>{}) inside = inside || needed.contains(reader);
      if (!inside) continue;
      needed.insert(*id);
      ops_.insert(*id);
    }
  }

  /// Entering values and sizes, from every operator's factors.
  Result<void> find_rows() {
    run_.entering.clear();
    run_.row_counts.clear();
    std::vector<Error> problems;
    for (const OpId id : ops_) {
      if (reads_.contains(id)) continue;
      if (const auto reason = take_rows(id)) {
        problems.push_back({ErrorCode::Unimplemented, "an operator between tables of experts does not go row by row",
                            op(id).module_path + ": " + op(id).target, "rows as a free dim of a sharding rule", *reason,
                            "leave out the expert axis for this stage"});
      }
    }
    if (problems.empty()) return {};
    return combine_errors(ErrorCode::Unimplemented, "experts that cannot be spread over replicas", std::move(problems));
  }

  /// What is wrong with it; nothing where it runs on any rows.
  std::optional<std::string> take_rows(OpId id) {
    const std::string_view name = without_overload(op(id).target);
    if (is_one_of(name, kRandom)) return "an operator that draws";
    if (is_one_of(name, kTransitions)) return check_transition(op(id));
    const auto factors = bind_rule(graph_, op(id), graph_.static_batch);
    if (!factors) return "no rule";
    const std::vector<int>* rows = nullptr;
    for (const TensorFactors& input : factors->inputs)
      if (is_made_here(input.value) && !input.dims.empty()) rows = &input.dims.front();
    // A view that was taken in.
    if (rows == nullptr && !factors->outputs.empty() && !factors->outputs.front().dims.empty())
      rows = &factors->outputs.front().dims.front();
    if (rows == nullptr || rows->empty()) return "no dim of rows";
    for (const int factor : *rows) {
      const Factor& one = factors->factors[static_cast<std::size_t>(factor)];
      if (one.kind != FactorKind::Free || one.form != PartForm::Plain || one.contiguous) return "rows stay together";
    }
    const auto holds_none = [&](const TensorFactors& tensor, std::size_t from) {
      return std::all_of(tensor.dims.begin() + static_cast<std::ptrdiff_t>(from), tensor.dims.end(),
                         [&](const std::vector<int>& dim) {
                           return std::none_of(dim.begin(), dim.end(), [&](int factor) {
                             return std::find(rows->begin(), rows->end(), factor) != rows->end();
                           });
                         });
    };
    const auto leads = [&](const TensorFactors& tensor) {
      return !tensor.dims.empty() && tensor.dims.front() == *rows && holds_none(tensor, 1);
    };
    for (const TensorFactors& input : factors->inputs) {
      if (leads(input)) {
        if (!is_made_here(input.value)) enter(input.value);
      } else if (is_made_here(input.value) || !holds_none(input, 0)) {
        return "rows in another dim";
      }
    }
    if (!std::all_of(factors->outputs.begin(), factors->outputs.end(), leads)) return "results without rows";
    for (const Rewrite& rewrite : factors->rewrites) {
      const bool counts = std::any_of(rewrite.factors.begin(), rewrite.factors.end(), [&](int factor) {
        return std::find(rows->begin(), rows->end(), factor) != rows->end();
      });
      if (!counts) continue;
      if (!is_one_of(name, kViews) || rewrite.element != 0) return "an argument that counts rows";
      run_.row_counts.push_back({id, rewrite.argument, rewrite.element});
    }
    return std::nullopt;
  }

  std::optional<std::string> check_transition(const Op& transition) const {
    AxisSet axes = 0;
    ValueId self = -1;
    bool along_rows = false;
    for (const model::Argument& argument : transition.arguments) {
      if (const auto* value = std::get_if<model::ValueRef>(&argument.value)) self = value->id;
      const auto* number = std::get_if<model::Dim>(&argument.value);
      if (number != nullptr && argument.name == "axes") axes = static_cast<AxisSet>(number->constant());
      if (number != nullptr && argument.name.ends_with("dim")) along_rows = along_rows || number->constant() == 0;
    }
    for (const Cut& cut : cuts_[static_cast<std::size_t>(self)])
      along_rows = along_rows || (cut.dim == 0 && (cut.axes & axes) != 0);
    if (along_rows) return "positions that have other rows";
    return std::nullopt;
  }

  void enter(ValueId value) {
    if (std::find(run_.entering.begin(), run_.entering.end(), value) == run_.entering.end())
      run_.entering.push_back(value);
  }

  /// A view of rows that nobody else reads is made after they have travelled, so that what several products read
  /// travels once. False: there was none.
  bool take_in_views() {
    const auto is_view = [&](ValueId v) {
      const OpId producer = graph_.values[static_cast<std::size_t>(v)].producer;
      if (producer < block_.first_op || without_overload(op(producer).target) != "aten::unsqueeze") return false;
      const auto& users = readers(v);
      ValueId source = -1;
      visit_operands(op(producer), [&](ValueId operand) { source = operand; });
      const auto& dims = graph_.values[static_cast<std::size_t>(v)].dims;
      const auto& before = graph_.values[static_cast<std::size_t>(source)].dims;
      return !before.empty() && dims.front() == before.front() &&
             std::all_of(users.begin(), users.end(), [&](OpId user) { return ops_.contains(user); });
    };
    const auto found = std::find_if(run_.entering.begin(), run_.entering.end(), is_view);
    if (found == run_.entering.end()) return false;
    ops_.insert(graph_.values[static_cast<std::size_t>(*found)].producer);
    return true;
  }

  [[nodiscard]] bool leaves(ValueId v) const {
    const auto& users = readers(v);
    if (std::any_of(users.begin(), users.end(), [&](OpId user) { return !ops_.contains(user); })) return true;
    return std::any_of(graph_.loss.begin(), graph_.loss.end(),
                       [&](const model::LossTerm& term) { return term.numerator == v; });
  }

  const ModelGraph& graph_;
  const std::vector<std::vector<Cut>>& cuts_;  // by value
  const model::Block& block_;
  const std::vector<std::vector<OpId>>& readers_;  // by value
  ExpertRun& run_;
  std::set<OpId> reads_, ops_;
};

}  // namespace

Result<std::vector<ExpertRun>> find_expert_runs(const LocalGraph& local, const model::Block& block,
                                                const std::vector<std::int64_t>& counts) {
  const ModelGraph& graph = local.graph;
  std::map<ValueId, std::size_t> parameter_of;
  for (std::size_t p = 0; p < counts.size(); ++p)
    if (counts[p] > 0) parameter_of.emplace(graph.parameters[p].value, p);
  std::vector<ExpertRun> runs;
  for (OpId id = block.first_op; id < block.end_op && !parameter_of.empty(); ++id) {
    const Op& op = graph.ops[static_cast<std::size_t>(id)];
    const TableRead read = table_read(graph, op);
    const auto table = parameter_of.find(read.table);
    if (table == parameter_of.end()) continue;
    const model::Parameter& parameter = graph.parameters[table->second];
    if (parameter.dims.front() != counts[table->second]) {
      return Error{ErrorCode::Unimplemented,
                   "a mesh cuts a table of experts by expert",
                   parameter.name,
                   std::to_string(counts[table->second]) + " experts on every position",
                   std::to_string(parameter.dims.front()),
                   "use smaller axes for this stage"};
    }
    auto run = std::find_if(runs.begin(), runs.end(), [&](const ExpertRun& r) { return r.indices == read.indices; });
    if (run == runs.end()) {
      run = runs.insert(runs.end(), ExpertRun{});
      run->indices = read.indices;
      run->count = counts[table->second];
    }
    run->tables.push_back(read.table);
    run->reads.push_back(id);
  }
  if (runs.empty()) return runs;
  std::vector<std::vector<OpId>> readers(graph.values.size());
  for (std::size_t id = 0; id < graph.ops.size(); ++id)
    visit_operands(graph.ops[id],
                   [&](ValueId v) { readers[static_cast<std::size_t>(v)].push_back(static_cast<OpId>(id)); });
  for (ExpertRun& run : runs) COX_TRY_VOID(RunFinder(local, block, readers, run).find());
  return runs;
}

}  // namespace coxswain::plan
