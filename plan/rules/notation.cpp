#include "plan/rules/notation.h"

#include <algorithm>

#include "common/ensure.h"
#include "model/schema.h"

namespace coxswain::plan {
namespace {

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  std::string part;
  for (const char c : text) {
    if (c == separator) {
      parts.push_back(part);
      part.clear();
    } else if (c != ' ' || (!part.empty() && part.back() != ' ')) {
      part += c;
    }
  }
  parts.push_back(part);
  for (std::string& one : parts)
    while (!one.empty() && one.back() == ' ') one.pop_back();
  return parts;
}

std::vector<TensorPattern> parse_tensors(std::string_view text) {
  std::vector<TensorPattern> tensors;
  for (std::size_t at = text.find('['); at != std::string_view::npos; at = text.find('[', at)) {
    const std::size_t end = text.find(']', at);
    COX_ENSURE(end != std::string_view::npos, "a bracket is open");
    TensorPattern pattern;
    for (const std::string& word : split(text.substr(at + 1, end - at - 1), ' ')) {
      if (word.empty()) continue;
      const bool group = word.size() > 2 && word.ends_with("..");
      pattern.tokens.push_back({group ? word.substr(0, word.size() - 2) : word, group});
    }
    for (at = end + 1; at < text.size() && (text[at] == '?' || text[at] == '~'); ++at)
      if (text[at] == '~') pattern.leading_may_miss = true;
    tensors.push_back(std::move(pattern));
  }
  return tensors;
}

void parse_factor_clause(Notation& notation, const std::string& word, const std::string& rest) {
  for (const std::string& item : split(rest, ',')) {
    Clause clause;
    clause.kind = word == "max" ? FactorKind::Max : word == "whole" ? FactorKind::Whole : FactorKind::Sum;
    std::string name = item;
    if (word == "scaled") clause.form = PartForm::Scaled;
    if (word == "offset") clause = {FactorKind::Free, PartForm::Plain, "", true};
    if (word == "masked") {
      const std::size_t by = item.find(" by ");
      COX_ENSURE(by != std::string::npos, "masked without its index: ", rest);
      clause = {FactorKind::Sum, PartForm::Masked, item.substr(by + 4), true};
      name = item.substr(0, by);
    }
    notation.factors[name] = clause;
  }
}

void parse_clause(Notation& notation, const std::string& text) {
  const std::size_t space = text.find(' ');
  COX_ENSURE(space != std::string::npos, "clause without names: ", text);
  const std::string word = text.substr(0, space), rest = text.substr(space + 1);
  if (word == "add") {
    notation.added = split(rest, ',');
  } else if (word == "linear") {
    for (const std::string& group : split(rest, ',')) notation.linear.push_back(split(group, '+'));
  } else {
    COX_ENSURE(
        word == "sum" || word == "max" || word == "whole" || word == "scaled" || word == "masked" || word == "offset",
        "unknown clause: ", text);
    parse_factor_clause(notation, word, rest);
  }
}

std::string base_of(std::string name) {
  while (name.size() > 1 && name.back() >= '0' && name.back() <= '9') name.pop_back();
  return name;
}

}  // namespace

Notation parse_notation(std::string_view text) {
  Notation notation;
  const std::vector<std::string> parts = split(text, ';');
  const std::size_t arrow = parts[0].find("->");
  COX_ENSURE(arrow != std::string::npos, "no arrow: ", text);
  notation.inputs = parse_tensors(parts[0].substr(0, arrow));
  notation.outputs = parse_tensors(parts[0].substr(arrow));
  for (std::size_t i = 1; i < parts.size(); ++i) parse_clause(notation, parts[i]);
  return notation;
}

Assembly::Assembly(const OpReader& op, const ShardRule& rule) : op_(op), notation_(parse_notation(rule.notation)) {
  for (const OpReader::Tensor& tensor : op.inputs())
    result_.inputs.push_back({tensor.argument, tensor.element, tensor.value, {}, false});
  for (const OpReader::Tensor& tensor : op.outputs())
    result_.outputs.push_back({tensor.argument, tensor.element, tensor.value, {}, false});
}

std::vector<int> Assembly::factor(const std::string& name, std::int64_t size) {
  if (size == 1) return {};
  Factor factor{name, size, FactorKind::Free, PartForm::Plain, -1, false};
  auto clause = notation_.factors.find(name);
  if (clause == notation_.factors.end()) clause = notation_.factors.find(base_of(name));
  if (clause != notation_.factors.end()) {
    factor.kind = clause->second.kind;
    factor.form = clause->second.form;
    factor.contiguous = clause->second.contiguous;
    if (!clause->second.index.empty()) factor.index = op_.input(clause->second.index);
  }
  result_.factors.push_back(std::move(factor));
  return {static_cast<int>(result_.factors.size()) - 1};
}

std::vector<int> Assembly::whole(const std::string& name, std::int64_t size) {
  if (size == 1) return {};
  result_.factors.push_back({name, size, FactorKind::Whole, PartForm::Plain, -1, false});
  return {static_cast<int>(result_.factors.size()) - 1};
}

void Assembly::set_input(int input, std::vector<std::vector<int>> dims) {
  if (input >= 0) result_.inputs[static_cast<std::size_t>(input)].dims = std::move(dims);
}

void Assembly::set_outputs(const std::vector<std::vector<int>>& dims, int output) {
  for (TensorFactors& tensor : result_.outputs)
    if (output < 0 || tensor.argument == output) tensor.dims = dims;
}

void Assembly::set_whole_input(int input, const std::string& name) {
  if (input < 0) return;
  std::vector<std::vector<int>> dims;
  for (const std::int64_t one : op_.sizes(input)) dims.push_back(whole(name + std::to_string(dims.size()), one));
  set_input(input, std::move(dims));
}

void Assembly::add_rewrite(Rewrite rewrite) { result_.rewrites.push_back(std::move(rewrite)); }

void Assembly::follow(std::string_view argument, int element, const std::vector<int>& factors,
                      std::int64_t coefficient) {
  const int position = op_.position(argument);
  if (position >= 0) add_rewrite({position, element, 0, coefficient, factors, Rewrite::From::Size});
}

void Assembly::follow_dims(std::string_view argument, const std::vector<std::vector<int>>& dims, std::size_t first) {
  for (std::size_t d = first; d < dims.size(); ++d) follow(argument, static_cast<int>(d - first), dims[d]);
}

void Assembly::add_linear(std::vector<int> inputs) { result_.linear.push_back(std::move(inputs)); }

std::int64_t Assembly::size(const std::vector<int>& factors) const {
  std::int64_t product = 1;
  for (const int factor : factors) product *= result_.factors[static_cast<std::size_t>(factor)].size;
  return product;
}

// A group holds where everything in it, and every output, is a floating-point tensor; what is absent adds nothing.
void Assembly::apply_linear() {
  for (const std::vector<std::string>& names : notation_.linear) {
    std::vector<int> group;
    bool holds = true;
    for (const std::string& name : names) {
      const std::vector<int> inputs = op_.input_list(name);
      if (inputs.empty() && !op_.is_none(name)) holds = false;
      group.insert(group.end(), inputs.begin(), inputs.end());
    }
    for (const int input : group)
      holds = holds && input >= 0 && op_.is_floating(op_.inputs()[static_cast<std::size_t>(input)]);
    if (holds && !group.empty()) add_linear(std::move(group));
  }
  const bool floating = std::all_of(op_.outputs().begin(), op_.outputs().end(),
                                    [&](const OpReader::Tensor& tensor) { return op_.is_floating(tensor); });
  if (!floating) result_.linear.clear();
}

bool Assembly::fits() const {
  const auto all = [&](const std::vector<OpReader::Tensor>& tensors, const std::vector<TensorFactors>& named) {
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      if (tensors[t].sizes.size() != named[t].dims.size()) return false;
      for (std::size_t d = 0; d < named[t].dims.size(); ++d)
        if (size(named[t].dims[d]) != tensors[t].sizes[d] || tensors[t].sizes[d] == 0) return false;
    }
    return true;
  };
  return all(op_.inputs(), result_.inputs) && all(op_.outputs(), result_.outputs);
}

std::optional<OpFactors> Assembly::finish() {
  apply_linear();
  for (const std::string& name : notation_.added)
    for (const int input : op_.input_list(name))
      if (input >= 0) result_.inputs[static_cast<std::size_t>(input)].added = true;
  if (!fits()) return std::nullopt;
  return std::move(result_);
}

std::vector<std::vector<int>> name_dims(Assembly& assembly, const std::string& name, const Sizes& sizes) {
  std::vector<std::vector<int>> dims;
  for (const std::int64_t size : sizes) dims.push_back(assembly.factor(name + std::to_string(dims.size()), size));
  return dims;
}

namespace {

// Binds patterns to tensors: first the size of each name, then each dim's factor.
class Binder {
 public:
  Binder(Assembly& assembly) : assembly_(assembly) {}

  // Names of the tensor's dims; absent where the rank does not fit.
  [[nodiscard]] bool measure(const TensorPattern& pattern, const Sizes& sizes) {
    const auto groups =
        std::count_if(pattern.tokens.begin(), pattern.tokens.end(), [](const Token& t) { return t.group; });
    const std::size_t fixed = pattern.tokens.size() - static_cast<std::size_t>(groups);
    if (groups > 1 || (groups == 0 && sizes.size() > fixed)) return false;
    if (sizes.size() < fixed && !(pattern.leading_may_miss && groups == 0)) return false;
    std::vector<std::string> names;
    std::size_t skipped = groups == 0 ? fixed - sizes.size() : 0;
    for (const Token& token : pattern.tokens) {
      if (skipped > 0) {
        --skipped;
      } else if (!token.group) {
        names.push_back(token.name);
      } else {
        const std::size_t count = sizes.size() - fixed;
        std::size_t& longest = lengths_[token.name];
        longest = std::max(longest, count);
        for (std::size_t i = 0; i < count; ++i) names.push_back(token.name + ">" + std::to_string(count - 1 - i));
      }
    }
    for (std::size_t d = 0; d < names.size(); ++d) {
      if (std::count(names.begin(), names.end(), names[d]) > 1) return false;
      std::int64_t& size = sizes_.try_emplace(names[d], sizes[d]).first->second;
      if (size != sizes[d] && size != 1 && sizes[d] != 1) return false;
      size = std::max(size, sizes[d]);
    }
    names_.push_back(std::move(names));
    return true;
  }

  [[nodiscard]] std::vector<std::vector<int>> dims(std::size_t tensor, const Sizes& sizes) {
    std::vector<std::vector<int>> dims;
    for (std::size_t d = 0; d < sizes.size(); ++d) {
      const std::string& name = names_[tensor][d];
      dims.push_back(sizes[d] == sizes_[name] ? factor(name) : std::vector<int>{});
    }
    return dims;
  }

 private:
  // "b>0" is the last of the group b.
  std::vector<int> factor(const std::string& name) {
    const auto found = factors_.find(name);
    if (found != factors_.end()) return found->second;
    std::string shown = name;
    if (const std::size_t mark = name.find('>'); mark != std::string::npos) {
      const std::string group = name.substr(0, mark);
      shown = group + std::to_string(lengths_[group] - 1 - std::stoul(name.substr(mark + 1)));
    }
    return factors_[name] = assembly_.factor(shown, sizes_[name]);
  }

  Assembly& assembly_;
  std::map<std::string, std::size_t> lengths_;
  std::map<std::string, std::int64_t> sizes_;
  std::map<std::string, std::vector<int>> factors_;
  std::vector<std::vector<std::string>> names_;
};

// Number of the pattern of each input: tensors of the schema, in order.
std::vector<int> pattern_of_inputs(const OpReader& op) {
  std::vector<int> patterns(op.inputs().size(), -1);
  const model::OperatorSchema* schema = model::find_schema(op.target());
  if (schema == nullptr) return patterns;
  int next = 0;
  for (const model::SchemaArgument& argument : schema->arguments) {
    if (argument.kind != model::SchemaKind::Tensor) continue;
    for (const int input : op.input_list(argument.name))
      if (input >= 0) patterns[static_cast<std::size_t>(input)] = next;
    ++next;
  }
  return patterns;
}

std::optional<OpFactors> bind_patterns(Assembly& assembly, const std::vector<TensorPattern>& inputs,
                                       const std::vector<TensorPattern>& outputs, const std::vector<int>& pattern) {
  const OpReader& op = assembly.op();
  Binder binder(assembly);
  for (std::size_t i = 0; i < op.inputs().size(); ++i) {
    if (pattern[i] < 0 || static_cast<std::size_t>(pattern[i]) >= inputs.size()) return std::nullopt;
    if (!binder.measure(inputs[static_cast<std::size_t>(pattern[i])], op.inputs()[i].sizes)) return std::nullopt;
  }
  for (const OpReader::Tensor& output : op.outputs()) {
    if (static_cast<std::size_t>(output.argument) >= outputs.size()) return std::nullopt;
    if (!binder.measure(outputs[static_cast<std::size_t>(output.argument)], output.sizes)) return std::nullopt;
  }
  const std::size_t count = op.inputs().size();
  for (std::size_t i = 0; i < count; ++i) assembly.set_input(static_cast<int>(i), binder.dims(i, op.inputs()[i].sizes));
  for (std::size_t i = 0; i < op.outputs().size(); ++i)
    assembly.set_outputs(binder.dims(count + i, op.outputs()[i].sizes), op.outputs()[i].argument);
  return assembly.finish();
}

}  // namespace

std::optional<OpFactors> bind_notation(const OpReader& op, const ShardRule& rule, std::string_view tensors) {
  Assembly assembly(op, rule);
  const Notation shape = parse_notation(tensors);
  return bind_patterns(assembly, shape.inputs, shape.outputs, pattern_of_inputs(op));
}

std::optional<OpFactors> bind_notation(const OpReader& op, const ShardRule& rule) {
  return bind_notation(op, rule, rule.notation);
}

std::optional<OpFactors> bind_pointwise(const OpReader& op, const ShardRule& rule) {
  Assembly assembly(op, rule);
  const TensorPattern all{{{"d", true}}, false};
  std::size_t outputs = 1;
  for (const OpReader::Tensor& output : op.outputs())
    outputs = std::max(outputs, static_cast<std::size_t>(output.argument) + 1);
  return bind_patterns(assembly, {all}, std::vector<TensorPattern>(outputs, all),
                       std::vector<int>(op.inputs().size(), 0));
}

}  // namespace coxswain::plan
