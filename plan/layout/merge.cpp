// Two steps of a mesh write two transitions where one over both axes does: half the messages.
#include <algorithm>
#include <string_view>

#include "plan/layout/rewrite.h"

namespace coxswain::plan {
namespace {

using model::Dim;
using model::Op;
using model::OpId;
using model::ValueId;

template <class T>
T* argument(Op& op, std::string_view name) {
  for (model::Argument& one : op.arguments)
    if (one.name == name) return &std::get<T>(one.value);
  return nullptr;
}

std::int64_t number(Op& op, std::string_view name) { return argument<Dim>(op, name)->constant(); }

struct RunList {
  std::vector<std::vector<Cut::Run>> runs;  // by member
  bool even = true;
};

std::optional<RunList> read_runs(Op& op, std::size_t members) {
  const auto& list = *argument<std::vector<Dim>>(op, "runs");
  if (list.empty() || list.size() % (2 * members) != 0) return std::nullopt;
  RunList result;
  result.runs.resize(members);
  for (std::size_t i = 0; i < list.size(); i += 2)
    result.runs[i * members / list.size()].push_back({list[i].constant(), list[i + 1].constant()});
  for (const auto& runs : result.runs) result.even = result.even && total_rows(runs) == total_rows(result.runs.front());
  return result;
}

class Merger {
 public:
  explicit Merger(LocalGraph& local) : local_(local), readers_(local.graph.values.size(), 0) {
    for (const Op& op : local.graph.ops)
      for (const model::Argument& one : op.arguments) {
        if (const auto* value = std::get_if<model::ValueRef>(&one.value)) count(value->id);
        if (const auto* list = std::get_if<std::vector<std::optional<model::ValueRef>>>(&one.value))
          for (const auto& element : *list)
            if (element) count(element->id);
      }
  }

  void run() {
    std::vector<char> removed(local_.graph.ops.size(), 0);
    for (std::size_t id = 0; id < local_.graph.ops.size(); ++id) {
      Op& second = local_.graph.ops[id];
      if (!merges(second.target)) continue;
      const ValueId between = argument<model::ValueRef>(second, "self")->id;
      const OpId producer = local_.graph.values[static_cast<std::size_t>(between)].producer;
      if (producer < 0 || readers_[static_cast<std::size_t>(between)] != 1 || !same_block(producer, id)) continue;
      Op& first = local_.graph.ops[static_cast<std::size_t>(producer)];
      if (first.target != second.target || !join(first, second)) continue;
      removed[static_cast<std::size_t>(producer)] = 1;
    }
    remove(removed);
  }

 private:
  void count(ValueId v) { ++readers_[static_cast<std::size_t>(v)]; }

  static bool merges(std::string_view target) {
    return target == "coxswain::all_reduce" || target == "coxswain::to_partial" || target == "coxswain::all_gather" ||
           target == "coxswain::reduce_scatter" || target == "coxswain::slice";
  }

  [[nodiscard]] bool same_block(OpId a, std::size_t b) const {
    return std::any_of(local_.graph.blocks.begin(), local_.graph.blocks.end(), [&](const model::Block& block) {
      const auto inside = [&](OpId id) { return block.first_op <= id && id < block.end_op; };
      return inside(a) && inside(static_cast<OpId>(b));
    });
  }

  [[nodiscard]] std::size_t size_of(AxisSet axes) const { return members_of(local_.axes, axes, 0).size(); }

  // `second` becomes both. Of two cuts the outer one is that of the earlier axis: gathers undo them in reverse order.
  bool join(Op& first, Op& second) const {
    const auto before = static_cast<AxisSet>(number(first, "axes")),
               behind = static_cast<AxisSet>(number(second, "axes"));
    if ((before & behind) != 0) return false;
    if (argument<Dim>(first, "dim") != nullptr) {
      for (const char* name : {"dim", "outer", "inner"})
        if (number(first, name) != number(second, name)) return false;
      const bool gathers = first.target == "coxswain::all_gather";
      Op &outer = gathers ? second : first, &inner = gathers ? first : second;
      if (number(outer, "axes") > number(inner, "axes")) return false;  // axes stand outermost first
      const auto rows = read_runs(outer, size_of(static_cast<AxisSet>(number(outer, "axes"))));
      const auto parts = read_runs(inner, size_of(static_cast<AxisSet>(number(inner, "axes"))));
      if (!rows || !parts || !rows->even) return false;
      std::vector<Dim> joined;
      for (const auto& of_member : rows->runs) {
        for (const auto& part : parts->runs) {
          for (const Cut::Run& run : runs_of_part(of_member, part)) {
            joined.emplace_back(run.first);
            joined.emplace_back(run.size);
          }
        }
      }
      *argument<std::vector<Dim>>(second, "runs") = std::move(joined);
    }
    *argument<model::ValueRef>(second, "self") = *argument<model::ValueRef>(first, "self");
    *argument<Dim>(second, "axes") = Dim(static_cast<std::int64_t>(before | behind));
    return true;
  }

  void remove(const std::vector<char>& removed) {
    model::ModelGraph& graph = local_.graph;
    std::vector<Op> ops;
    std::vector<OpId> origin, new_id;
    for (std::size_t id = 0; id < graph.ops.size(); ++id) {
      new_id.push_back(static_cast<OpId>(ops.size()));
      if (removed[id] != 0) continue;
      ops.push_back(std::move(graph.ops[id]));
      origin.push_back(local_.origin[id]);
    }
    new_id.push_back(static_cast<OpId>(ops.size()));
    for (model::Block& block : graph.blocks) {
      block.first_op = new_id[static_cast<std::size_t>(block.first_op)];
      block.end_op = new_id[static_cast<std::size_t>(block.end_op)];
    }
    graph.ops = std::move(ops);
    local_.origin = std::move(origin);
    for (std::size_t id = 0; id < graph.ops.size(); ++id)
      for (const ValueId v : graph.ops[id].outputs)
        if (v >= 0) graph.values[static_cast<std::size_t>(v)].producer = static_cast<OpId>(id);
  }

  LocalGraph& local_;
  std::vector<int> readers_;  // by value
};

}  // namespace

void merge_transitions(LocalGraph& local) { Merger(local).run(); }

}  // namespace coxswain::plan
