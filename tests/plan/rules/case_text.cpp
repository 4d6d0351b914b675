#include "tests/plan/rules/case_text.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <stdexcept>

#include "common/error.h"
#include "model/schema.h"
#include "worker/engine/op_call.h"
#include "worker/engine/tensor_types.h"

namespace coxswain::tests {
namespace {

using model::Argument;
using model::Dim;
using model::ValueRef;

// Pieces between commas outside brackets and quotes.
std::vector<std::string> split_top(const std::string& text) {
  std::vector<std::string> pieces;
  std::string piece;
  int depth = 0;
  bool quoted = false;
  for (const char c : text) {
    if (c == '\'') quoted = !quoted;
    if (!quoted && std::string("[({").find(c) != std::string::npos) ++depth;
    if (!quoted && std::string("])}").find(c) != std::string::npos) --depth;
    if (c == ',' && depth == 0 && !quoted) {
      pieces.push_back(piece);
      piece.clear();
    } else if (c != ' ' || quoted) {
      piece += c;
    }
  }
  if (!piece.empty()) pieces.push_back(piece);
  return pieces;
}

std::vector<std::int64_t> numbers(const std::string& text) {
  std::vector<std::int64_t> all;
  for (const std::string& piece : split_top(text)) all.push_back(std::stoll(piece));
  return all;
}

std::string inside(const std::string& text) { return text.substr(1, text.size() - 2); }

constexpr int kMaxOutputs = 12;

class CaseReader {
 public:
  CaseReader(DType dtype) : dtype_(dtype) {}

  CaseGraph read(const RuleCase& one) {
    const model::OperatorSchema* schema = model::find_schema(one.target);
    if (schema == nullptr) throw std::runtime_error(std::string("no schema: ") + one.target);
    model::Op op;
    op.target = one.target;
    for (const model::SchemaArgument& argument : schema->arguments)
      op.arguments.push_back({std::string(argument.name), argument.default_value});
    std::size_t next = 0;
    for (const std::string& piece : split_top(one.arguments)) {
      const std::size_t equal = piece.find('=');
      const bool named = equal != std::string::npos && piece[0] != '\'';
      const std::string name = named ? piece.substr(0, equal) : std::string();
      const auto at = named ? std::find_if(op.arguments.begin(), op.arguments.end(),
                                           [&](const Argument& a) { return a.name == name; })
                            : op.arguments.begin() + static_cast<std::ptrdiff_t>(next++);
      if (at >= op.arguments.end()) throw std::runtime_error(std::string(one.target) + ": no argument " + piece);
      at->value = value(named ? piece.substr(equal + 1) : piece);
    }
    result_.graph.ops.push_back(std::move(op));
    return std::move(result_);
  }

 private:
  Argument::Variant value(const std::string& text) {
    if (text == "none") return model::None{};
    if (text == "true" || text == "false") return text == "true";
    if (const auto dtype = parse_dtype(text)) return *dtype;
    if (text[0] == '\'') return inside(text);
    if (text[0] == '(') return list(inside(text));
    if (text[0] == '{') {
      std::vector<std::optional<ValueRef>> tensors;
      for (const std::string& piece : split_top(inside(text)))
        tensors.push_back(piece == "none" ? std::nullopt : std::optional<ValueRef>(tensor(piece)));
      return tensors;
    }
    if (text.find('[') != std::string::npos) return tensor(text);
    if (text.find('.') != std::string::npos) return std::stod(text);
    return Dim(std::stoll(text));
  }

  static Argument::Variant list(const std::string& text) {
    if (text.find('.') != std::string::npos) {
      std::vector<double> values;
      for (const std::string& piece : split_top(text)) values.push_back(std::stod(piece));
      return values;
    }
    std::vector<Dim> dims;
    for (const std::int64_t number : numbers(text)) dims.emplace_back(number);
    return dims;
  }

  ValueRef tensor(const std::string& text) {
    const std::size_t open = text.find('[');
    const std::vector<std::int64_t> sizes = numbers(text.substr(open + 1, text.size() - open - 2));
    const char kind = text[0];
    CaseTensor made;
    DType dtype = dtype_;
    if (kind == 'i' || kind == 's') {
      dtype = DType::Int64;
      made.whole = at::randint(0, std::stoll(text.substr(1, open - 1)), sizes, worker::options_of(dtype));
      if (kind == 's') made.whole = std::get<0>(made.whole.sort());
    } else if (kind == 'b') {
      dtype = DType::Bool;
      made.whole = at::randint(0, 2, sizes, worker::options_of(DType::Int64)).to(c10::ScalarType::Bool);
    } else {
      const at::TensorOptions doubles = worker::options_of(DType::Float64);
      at::Tensor numbers = kind == 'f'   ? at::randn(sizes, doubles)
                           : kind == 'u' ? at::rand(sizes, doubles) * 0.8 + 0.1
                                         : at::rand(sizes, doubles) + 0.5;
      made.whole = numbers.to(worker::scalar_type_of(dtype));
      made.differentiable = kind != 'c';
      result_.floating = true;
    }
    model::Value value;
    for (const std::int64_t size : sizes) value.dims.emplace_back(size);
    value.dtype = dtype;
    value.requires_grad = made.differentiable;
    result_.graph.values.push_back(std::move(value));
    result_.inputs.push_back(std::move(made));
    return {static_cast<int>(result_.inputs.size()) - 1};
  }

  DType dtype_;
  CaseGraph result_;
};

}  // namespace

CaseGraph read_case(const RuleCase& one, DType dtype) { return CaseReader(dtype).read(one); }

std::vector<at::Tensor> run_op(const model::ModelGraph& graph, const model::Op& op,
                               const std::vector<at::Tensor>& inputs) {
  model::ModelGraph one;
  one.batch_symbol = graph.batch_symbol;
  const bool dropout = op.target.rfind("aten::dropout", 0) == 0;  // the engine's own kernel has one output
  if (dropout || op.target.find("attention") != std::string::npos) one.values = graph.values;  // it looks for samples
  one.ops.push_back(op);
  one.ops[0].outputs.clear();
  std::vector<at::Tensor> values = inputs;
  for (int i = 0; i < (dropout ? 1 : kMaxOutputs); ++i) {
    one.ops[0].outputs.push_back(static_cast<int>(values.size()));
    values.emplace_back();
  }
  auto call = worker::OpCall::make(one, 0, 1);
  if (!call) throw std::runtime_error(to_text(call.error()));
  call->run(values, worker::RunMode{});
  std::vector<at::Tensor> outputs;  // undefined ones are left out
  for (std::size_t i = inputs.size(); i < values.size() && values[i].defined(); ++i) outputs.push_back(values[i]);
  return outputs;
}

}  // namespace coxswain::tests
