#include "plan/layout/complete_sums.h"

#include <algorithm>
#include <map>
#include <utility>

#include "common/ensure.h"
#include "plan/operands.h"

namespace coxswain::plan {
namespace {

using model::Op;
using model::OpId;
using model::ValueId;
using model::ValueRef;

class Completer {
 public:
  Completer(LocalGraph& local, const model::ModelGraph& whole, const Stage& stage, double share)
      : local_(local), whole_(whole), share_(share) {
    for (const model::CoupledOp& coupled : whole.coupled) {
      const auto block = std::find_if(whole.blocks.begin(), whole.blocks.end(), [&](const model::Block& b) {
        return b.first_op <= coupled.op && coupled.op < b.end_op;
      });
      if (position_of(stage, static_cast<int>(block - whole.blocks.begin())) >= 0) sums_[coupled.op] = coupled.sums;
    }
  }

  void run() {
    if (sums_.empty()) return;
    before_ = std::move(local_.graph.ops);
    origin_ = std::exchange(local_.origin, {});
    local_.graph.ops.clear();
    for (model::Block& block : local_.graph.blocks) {
      const OpId first = block.first_op, end = block.end_op;
      block.first_op = num_ops();
      for (OpId id = first; id < end; ++id) {
        Op op = before_[static_cast<std::size_t>(id)];
        const OpId from = origin_[static_cast<std::size_t>(id)];
        if (const auto found = sums_.find(from); found != sums_.end()) {
          const int completed = complete(op, found->second);
          // Left as they are they would be another loss.
          COX_ENSURE(completed >= static_cast<int>(found->second.size()), completed, op.target);
        }
        add(std::move(op), from);
      }
      block.end_op = num_ops();
    }
    for (std::size_t id = 0; id < local_.graph.ops.size(); ++id)
      for (const ValueId v : local_.graph.ops[id].outputs)
        if (v >= 0) value(v).producer = static_cast<OpId>(id);
    // Indices of coupled operators are those of the whole graph's text, not used behind this point.
    local_.graph.coupled.clear();
  }

 private:
  [[nodiscard]] OpId num_ops() const { return static_cast<OpId>(local_.graph.ops.size()); }
  model::Value& value(ValueId v) { return local_.graph.values[static_cast<std::size_t>(v)]; }

  void add(Op op, OpId origin) {
    local_.graph.ops.push_back(std::move(op));
    local_.origin.push_back(origin);
  }

  /// Number of operands that stood for a sum.
  int complete(Op& op, const std::vector<model::BatchSum>& sums) {
    int count = 0;
    replace_operands(op, [&](ValueId& v) {
      const auto sum =
          std::find_if(sums.begin(), sums.end(), [&](const auto& one) { return stands_for(v, one.value); });
      if (sum == sums.end()) return;
      ++count;
      if (const auto known = completed_.find(v); known != completed_.end()) {
        v = known->second;
        return;
      }
      ValueId part = v;
      if (sum->mean) part = emit("aten::mul.Scalar", part, {"other", share_}, ".share", op);
      const ValueId all = emit("coxswain::all_reduce", part,
                               {"axes", model::Dim(static_cast<std::int64_t>(kExpertAxis))}, ".of_batch", op);
      completed_.emplace(v, all);
      v = all;
    });
    return count;
  }

  /// Whether `v` holds this position's part of `sum`, a value of the whole graph, in whatever form on the mesh.
  [[nodiscard]] bool stands_for(ValueId v, ValueId sum) const {
    const OpId wanted = whole_.values[static_cast<std::size_t>(sum)].producer;
    const auto place_in = [](const Op& op, ValueId output) {
      return std::find(op.outputs.begin(), op.outputs.end(), output) - op.outputs.begin();
    };
    while (true) {
      const OpId producer = local_.graph.values[static_cast<std::size_t>(v)].producer;
      if (producer < 0) return false;
      const Op& op = before_[static_cast<std::size_t>(producer)];
      const OpId origin = origin_[static_cast<std::size_t>(producer)];
      if (origin >= 0)
        return origin == wanted && place_in(op, v) == place_in(whole_.ops[static_cast<std::size_t>(wanted)], sum);
      // A transition, or what a part is scaled by.
      ValueId from = -1;
      visit_operands(op, [&](ValueId operand) { from = from < 0 ? operand : from; });
      if (from < 0) return false;
      v = from;
    }
  }

  ValueId emit(const char* target, ValueId self, model::Argument argument, const char* suffix, const Op& reader) {
    const auto made = static_cast<ValueId>(local_.graph.values.size());
    local_.graph.values.push_back(value(self));
    local_.graph.values.back().name += suffix;
    local_.cuts.push_back(local_.cuts[static_cast<std::size_t>(self)]);
    Op op;
    op.target = target;
    op.arguments = {{"self", ValueRef{self}}, std::move(argument)};
    op.outputs = {made};
    op.module_path = reader.module_path;
    op.source = reader.source;
    add(std::move(op), -1);
    return made;
  }

  LocalGraph& local_;
  const model::ModelGraph& whole_;
  const double share_;
  std::map<OpId, std::vector<model::BatchSum>> sums_;  // by operator of the whole graph
  std::vector<Op> before_;
  std::vector<OpId> origin_;  // of them
  std::map<ValueId, ValueId> completed_;
};

}  // namespace

void complete_sums(LocalGraph& local, const model::ModelGraph& whole, const Stage& stage, double share) {
  Completer(local, whole, stage, share).run();
}

}  // namespace coxswain::plan
