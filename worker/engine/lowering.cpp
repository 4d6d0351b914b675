#include "worker/engine/lowering.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <set>

#include "model/selective.h"
#include "worker/engine/expert_tokens.h"
#include "worker/engine/group_experts.h"
#include "worker/engine/tensor_types.h"
#include "worker/engine/transitions.h"

namespace coxswain::worker {
namespace {

using model::OpId;
using model::ValueId;

constexpr int kPrelude = -1;

/// The state of one lowering: of `grouped`, which is `graph` with its experts' products in another form.
class Lowering {
 public:
  Lowering(const model::ModelGraph& graph, const model::ModelGraph& grouped, const LoweringOptions& options,
           const WeightSource& weights)
      : ungrouped_(graph), graph_(grouped), options_(options), weights_(weights), num_values_(graph.values.size()) {}

  Result<LoweredStage> run() {
    stage_.first_block = options_.first_block;
    stage_.slice = model::slice_stage(graph_, options_.first_block, options_.end_block);
    stage_.segments.resize(static_cast<std::size_t>(options_.end_block - options_.first_block));
    for (std::size_t b = 0; b < options_.recompute.size(); ++b)
      stage_.segments[b].recompute = options_.recompute[b] == plan::Recompute::Full;
    COX_TRY_VOID(check_kernels());
    mark_needed();
    COX_TRY_VOID(read_constants());
    COX_TRY_VOID(make_calls());
    COX_TRY_VOID(fold_constants());
    find_boundaries();
    for (std::size_t b = 0; b < options_.recompute.size(); ++b)
      if (options_.recompute[b] == plan::Recompute::Selective)
        find_again(stage_.segments[b], options_.first_block + static_cast<int>(b));
    keep_used_constants();
    return std::move(stage_);
  }

 private:
  Result<void> check_kernels() const {
    std::vector<Error> problems;
    std::set<std::string> seen;
    for (const OpId id : stage_.slice.ops) {
      const model::Op& op = graph_.ops[id];
      if (has_kernel(op.target) || !seen.insert(op.target).second) continue;
      problems.push_back(
          {ErrorCode::InvalidArgument, "operator without a kernel: " + op.target, op.module_path, "", op.source, ""});
    }
    if (problems.empty()) return {};
    return combine_errors(ErrorCode::InvalidArgument, "the model holds operators that cannot be run here",
                          std::move(problems));
  }

  [[nodiscard]] bool inside(OpId id) const {
    return id >= graph_.blocks[options_.first_block].first_op && id < graph_.blocks[options_.end_block - 1].end_op;
  }

  // What forward needs (loss numerators, what is sent) and what only the count of denominators needs.
  void mark_needed() {
    forward_.assign(num_values_, 0);
    counted_.assign(num_values_, 0);
    stage_.is_sent.assign(num_values_, 0);
    for (const ValueId v : stage_.slice.sent) forward_[v] = stage_.is_sent[v] = 1;
    for (std::size_t t = 0; t < graph_.loss.size(); ++t) {
      const model::LossTerm& term = graph_.loss[t];
      const OpId producer = graph_.values[term.numerator].producer;
      if (producer < 0 || !inside(producer)) continue;
      stage_.terms.push_back(static_cast<int>(t));
      forward_[term.numerator] = 1;
      if (term.denominator) counted_[*term.denominator] = 1;
    }
    for (auto id = stage_.slice.ops.rbegin(); id != stage_.slice.ops.rend(); ++id) {
      const model::Op& op = graph_.ops[*id];
      const bool in_forward = any_output(op, forward_), in_count = any_output(op, counted_);
      for_each_tensor(op, [&](ValueId v) {
        if (in_forward) forward_[v] = 1;
        if (in_count) counted_[v] = 1;
      });
    }
  }

  static bool any_output(const model::Op& op, const std::vector<char>& marked) {
    return std::any_of(op.outputs.begin(), op.outputs.end(), [&](ValueId v) { return v >= 0 && marked[v] != 0; });
  }

  Result<void> read_constants() {
    constant_.assign(num_values_, 0);
    constants_.resize(num_values_);
    for (const int b : stage_.slice.buffers) {
      const ValueId value = graph_.buffers[b].value;
      COX_TRY(const at::Tensor whole, weights_.read_buffer(whole_graph().buffers[b]));
      constants_[value] = cut_tensor(whole, cuts_of(value));
      constant_[value] = 1;
    }
    for (const int p : stage_.slice.parameters) {
      if (graph_.parameters[p].trainable) continue;
      const ValueId value = graph_.parameters[p].value;
      COX_TRY(const at::Tensor whole, weights_.read_parameter_tensor(whole_graph().parameters[p]));
      constants_[value] = cut_tensor(whole, cuts_of(value));
      constant_[value] = 1;
    }
    return {};
  }

  [[nodiscard]] const model::ModelGraph& whole_graph() const { return options_.view ? *options_.view->whole : graph_; }
  [[nodiscard]] std::span<const plan::Cut> cuts_of(ValueId value) const {
    return options_.view ? options_.view->cuts_of(value) : std::span<const plan::Cut>();
  }

  // Segment of an operator: its block's, or the prelude for what other stages' blocks hold.
  [[nodiscard]] int segment_of(OpId id) const {
    for (int b = options_.first_block; b < options_.end_block; ++b)
      if (id >= graph_.blocks[b].first_op && id < graph_.blocks[b].end_op) return b - options_.first_block;
    return kPrelude;
  }
  Segment& segment(int index) { return index == kPrelude ? stage_.prelude : stage_.segments[index]; }

  Result<void> make_calls() {
    std::vector<Error> problems;
    const std::vector<Casting> castings =
        castings_of(graph_, stage_.slice, options_.first_block, options_.end_block, options_.precision);
    for (std::size_t i = 0; i < stage_.slice.ops.size(); ++i) {
      const OpId id = stage_.slice.ops[i];
      const model::Op& op = graph_.ops[id];
      bool is_constant = std::none_of(op.outputs.begin(), op.outputs.end(),
                                      [&](ValueId v) { return v >= 0 && graph_.values[v].depends_on_parameter; });
      for_each_tensor(op, [&](ValueId v) { is_constant = is_constant && constant_[v] != 0; });
      const bool in_forward = any_output(op, forward_), in_count = any_output(op, counted_);
      const auto add = [&](std::vector<OpCall>& calls, Casting casting = {}) {
        auto call = OpCall::make(graph_, id, options_.samples, casting, options_.view);
        if (call) {
          calls.push_back(std::move(*call));
        } else {
          problems.push_back(call.error());
        }
      };
      if (is_constant) {
        for (const ValueId v : op.outputs)
          if (v >= 0) constant_[v] = 1;
        add(folded_);
        continue;
      }
      if (in_forward) {
        std::vector<OpCall>& calls = segment(segment_of(id)).code.calls;
        add(calls, castings[i]);
        for (const ValueId v : op.outputs)
          if (const ExpertCounter* counter = options_.tokens ? options_.tokens->find(v) : nullptr)
            if (!calls.empty() && calls.back().op() == id) calls.back().count_choices(*counter);
      }
      if (in_count) add(stage_.count.code.calls);
    }
    if (problems.empty()) return {};
    return combine_errors(ErrorCode::InvalidArgument, "operators that cannot be run here", std::move(problems));
  }

  Result<void> fold_constants() {
    return guard_torch("constants of the model", [&]() -> Result<void> {
      const at::NoGradGuard no_grad;
      for (OpCall& call : folded_) call.run(constants_, RunMode{.training = false, .dropout = false});
      return {};
    });
  }

  // Inputs, outputs and releases of every segment; then how long values live between segments.
  void find_boundaries() {
    producer_.assign(num_values_, kNowhere);
    const int num_segments = static_cast<int>(stage_.segments.size());
    for (int s = kPrelude; s < num_segments; ++s)
      for (const OpCall& call : segment(s).code.calls)
        for (const ValueId v : graph_.ops[call.op()].outputs)
          if (v >= 0) producer_[v] = s;
    stage_.last_forward_use.assign(num_values_, kPrelude);
    stage_.first_recompute_use.assign(num_values_, num_segments);
    std::vector<char> crosses(num_values_, 0);
    for (const ValueId v : stage_.slice.sent) crosses[v] = 1;
    for (const int t : stage_.terms) crosses[graph_.loss[t].numerator] = 1;
    for (int s = kPrelude; s < num_segments; ++s) {
      find_inputs(segment(s), [&](ValueId v) { return producer_[v] == s; });
      for (const ValueId v : segment(s).inputs) {
        crosses[v] = 1;
        stage_.last_forward_use[v] = std::max(stage_.last_forward_use[v], s);
        if (s != kPrelude && segment(s).recompute)
          stage_.first_recompute_use[v] = std::min(stage_.first_recompute_use[v], s);
      }
    }
    find_inputs(stage_.count, [](ValueId) { return false; });
    for (int s = kPrelude; s < num_segments; ++s) {
      for (const OpCall& call : segment(s).code.calls)
        for (const ValueId v : graph_.ops[call.op()].outputs)
          if (v >= 0 && crosses[v] != 0) segment(s).outputs.push_back(v);
      find_casts(segment(s));
      find_releases(segment(s));
    }
    for (const int t : stage_.terms)
      if (graph_.loss[t].denominator) stage_.count.outputs.push_back(*graph_.loss[t].denominator);
    find_releases(stage_.count);
  }

  template <class IsOwn>
  void find_inputs(Segment& segment, IsOwn&& is_own) {
    std::set<ValueId> inputs, made;
    std::set<ParameterUse> parameters;
    for (const OpCall& call : segment.code.calls) {
      for_each_tensor(graph_.ops[call.op()], [&](ValueId v) {
        if (constant_[v] != 0 || is_own(v) || made.count(v) != 0) return;
        if (const int p = parameter_of(v); p >= 0) {
          parameters.insert({p, call.reads_copies()});
        } else {
          inputs.insert(v);
        }
      });
      for (const ValueId v : graph_.ops[call.op()].outputs)
        if (v >= 0) made.insert(v);
    }
    segment.inputs.assign(inputs.begin(), inputs.end());
    segment.parameters.assign(parameters.begin(), parameters.end());
  }

  [[nodiscard]] int parameter_of(ValueId v) const { return trainable_parameter(graph_, v); }

  void find_casts(Segment& segment) const {
    if (!plan::is_mixed(options_.precision)) return;
    for (const ValueId v : segment.outputs) {
      const model::Value& value = graph_.values[v];
      if (value.dtype != DType::Float32 || !value.depends_on_parameter) continue;
      const bool is_numerator = std::any_of(graph_.loss.begin(), graph_.loss.end(),
                                            [&](const model::LossTerm& term) { return term.numerator == v; });
      segment.casts.emplace_back(
          v, is_numerator ? c10::ScalarType::Float : scalar_type_of(plan::computed_dtype(options_.precision)));
    }
  }

  void find_releases(Segment& segment) {
    Code& code = segment.code;
    code.releases.resize(code.calls.size());
    std::set<ValueId> seen(segment.outputs.begin(), segment.outputs.end());
    for (std::size_t i = code.calls.size(); i-- > 0;) {
      const auto release = [&](ValueId v) {
        if (constant_[v] == 0 && parameter_of(v) < 0 && seen.insert(v).second) code.releases[i].push_back(v);
      };
      const model::Op& op = graph_.ops[code.calls[i].op()];
      for (const ValueId v : op.outputs)
        if (v >= 0) release(v);
      for_each_tensor(op, release);
    }
  }

  // What runs again under selective recompute, and what it reads that does not.
  void find_again(Segment& segment, int block) const {
    const std::vector<int> replay = model::selective_replay(ungrouped_, block, options_.samples);
    if (replay.empty()) return;
    segment.again.assign(segment.code.calls.size(), 0);
    segment.again_releases.resize(segment.code.calls.size());
    const auto varies = [&](ValueId v) { return constant_[v] == 0 && parameter_of(v) < 0; };
    std::set<ValueId> made, held, released;
    for (std::size_t i = 0; i < segment.code.calls.size(); ++i) {
      const OpId id = segment.code.calls[i].op();
      if (!std::binary_search(replay.begin(), replay.end(), id - graph_.blocks[block].first_op)) continue;
      segment.again[i] = 1;
      for_each_tensor(graph_.ops[id], [&](ValueId v) {
        if (varies(v) && made.count(v) == 0) held.insert(v);
      });
      for (const ValueId v : graph_.ops[id].outputs)
        if (v >= 0) made.insert(v);
    }
    segment.held.assign(held.begin(), held.end());
    for (std::size_t i = segment.code.calls.size(); i-- > 0;) {
      if (segment.again[i] == 0) continue;
      const auto release = [&](ValueId v) {
        if (varies(v) && released.insert(v).second) segment.again_releases[i].push_back(v);
      };
      const model::Op& op = graph_.ops[segment.code.calls[i].op()];
      for (const ValueId v : op.outputs)
        if (v >= 0) release(v);
      for_each_tensor(op, release);
    }
  }

  // Folding leaves intermediate tensors; only what calls read is kept.
  void keep_used_constants() {
    std::set<ValueId> used;
    const auto collect = [&](const Segment& segment) {
      for (const OpCall& call : segment.code.calls)
        for_each_tensor(graph_.ops[call.op()], [&](ValueId v) {
          if (constant_[v] != 0) used.insert(v);
        });
    };
    for (const Segment& segment : stage_.segments) collect(segment);
    collect(stage_.prelude);
    collect(stage_.count);
    for (const int t : stage_.terms)
      if (graph_.loss[t].denominator && constant_[*graph_.loss[t].denominator] != 0)
        used.insert(*graph_.loss[t].denominator);
    for (const ValueId v : used) stage_.constants.emplace_back(v, constants_[v]);
  }

  static constexpr int kNowhere = -2;
  const model::ModelGraph &ungrouped_, &graph_;
  const LoweringOptions& options_;
  const WeightSource& weights_;
  std::size_t num_values_;
  LoweredStage stage_;
  std::vector<char> forward_, counted_, constant_;
  std::vector<int> producer_;
  std::vector<at::Tensor> constants_;
  std::vector<OpCall> folded_;
};

}  // namespace

Result<LoweredStage> lower_stage(const model::ModelGraph& graph, const LoweringOptions& options,
                                 const WeightSource& weights) {
  const model::ModelGraph grouped = group_experts(graph);
  return Lowering(graph, grouped, options, weights).run();
}

}  // namespace coxswain::worker
