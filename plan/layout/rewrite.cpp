#include "plan/layout/rewrite.h"

#include <algorithm>
#include <set>

#include "common/ensure.h"

namespace coxswain::plan {
namespace {

using model::Argument;
using model::Dim;
using model::ModelGraph;
using model::Op;
using model::OpId;
using model::ValueId;
using model::ValueRef;

const Argument::Variant& argument_of(const Op& op, std::string_view name) {
  const auto at =
      std::find_if(op.arguments.begin(), op.arguments.end(), [&](const Argument& a) { return a.name == name; });
  COX_ENSURE(at != op.arguments.end(), op.target, std::string(name));
  return at->value;
}

class Rewriter {
 public:
  Rewriter(const LocalGraph& local, const MeshStep& step, int index, const std::vector<ChosenRun>& runs,
           const std::map<ValueId, Form>& stored)
      : from_(local), graph_(local.graph), step_(step), index_(index), runs_(runs), table_(local.graph, step) {
    to_ = local;
    to_.graph.ops.clear();
    to_.origin.clear();
    for (std::size_t p = 0; p < graph_.parameters.size(); ++p) store(static_cast<int>(p), stored);
  }

  LocalGraph run() {
    for (std::size_t b = 0; b < graph_.blocks.size(); ++b) {
      const auto number = static_cast<int>(b);
      model::Block& block = to_.graph.blocks[b];
      block.first_op = static_cast<OpId>(to_.graph.ops.size());
      const ChosenRun* run = run_of_block(number);
      if (run != nullptr && run->run.first_block == number) enter(*run);
      for (OpId id = graph_.blocks[b].first_op; id < graph_.blocks[b].end_op; ++id) visit(id, run);
      if (run != nullptr && run->run.end_block == number + 1) leave();
      block.end_op = static_cast<OpId>(to_.graph.ops.size());
    }
    for (std::size_t id = 0; id < to_.graph.ops.size(); ++id)
      for (const ValueId v : to_.graph.ops[id].outputs)
        if (v >= 0) to_.graph.values[static_cast<std::size_t>(v)].producer = static_cast<OpId>(id);
    // Indices of coupled operators are those of the whole graph's text, not used behind this point.
    to_.graph.coupled.clear();
    return std::move(to_);
  }

 private:
  using AtHand = std::vector<std::pair<Form, ValueId>>;

  void store(int parameter, const std::map<ValueId, Form>& stored) {
    model::Parameter& own = to_.graph.parameters[static_cast<std::size_t>(parameter)];
    const auto at = stored.find(own.value);
    if (at == stored.end() || at->second.kind != Form::Kind::Shard) return;
    stored_[own.value] = at->second;
    give_form(own.value, own.value, at->second);
    own.dims = plan::sizes_of(to_.graph, own.value);
    to_.gradient_axes[static_cast<std::size_t>(parameter)] &= ~step_.axes;
  }

  [[nodiscard]] const ChosenRun* run_of_block(int block) const {
    for (const ChosenRun& run : runs_)
      if (run.run.first_block <= block && block < run.run.end_block) return &run;
    return nullptr;
  }

  // Sizes and cuts of value `to` as the part of `from` (of the graph before) that `form` says.
  void give_form(ValueId from, ValueId to, const Form& form) {
    model::Value& value = to_.graph.values[static_cast<std::size_t>(to)];
    value.dims = graph_.values[static_cast<std::size_t>(from)].dims;
    std::vector<Cut>& cuts = to_.cuts[static_cast<std::size_t>(to)];
    cuts = from_.cuts[static_cast<std::size_t>(from)];
    if (form.kind != Form::Kind::Shard) return;
    const Split& split = form.split;
    std::vector<Cut::Run> own = runs_of_extent(split.extent, step_.size, index_, step_.runs);
    value.dims[static_cast<std::size_t>(split.dim)] = Dim(split.outer * total_rows(own) * split.inner);
    cuts.push_back({split.dim, split.outer, split.extent, split.inner, step_.axes, std::move(own)});
  }

  ValueId new_value(ValueId of, const Form& form, const char* suffix) {
    const auto id = static_cast<ValueId>(to_.graph.values.size());
    to_.graph.values.push_back(graph_.values[static_cast<std::size_t>(of)]);
    to_.graph.values.back().name += suffix;
    to_.cuts.emplace_back();
    give_form(of, id, form);
    return id;
  }

  void enter(const ChosenRun& run) {
    at_hand_.clear();
    leaving_.clear();
    const model::StageSlice slice = model::slice_stage(graph_, run.run.first_block, run.run.end_block);
    for (const ValueId v : slice.received) {
      const Form form = edge_form(graph_, v, step_);
      give_form(v, v, form);
      at_hand_[v] = {{form, v}};
    }
    for (const ValueId v : slice.sent) leaving_[v] = edge_form(graph_, v, step_);
    const OpId first = graph_.blocks[static_cast<std::size_t>(run.run.first_block)].first_op;
    const OpId end = graph_.blocks[static_cast<std::size_t>(run.run.end_block) - 1].end_op;
    for (const model::LossTerm& term : graph_.loss) {
      const OpId producer = graph_.values[static_cast<std::size_t>(term.numerator)].producer;
      if (producer >= first && producer < end) leaving_[term.numerator] = replicate();
    }
  }

  // Values that leave get their form in the run's last block: what was made on the way may serve.
  void leave() {
    for (const auto& [value, form] : leaving_) bring(value, form, nullptr);
  }

  void visit(OpId id, const ChosenRun* run) {
    const Op& op = graph_.ops[static_cast<std::size_t>(id)];
    const auto found = run == nullptr ? std::map<OpId, Choice>::const_iterator() : run->chosen.find(id);
    if (run == nullptr || found == run->chosen.end()) {
      add(op, from_.origin[static_cast<std::size_t>(id)]);
      return;
    }
    origin_ = from_.origin[static_cast<std::size_t>(id)];
    emit(op, found->second);
  }

  void add(Op op, OpId origin) {
    to_.graph.ops.push_back(std::move(op));
    to_.origin.push_back(origin);
  }

  AtHand& at_hand(ValueId v) {
    AtHand& forms = at_hand_[v];
    if (forms.empty()) {
      const auto parameter = stored_.find(v);
      forms.emplace_back(parameter == stored_.end() ? replicate() : parameter->second, v);
    }
    return forms;
  }

  /// The id under which `value` is at hand as `wanted`; a transition makes it so.
  ValueId bring(ValueId value, const Form& wanted, const Op* reader) {
    AtHand& forms = at_hand(value);
    FormTable::AtHand known;
    for (const auto& [form, id] : forms) known.push_back(form);
    double seconds = 0;
    bool found = false;
    const auto step = table_.step_to(value, known, wanted, seconds, found);
    const Form& source = step ? step->from : wanted;
    const auto at = std::find_if(forms.begin(), forms.end(), [&](const auto& hand) { return hand.first == source; });
    COX_ENSURE(found && at != forms.end(), graph_.values[static_cast<std::size_t>(value)].name);
    if (!step) return at->second;
    const auto leaves = leaving_.find(value);
    ValueId id = value;
    if (leaves != leaving_.end() && leaves->second == wanted) {
      give_form(value, value, wanted);
    } else {
      id = new_value(value, wanted, name_of(*step));
    }
    add_transition(*step, at->second, id, reader);
    forms.emplace_back(wanted, id);
    return id;
  }

  static const char* name_of(const FormTable::Step& step) {
    using Kind = Form::Kind;
    if (step.from.kind == Kind::Partial) return step.to.kind == Kind::Replicate ? ".sum" : ".sum_part";
    if (step.from.kind == Kind::Replicate) return step.to.kind == Kind::Shard ? ".part" : ".summand";
    return step.to.kind == Kind::Replicate ? ".whole" : ".other_part";
  }

  [[nodiscard]] std::vector<Dim> all_runs(std::int64_t extent) const {
    std::vector<Dim> runs;
    for (int member = 0; member < step_.size; ++member) {
      for (const Cut::Run& run : runs_of_extent(extent, step_.size, member, step_.runs)) {
        runs.emplace_back(run.first);
        runs.emplace_back(run.size);
      }
    }
    return runs;
  }

  void add_cut(Op& op, const Split& split, const std::string& prefix) const {
    op.arguments.push_back({prefix + "dim", Dim(split.dim)});
    op.arguments.push_back({prefix + "outer", Dim(split.outer)});
    op.arguments.push_back({prefix + "inner", Dim(split.inner)});
    op.arguments.push_back({prefix + "runs", all_runs(split.extent)});
  }

  Op own_op(const char* target, const Op* reader) const {
    Op op;
    op.target = target;
    if (reader != nullptr) {
      op.module_path = reader->module_path;
      op.source = reader->source;
      op.grad_enabled = reader->grad_enabled;
    }
    return op;
  }

  void add_transition(const FormTable::Step& step, ValueId from, ValueId to, const Op* reader) {
    using Kind = Form::Kind;
    const bool sums = step.from.kind == Kind::Partial, cuts = step.to.kind == Kind::Shard;
    const char* target = sums ? (cuts ? "coxswain::reduce_scatter" : "coxswain::all_reduce")
                         : step.from.kind == Kind::Replicate ? (cuts ? "coxswain::slice" : "coxswain::to_partial")
                                                             : (cuts ? "coxswain::all_to_all" : "coxswain::all_gather");
    Op op = own_op(target, reader);
    op.grad_enabled = true;
    op.arguments.push_back({"self", ValueRef{from}});
    op.arguments.push_back({"axes", Dim(static_cast<std::int64_t>(step_.axes))});
    if (step.from.kind == Kind::Shard) {
      add_cut(op, step.from.split, "");
      if (cuts) add_cut(op, step.to.split, "to_");
    } else if (cuts) {
      add_cut(op, step.to.split, "");
    }
    op.outputs = {to};
    add(std::move(op), -1);
  }

  void emit(const Op& op, const Choice& choice) {
    // As the choices were listed; bound anew, since sizes may be those of another member.
    const OpChoices choices = describe(graph_, op);
    std::vector<ValueId> reads;
    for (std::size_t r = 0; r < choices.reads.size(); ++r)
      reads.push_back(bring(choices.reads[r].value, choice.reads[r], &op));
    if (choice.kind == Choice::Kind::CrossEntropy) return emit_cross_entropy(op, choice, reads);
    if (choice.kind == Choice::Kind::RingAttention) return emit_ring(op, choice, reads);
    Op local = op;
    const Factor* factor = nullptr;
    Cut::Run rows;  // of the factor, where it stays one
    if (choice.kind == Choice::Kind::Split) {
      const FactorSplit& split = choice.split;
      factor = &choices.factors->factors[static_cast<std::size_t>(split.factor)];
      // Nothing reads where the first of several runs begins: see can_have_runs.
      const std::vector<Cut::Run> runs = runs_of_extent(split.extent, step_.size, index_, step_.runs);
      const Cut::Run own{runs.front().first, total_rows(runs)};
      rows = {own.first * split.inner, own.size * split.inner};
      if (split.outer == 1) {
        const Part part{split.factor, rows.first, rows.size};
        local = localise(op, *choices.factors, std::span(&part, 1));
      } else {
        const std::vector<std::int64_t> sizes{split.outer, split.extent, split.inner};
        const OpFactors refined = refine(*choices.factors, split.factor, sizes);
        const Part part{static_cast<int>(choices.factors->factors.size()), own.first, own.size};
        local = localise(op, refined, std::span(&part, 1));
      }
    }
    const bool masked = factor != nullptr && factor->form == PartForm::Masked;
    const bool scaled = factor != nullptr && factor->form == PartForm::Scaled;
    if (masked) {
      const auto index = static_cast<std::size_t>(factor->index);
      reads.push_back(reads[index]);
      reads[index] = add_local_index(choices.reads[index].value, choice.reads[index], reads[index], rows, op);
    }
    for (std::size_t r = 0; r < choices.reads.size(); ++r) set_read(local, choices.reads[r], reads[r]);
    std::vector<std::pair<ValueId, ValueId>> finish;  // raw result, result
    for (std::size_t w = 0; w < choices.writes.size(); ++w) {
      const auto o = static_cast<std::size_t>(choices.writes[w]);
      const ValueId value = op.outputs[o];
      const ValueId id = place_result(value, choice.writes[w]);
      local.outputs[o] = id;
      if (!masked && !scaled) continue;
      local.outputs[o] = new_value(value, choice.writes[w], ".raw");
      finish.emplace_back(local.outputs[o], id);
    }
    add(std::move(local), origin_);
    for (const auto& [raw, result] : finish) {
      if (masked) {
        add_mask(raw, reads.back(), rows, result, op);
      } else {
        add_scale(raw, static_cast<double>(rows.size) / static_cast<double>(factor->size), result, op);
      }
    }
  }

  ValueId place_result(ValueId value, const Form& form) {
    const auto leaves = leaving_.find(value);
    ValueId id = value;
    if (leaves != leaving_.end() && leaves->second != form) {
      id = new_value(value, form, ".made");
    } else {
      give_form(value, value, form);
    }
    at_hand_[value] = {{form, id}};
    return id;
  }

  static void set_read(Op& op, const Read& read, ValueId id) {
    auto& argument = op.arguments[static_cast<std::size_t>(read.argument)].value;
    if (auto* list = std::get_if<std::vector<std::optional<ValueRef>>>(&argument)) {
      (*list)[static_cast<std::size_t>(read.element)] = ValueRef{id};
    } else {
      argument = ValueRef{id};
    }
  }

  ValueId add_local_index(ValueId value, const Form& form, ValueId index, const Cut::Run& rows, const Op& reader) {
    Op op = own_op("coxswain::local_index", &reader);
    op.arguments = {{"self", ValueRef{index}}, {"first", Dim(rows.first)}, {"size", Dim(rows.size)}};
    op.outputs = {new_value(value, form, ".local")};
    const ValueId made = op.outputs.front();
    add(std::move(op), -1);
    return made;
  }

  void add_mask(ValueId raw, ValueId index, const Cut::Run& rows, ValueId result, const Op& reader) {
    Op op = own_op("coxswain::mask_rows", &reader);
    op.arguments = {
        {"self", ValueRef{raw}}, {"index", ValueRef{index}}, {"first", Dim(rows.first)}, {"size", Dim(rows.size)}};
    op.outputs = {result};
    add(std::move(op), -1);
  }

  void add_scale(ValueId raw, double factor, ValueId result, const Op& reader) {
    Op op = own_op("aten::mul.Scalar", &reader);
    op.arguments = {{"self", ValueRef{raw}}, {"other", factor}};
    op.outputs = {result};
    add(std::move(op), -1);
  }

  void emit_cross_entropy(const Op& node, const Choice& choice, const std::vector<ValueId>& reads) {
    Op op = own_op("coxswain::cross_entropy", &node);
    op.arguments = {{"self", ValueRef{reads[0]}},
                    {"target", ValueRef{reads[1]}},
                    {"axes", Dim(static_cast<std::int64_t>(step_.axes))},
                    {"runs", all_runs(choice.reads[0].split.extent)},
                    {"reduction", argument_of(node, "reduction")},
                    {"ignore_index", argument_of(node, "ignore_index")},
                    {"label_smoothing", argument_of(node, "label_smoothing")}};
    op.outputs = {place_result(node.outputs[0], choice.writes[0])};
    add(std::move(op), origin_);
  }

  void emit_ring(const Op& node, const Choice& choice, const std::vector<ValueId>& reads) {
    Op op = own_op("coxswain::ring_attention", &node);
    const Argument::Variant mask = reads.size() > 3 ? Argument::Variant(ValueRef{reads[3]}) : model::None{};
    op.arguments = {{"query", ValueRef{reads[0]}},
                    {"key", ValueRef{reads[1]}},
                    {"value", ValueRef{reads[2]}},
                    {"attn_mask", mask},
                    {"axes", Dim(static_cast<std::int64_t>(step_.axes))},
                    {"runs", all_runs(choice.reads[0].split.extent)},
                    {"is_causal", argument_of(node, "is_causal")},
                    {"scale", argument_of(node, "scale")},
                    {"enable_gqa", argument_of(node, "enable_gqa")},
                    {"dropout_p", argument_of(node, "dropout_p")}};
    op.outputs = {place_result(node.outputs[0], choice.writes[0])};
    add(std::move(op), origin_);
  }

  const LocalGraph& from_;
  const ModelGraph& graph_;
  const MeshStep step_;
  const int index_;
  const std::vector<ChosenRun>& runs_;
  const FormTable table_;
  LocalGraph to_;
  std::map<ValueId, Form> stored_, leaving_;
  std::map<ValueId, AtHand> at_hand_;
  OpId origin_ = -1;
};

}  // namespace

LocalGraph rewrite(const LocalGraph& local, const MeshStep& step, int index, const std::vector<ChosenRun>& runs,
                   const std::map<ValueId, Form>& stored) {
  return Rewriter(local, step, index, runs, stored).run();
}

}  // namespace coxswain::plan
