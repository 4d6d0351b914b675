// Operators that mix samples. Every value is one of
//   Free     knows no sample                       (parameters, positions)
//   Samples  one row per sample                    (anything with the batch symbol in its dims)
//   Sum      a sum over samples, linear in them    (the loss so far)
// Splitting the batch adds up Sums, which is right as long as only linear operators follow. A Sum that meets samples
// again (x - x.mean(0)), or another Sum in a product, or a nonlinear function, is coupled; so is an operator that works
// along the batch dim (softmax over it) or compares samples with samples (x @ x.T).
// Of Sums it is known whether they are means, weighted by samples, or totals of the parts of a batch. A coupled
// operator that mixes samples by its Sums alone is right where those of all parts are put together before it.
#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "model/finish_parts.h"
#include "model/op_rules.h"
#include "model/op_values.h"

namespace coxswain::model {
namespace {

enum class State : char { Free, Samples, Sum };
/// How a Sum of the whole batch follows from those of its parts.
enum class Growth : char { Unknown, Total, Mean };

template <std::size_t N>
bool is_one_of(std::string_view name, const std::array<std::string_view, N>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

constexpr std::array<std::string_view, 17> kLinear{
    "aten::add", "aten::sub",   "aten::rsub", "aten::neg",         "aten::sum",   "aten::mean",
    "aten::cat", "aten::stack", "aten::to",   "aten::_to_copy",    "aten::clone", "aten::contiguous",
    "aten::pad", "aten::mul",   "aten::div",  "aten::true_divide", "aten::linear"};
constexpr std::array<std::string_view, 13> kAlongDim{
    "aten::softmax",   "aten::_softmax", "aten::log_softmax", "aten::_log_softmax", "aten::cumsum",
    "aten::cumprod",   "aten::sort",     "aten::flip",        "aten::roll",         "aten::topk",
    "aten::logsumexp", "aten::diff",     "aten::glu"};
/// Reductions that are no sum; the others add samples up.
constexpr std::array<std::string_view, 14> kNonlinearReductions{
    "aten::max", "aten::min",  "aten::amax", "aten::amin", "aten::argmax", "aten::argmin", "aten::var",
    "aten::std", "aten::norm", "aten::prod", "aten::any",  "aten::all",    "aten::median", "aten::linalg_vector_norm"};

constexpr const char* kByNumber = "relates a sum over the whole batch to a number of samples";

class Coupling {
 public:
  explicit Coupling(const ModelGraph& graph)
      : graph_(graph),
        state_(graph.values.size(), State::Free),
        growth_(graph.values.size(), Growth::Unknown),
        sized_(graph.values.size(), 0),
        completed_(graph.values.size(), 0) {
    for (const Input& input : graph.inputs) state_[input.value] = State::Samples;
    batched_.reserve(graph.values.size());
    for (const Value& value : graph.values)
      batched_.push_back(static_cast<int>(
          std::count_if(value.dims.begin(), value.dims.end(), [&](const Dim& dim) { return is_batched(dim); })));
  }

  /// Why `op` couples samples, and by which sums; no reason when it does not. Then sets the state of its outputs.
  CoupledOp visit(OpId id) {
    const Op& op = graph_.ops[static_cast<std::size_t>(id)];
    CoupledOp coupled{id, judge(op)};
    if (coupled.reason.empty() && scales_completed(op)) coupled.reason = kByNumber;
    const bool couples = !coupled.reason.empty();
    if (couples) coupled.sums = find_sums(id);
    const Growth growth = growth_of(op);
    bool any = false, sized = has_batch_size(op), completed = false;
    for_each_input(op, [&](ValueId value) {
      any = any || state_[value] != State::Free;
      sized = sized || sized_[value] != 0;
      completed = completed || completed_[value] != 0;
    });
    if (couples) completed = !coupled.sums.empty();
    for (const ValueId output : op.outputs) {
      if (output < 0) continue;
      // After a coupled operator samples count as samples again, so that one cause is reported once.
      state_[output] = batched_[output] > 0 ? State::Samples : any && !couples ? State::Sum : State::Free;
      growth_[output] = growth;
      const bool free = state_[output] == State::Free;
      sized_[output] = free && sized ? 1 : 0;
      completed_[output] = free && completed ? 1 : 0;
    }
    return coupled;
  }

  /// What follows from the whole batch's sums meets the number of samples, which is another one in each part.
  [[nodiscard]] bool scales_completed(const Op& op) const {
    const ValueId output = op.outputs.empty() ? -1 : op.outputs.front();
    if (output < 0 || batched_[output] > 0) return false;
    bool completed = false, sized = has_batch_size(op);
    for_each_input(op, [&](ValueId value) {
      completed = completed || completed_[value] != 0;
      sized = sized || sized_[value] != 0;
    });
    return completed && sized;
  }

  [[nodiscard]] bool completed(ValueId value) const { return completed_[value] != 0; }

 private:
  [[nodiscard]] bool is_batched(const Dim& dim) const {
    if (dim.is_constant()) return false;
    const auto symbols = dim.symbols();
    return std::find(symbols.begin(), symbols.end(), graph_.batch_symbol) != symbols.end();
  }

  [[nodiscard]] std::string judge(const Op& op) const {
    const std::string_view name = base_name(op.target);
    if (name.find("batch_norm") != std::string_view::npos && bool_argument(op, "training", true))
      return "normalises with statistics of the batch";
    if (graph_.batch_symbol.empty()) return "";  // a static batch is never split
    int sums = 0, samples = 0;
    for_each_input(op, [&](ValueId value) {
      sums += state_[value] == State::Sum ? 1 : 0;
      samples += state_[value] == State::Samples ? 1 : 0;
    });
    const ValueId output = op.outputs.empty() ? -1 : op.outputs.front();
    if (output < 0) return "";
    if (batched_[output] > 1 && samples > 0) return "compares every sample with every other";
    if (batched_[output] > 0 && sums > 0) return "uses a sum over the batch for each sample";
    if (works_along_batch(op, name)) return "works along the batch";
    if (batched_[output] == 0 && samples > 0) return judge_reduction(name);
    if (sums > 0) return judge_linear(op, name, sums);
    return "";
  }

  [[nodiscard]] static std::string judge_reduction(std::string_view name) {
    if (name == "aten::select" || name == "aten::slice" || name == "aten::index_select")
      return "picks samples by their place in the batch";
    if (is_one_of(name, kNonlinearReductions)) return "reduces over the batch by something other than a sum";
    return "";
  }

  [[nodiscard]] std::string judge_linear(const Op& op, std::string_view name, int sums) const {
    const OpRule* rule = find_rule(op.target);
    if (rule != nullptr && rule->op_class == OpClass::View) return "";
    if (!is_one_of(name, kLinear)) return "is a nonlinear function of a sum over the batch";
    if (name == "aten::mul" && sums > 1) return "multiplies two sums over the batch";
    if (name == "aten::div" || name == "aten::true_divide") {
      const ValueId divisor = value_argument(op, "other");
      if (divisor >= 0 && state_[divisor] == State::Sum) return "divides by a sum over the batch";
    }
    return "";
  }

  /// Empty where they do not make up for all that couples, or it is not known how they grow.
  [[nodiscard]] std::vector<BatchSum> find_sums(OpId id) const {
    const Op& op = graph_.ops[static_cast<std::size_t>(id)];
    const std::string_view name = base_name(op.target);
    const ValueId output = op.outputs.empty() ? -1 : op.outputs.front();
    const bool by_sums = output >= 0 && batched_[output] <= 1 && !works_along_batch(op, name) &&
                         name.find("batch_norm") == std::string_view::npos;
    std::vector<BatchSum> sums;
    bool known = by_sums && (batched_[output] > 0 || !has_batch_size(op));
    for_each_input(op, [&](ValueId value) {
      known = known && sized_[value] == 0;
      if (state_[value] == State::Samples && batched_[output] == 0) known = false;
      if (state_[value] != State::Sum) return;
      const OpId producer = graph_.values[value].producer;
      known = known && growth_[value] != Growth::Unknown && block_of(graph_, producer) == block_of(graph_, id);
      const BatchSum sum{value, growth_[value] == Growth::Mean};
      if (std::find(sums.begin(), sums.end(), sum) == sums.end()) sums.push_back(sum);
    });
    return known ? sums : std::vector<BatchSum>{};
  }

  [[nodiscard]] bool has_batch_size(const Op& op) const {
    return std::any_of(op.arguments.begin(), op.arguments.end(), [&](const Argument& argument) {
      if (const auto* dim = std::get_if<Dim>(&argument.value)) return is_batched(*dim);
      const auto* dims = std::get_if<std::vector<Dim>>(&argument.value);
      return dims != nullptr && std::any_of(dims->begin(), dims->end(), [&](const Dim& d) { return is_batched(d); });
    });
  }

  /// `dim` is batch x something that the batch does not change.
  [[nodiscard]] bool grows_with_batch(const Dim& dim) const {
    const Dim batch = Dim::symbol(graph_.batch_symbol);
    const Dim rest = Dim::apply(Dim::Operation::FloorDiv, dim, batch);
    return !is_batched(rest) && rest * batch == dim;
  }

  /// Of what `op` makes where that is a Sum.
  [[nodiscard]] Growth growth_of(const Op& op) const {
    if (graph_.batch_symbol.empty()) return Growth::Unknown;
    const std::string_view name = base_name(op.target);
    int samples = 0, sums = 0, free = 0;
    bool known = true, proportional = true;
    Growth growth = Growth::Unknown;
    for_each_input(op, [&](ValueId value) {
      known = known && sized_[value] == 0;
      for (const Dim& dim : graph_.values[value].dims)
        proportional = proportional && (!is_batched(dim) || grows_with_batch(dim));
      if (state_[value] == State::Samples) {
        ++samples;
      } else if (state_[value] == State::Sum) {
        known = known && (sums == 0 || growth_[value] == growth);
        growth = growth_[value];
        ++sums;
      } else {
        ++free;
      }
    });
    if (!known) return Growth::Unknown;
    if (samples == 0) return sums > 0 ? continued(op, name, growth, free) : Growth::Unknown;
    if (samples + sums + free > 1) return Growth::Unknown;
    if (!proportional) return Growth::Unknown;
    return name == "aten::sum" ? Growth::Total : name == "aten::mean" ? Growth::Mean : Growth::Unknown;
  }

  /// Of operands of one growth and `free` tensors that know no sample.
  [[nodiscard]] Growth continued(const Op& op, std::string_view name, Growth growth, int free) const {
    const OpRule* rule = find_rule(op.target);
    const bool is_view = rule != nullptr && rule->op_class == OpClass::View;
    if (!is_view && !is_one_of(name, kLinear)) return Growth::Unknown;
    const Argument* other = find_argument(op, "other");
    const auto* number = other == nullptr ? nullptr : std::get_if<Dim>(&other->value);
    const bool divides = name == "aten::div" || name == "aten::true_divide", scales = divides || name == "aten::mul";
    if (number != nullptr && is_batched(*number)) {
      const bool known = scales && growth == (divides ? Growth::Total : Growth::Mean) && grows_with_batch(*number);
      return !known ? Growth::Unknown : divides ? Growth::Mean : Growth::Total;
    }
    if (has_batch_size(op)) return Growth::Unknown;
    // A mean plus what knows no sample is one of what is added to each; a total is not.
    const bool has_number = other != nullptr && !std::holds_alternative<ValueRef>(other->value);
    const bool adds = name == "aten::pad" || (!scales && !is_view && (free > 0 || has_number));
    return adds && growth != Growth::Mean ? Growth::Unknown : growth;
  }

  [[nodiscard]] bool works_along_batch(const Op& op, std::string_view name) const {
    if (!is_one_of(name, kAlongDim)) return false;
    ValueId input = -1;
    for_each_input(op, [&](ValueId value) { input = input < 0 ? value : input; });
    if (input < 0 || batched_[input] == 0) return false;
    const std::vector<Dim>& dims = graph_.values[input].dims;
    auto along = integers_argument(op, find_argument(op, "dim") != nullptr ? "dim" : "dims");
    if (!along || along->empty()) return false;
    return std::any_of(along->begin(), along->end(), [&](std::int64_t dim) {
      const std::size_t place = wrap_dim(dim, dims.size());
      return place < dims.size() && is_batched(dims[place]);
    });
  }

  const ModelGraph& graph_;
  // By value.
  std::vector<State> state_;
  std::vector<Growth> growth_;   // of Sums
  std::vector<char> sized_;      // Free, but its elements may depend on the number of samples
  std::vector<char> completed_;  // Free, by sums that are put together
  std::vector<int> batched_;     // dims with the batch symbol
};

}  // namespace

void find_coupled_ops(ModelGraph& graph) {
  Coupling coupling(graph);
  for (std::size_t i = 0; i < graph.ops.size(); ++i) {
    CoupledOp coupled = coupling.visit(static_cast<OpId>(i));
    if (!coupled.reason.empty()) graph.coupled.push_back(std::move(coupled));
  }
}

bool follows_from_sums(const ModelGraph& graph, ValueId value) {
  Coupling coupling(graph);
  for (std::size_t i = 0; i < graph.ops.size(); ++i) static_cast<void>(coupling.visit(static_cast<OpId>(i)));
  return coupling.completed(value);
}

}  // namespace coxswain::model
