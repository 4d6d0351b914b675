// Operators that mix samples. Every value is one of
//   Free     knows no sample                       (parameters, positions)
//   Samples  one row per sample                    (anything with the batch symbol in its dims)
//   Sum      a sum over samples, linear in them    (the loss so far)
// Splitting the batch adds up Sums, which is right as long as only linear operators follow. A Sum that meets samples
// again (x - x.mean(0)), or another Sum in a product, or a nonlinear function, is coupled; so is an operator that works
// along the batch dim (softmax over it) or compares samples with samples (x @ x.T).
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

class Coupling {
 public:
  explicit Coupling(const ModelGraph& graph) : graph_(graph), state_(graph.values.size(), State::Free) {
    for (const Input& input : graph.inputs) state_[input.value] = State::Samples;
    batched_.reserve(graph.values.size());
    for (const Value& value : graph.values)
      batched_.push_back(static_cast<int>(
          std::count_if(value.dims.begin(), value.dims.end(), [&](const Dim& dim) { return is_batched(dim); })));
  }

  /// Why `op` couples samples; empty when it does not. Then sets the state of its outputs.
  std::string visit(const Op& op) {
    const std::string reason = judge(op);
    bool any = false;
    for_each_input(op, [&](ValueId value) { any = any || state_[value] != State::Free; });
    for (const ValueId output : op.outputs) {
      if (output < 0) continue;
      // After a coupled operator samples count as samples again, so that one cause is reported once.
      state_[output] = batched_[output] > 0 ? State::Samples : any && reason.empty() ? State::Sum : State::Free;
    }
    return reason;
  }

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
  std::vector<State> state_;
  std::vector<int> batched_;  // dims with the batch symbol, by value
};

}  // namespace

void find_coupled_ops(ModelGraph& graph) {
  Coupling coupling(graph);
  for (std::size_t i = 0; i < graph.ops.size(); ++i) {
    const Op& op = graph.ops[i];
    std::string reason = coupling.visit(op);
    if (!reason.empty()) graph.coupled.push_back({static_cast<OpId>(i), std::move(reason)});
  }
}

}  // namespace coxswain::model
