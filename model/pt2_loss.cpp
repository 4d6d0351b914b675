// The loss as a sum of coefficient x numerator / denominator (LossTerm): sums and factors are taken apart, a mean
// cross-entropy becomes a sum over the count of targets that are not ignored, so that splitting the batch keeps the
// full-batch gradient. What is no mean over samples for certain is reported as coupled.
#include <algorithm>
#include <array>
#include <map>

#include "model/finish_parts.h"
#include "model/op_values.h"
#include "model/pt2_ops.h"
#include "model/pt2_reader.h"

namespace coxswain::model {
namespace {

constexpr int kMaxDepth = 50;
constexpr std::int64_t kMean = 1, kSum = 2;
constexpr std::string_view kUnprovenMean =
    "the loss is no mean over samples that can be proved; splitting the batch may change it";
constexpr std::string_view kPlainSum = "the loss is a sum over samples, not a mean; it grows with the batch";

constexpr std::array<std::string_view, 5> kCrossEntropies = {
    "aten::cross_entropy_loss", "aten::nll_loss_nd", "aten::nll_loss", "aten::nll_loss2d", "aten::nll_loss2d_nd"};
constexpr std::array<std::string_view, 7> kElementLosses = {"aten::mse_loss",
                                                            "aten::l1_loss",
                                                            "aten::smooth_l1_loss",
                                                            "aten::huber_loss",
                                                            "aten::binary_cross_entropy",
                                                            "aten::binary_cross_entropy_with_logits",
                                                            "aten::soft_margin_loss"};
// One element in, the same element out.
constexpr std::array<std::string_view, 9> kSameScalar = {"aten::view",      "aten::reshape", "aten::squeeze",
                                                         "aten::unsqueeze", "aten::to",      "aten::flatten",
                                                         "aten::clone",     "aten::expand",  "aten::contiguous"};

bool is_one_of(std::string_view name, const auto& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

class LossSplitter {
 public:
  explicit LossSplitter(ModelGraph& graph) : graph_(graph) {
    for (std::size_t i = 0; i < graph.ops.size(); ++i) {
      for (const ValueId output : graph.ops[i].outputs) producer_[output] = static_cast<OpId>(i);
    }
    mark_input_dependence();
  }

  void split(ValueId value, double coefficient, int depth) {
    const Op* op = producer(value);
    if (op == nullptr || depth > kMaxDepth || !is_single(value)) return add_leaf(value, coefficient);
    const std::string_view name = base_name(op->target);
    const ValueId self = value_argument(*op, "self");
    const ValueId other = value_argument(*op, "other");
    if ((name == "aten::add" || name == "aten::sub") && self >= 0 && other >= 0 && is_single(self) &&
        is_single(other)) {
      const double factor = number_argument(*op, "alpha", 1.0) * (name == "aten::sub" ? -1.0 : 1.0);
      split(self, coefficient, depth + 1);  // appends operators: `op` may have moved
      return split(other, coefficient * factor, depth + 1);
    }
    if (name == "aten::neg" && self >= 0) return split(self, -coefficient, depth + 1);
    const auto number = constant_number(*op, "other");
    if (name == "aten::mul" && self >= 0 && number) return split(self, coefficient * *number, depth + 1);
    if (op->target != "aten::div.Tensor_mode" && name == "aten::div" && self >= 0 && number && *number != 0) {
      return split(self, coefficient / *number, depth + 1);
    }
    const bool reduces_one = (name == "aten::mean" || name == "aten::sum") && self >= 0 && is_single(self);
    if (self >= 0 && (reduces_one || (is_one_of(name, kSameScalar) && is_single(self))))
      return split(self, coefficient, depth + 1);
    add_leaf(value, coefficient);
  }

  std::vector<std::pair<ValueId, std::string>> take_coupled() { return std::move(coupled_); }

 private:
  [[nodiscard]] const Op* producer(ValueId value) const {
    const auto found = producer_.find(value);
    return found == producer_.end() ? nullptr : &graph_.ops[found->second];
  }

  // One element, whatever the batch.
  [[nodiscard]] bool is_single(ValueId value) const {
    const auto& dims = graph_.values[value].dims;
    return std::all_of(dims.begin(), dims.end(), [](const Dim& dim) { return dim == Dim(1); });
  }

  [[nodiscard]] static std::optional<double> constant_number(const Op& op, std::string_view name) {
    const Argument* argument = find_argument(op, name);
    if (argument == nullptr) return std::nullopt;
    if (const auto* number = std::get_if<double>(&argument->value)) return *number;
    const auto integer = integer_argument(op, name);
    return integer ? std::optional<double>(static_cast<double>(*integer)) : std::nullopt;
  }

  void mark_input_dependence() {
    depends_on_input_.assign(graph_.values.size(), false);
    depends_on_parameter_.assign(graph_.values.size(), false);
    for (const Input& input : graph_.inputs) depends_on_input_[input.value] = true;
    for (const Parameter& parameter : graph_.parameters) depends_on_parameter_[parameter.value] = true;
    for (const Op& op : graph_.ops) {
      for_each_input(op, [&](ValueId input) {
        for (const ValueId output : op.outputs) {
          if (output < 0) continue;
          depends_on_input_[output] = depends_on_input_[output] || depends_on_input_[input];
          depends_on_parameter_[output] = depends_on_parameter_[output] || depends_on_parameter_[input];
        }
      });
    }
  }

  // The number of elements is batch x something that the batch does not change.
  [[nodiscard]] bool grows_with_batch(const Dim& count) const {
    if (graph_.batch_symbol.empty())
      return graph_.static_batch > 0 && count.is_constant() && count.constant() % graph_.static_batch == 0;
    const Dim rest = Dim::apply(Dim::Operation::FloorDiv, count, Dim::symbol(graph_.batch_symbol));
    return rest.is_constant() && rest.constant() > 0 && rest * Dim::symbol(graph_.batch_symbol) == count;
  }
  [[nodiscard]] bool grows_with_batch(ValueId value) const {
    if (value < 0) return false;
    Dim count(1);
    for (const Dim& dim : graph_.values[value].dims) count = count * dim;
    return grows_with_batch(count);
  }

  // All elements of one tensor added up; gives that tensor.
  [[nodiscard]] std::optional<ValueId> whole_sum(ValueId value) const {
    const Op* op = producer(value);
    if (op == nullptr || !graph_.values[value].dims.empty()) return std::nullopt;
    const std::string_view name = base_name(op->target);
    if (name == "aten::sum") return value_argument(*op, "self");
    if ((is_one_of(name, kElementLosses) || is_one_of(name, kCrossEntropies)) &&
        integer_argument(*op, "reduction") == kSum) {
      return value_argument(*op, "self");
    }
    return std::nullopt;
  }

  [[nodiscard]] bool is_mean_over_samples(ValueId value) const {
    if (!depends_on_input_[value]) return true;  // the same for every part of the batch
    const Op* op = producer(value);
    if (op == nullptr) return false;
    const std::string_view name = base_name(op->target);
    const ValueId self = value_argument(*op, "self");
    if (is_one_of(name, kElementLosses)) return integer_argument(*op, "reduction") == kMean && grows_with_batch(self);
    // Cross-entropy with probabilities as targets divides by the number of rows.
    if (name == "aten::cross_entropy_loss") {
      const ValueId target = value_argument(*op, "target");
      return integer_argument(*op, "reduction") == kMean && target >= 0 &&
             is_floating_point(graph_.values[target].dtype) && grows_with_batch(target);
    }
    if (name == "aten::mean") return self >= 0 && graph_.values[value].dims.empty() && grows_with_batch(self);
    if (name == "aten::div" && self >= 0) {
      const Argument* other = find_argument(*op, "other");
      const auto* divisor = other == nullptr ? nullptr : std::get_if<Dim>(&other->value);
      return divisor != nullptr && whole_sum(self).has_value() && grows_with_batch(*divisor);
    }
    return false;
  }

  void add_leaf(ValueId value, double coefficient) {
    // A copy: what follows appends operators.
    const std::optional<Op> op = producer(value) == nullptr ? std::nullopt : std::optional<Op>(*producer(value));
    const std::string_view name = op ? base_name(op->target) : "";
    if (is_one_of(name, kCrossEntropies) && integer_argument(*op, "reduction") == kMean) {
      if (const auto denominator = count_targets(*op)) {
        // Counting appended operators: `op` may have moved.
        graph_.loss.push_back({coefficient, sum_instead(*producer(value)), denominator});
        return;
      }
    }
    if (name == "aten::div") {
      // sum(losses) / sum(mask): the model counts by itself.
      const ValueId numerator = value_argument(*op, "self"), denominator = value_argument(*op, "other");
      if (numerator >= 0 && denominator >= 0 && whole_sum(numerator) && whole_sum(denominator) &&
          !depends_on_parameter_[denominator]) {
        graph_.loss.push_back({coefficient, numerator, denominator});
        return;
      }
    }
    if (!is_mean_over_samples(value)) {
      coupled_.emplace_back(value, whole_sum(value) ? kPlainSum : kUnprovenMean);
    }
    graph_.loss.push_back({coefficient, value, std::nullopt});
  }

  // Number of targets that are not ignored. Nothing with class weights or probabilities as targets.
  std::optional<ValueId> count_targets(const Op& op) {
    const ValueId target = value_argument(op, "target");
    const auto ignored = integer_argument(op, "ignore_index");
    if (target < 0 || !ignored || value_argument(op, "weight") >= 0 || is_floating_point(graph_.values[target].dtype))
      return std::nullopt;
    const Origin origin{op.module_path, op.source, false};
    const std::string name = graph_.values[op.outputs.front()].name;
    const std::vector<Dim> dims = graph_.values[target].dims;
    const ValueId counted = emit_op(graph_, "aten::ne.Scalar", {{"self", ValueRef{target}}, {"other", Dim(*ignored)}},
                                    origin, name + "_counted", dims, DType::Bool);
    return emit_op(graph_, "aten::sum", {{"self", ValueRef{counted}}}, origin, name + "_count", {}, DType::Int64);
  }

  // The same loss without the division.
  ValueId sum_instead(Op op) {
    for (Argument& argument : op.arguments) {
      if (argument.name == "reduction") argument.value = Dim(kSum);
    }
    const Value like = graph_.values[op.outputs.front()];
    const ValueId sum = add_value(graph_, like.name + "_sum", {}, like.dtype);
    op.outputs.assign(1, sum);
    graph_.ops.push_back(std::move(op));
    return sum;
  }

  ModelGraph& graph_;
  std::map<ValueId, OpId> producer_;
  std::vector<bool> depends_on_input_, depends_on_parameter_;
  std::vector<std::pair<ValueId, std::string>> coupled_;
};

}  // namespace

std::vector<std::pair<ValueId, std::string>> split_loss(ModelGraph& graph, ValueId loss) {
  LossSplitter splitter(graph);
  splitter.split(loss, 1.0, 0);
  return splitter.take_coupled();
}

namespace {

/// A whole's sum is no sum over the samples at hand.
void add_divided_wholes(ModelGraph& graph) {
  for (const LossTerm& term : graph.loss) {
    if (!term.denominator) continue;
    const bool whole = follows_from_sums(graph, term.numerator) || follows_from_sums(graph, *term.denominator);
    if (whole) graph.coupled.push_back({graph.values[term.numerator].producer, "is divided by a sum over samples"});
  }
}

}  // namespace

void add_coupled_losses(ModelGraph& graph, const std::vector<std::pair<ValueId, std::string>>& losses) {
  for (const auto& [value, reason] : losses) {
    const OpId op = graph.values[value].producer;
    const bool known = std::any_of(graph.coupled.begin(), graph.coupled.end(),
                                   [&](const CoupledOp& coupled) { return coupled.op == op; });
    if (!known && !follows_from_sums(graph, value)) graph.coupled.push_back({op, reason});
  }
  if (!graph.coupled.empty()) add_divided_wholes(graph);
}

}  // namespace coxswain::model
