// Canonical text of operators, and the hashes made of it: block signatures (values renumbered in order of appearance)
// and the hash of the whole graph (value ids as they are).
#include "common/hash.h"

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "common/json.h"
#include "model/finish_parts.h"
#include "model/op_values.h"

namespace coxswain::model {
namespace {

constexpr std::size_t kSignatureDigits = 16;

std::string number_text(double value) {
  // The shortest digits that read back as `value`; infinities (masks) have no JSON form.
  if (value != value) return "nan";
  if (value > 1.7976931348623157e308) return "inf";
  if (value < -1.7976931348623157e308) return "-inf";
  return to_text(Json(value));
}

void append_type(const Value& value, std::string& text) {
  for (const Dim& dim : value.dims) {
    text += dim.is_constant() ? std::to_string(dim.constant()) : dim.to_text();
    text += ',';
  }
  text += to_text(value.dtype);
  if (value.requires_grad) text += '*';
}

/// Writes one operator; `write_value` writes a value's number (and what is known of it the first time).
template <class WriteValue>
void append_op(const Op& op, WriteValue&& write_value, std::string& text) {
  text += op.target;
  text += '(';
  for (const Argument& argument : op.arguments) {
    text += argument.name;
    text += '=';
    std::visit(
        [&](const auto& value) {
          using T = std::decay_t<decltype(value)>;
          const auto list = [&](const auto& elements, auto&& write) {
            text += '[';
            for (const auto& element : elements) {
              write(element);
              text += ',';
            }
            text += ']';
          };
          if constexpr (std::is_same_v<T, None>) {
            text += "none";
          } else if constexpr (std::is_same_v<T, Ignored>) {
            text += '_';
          } else if constexpr (std::is_same_v<T, ValueRef>) {
            write_value(value.id);
          } else if constexpr (std::is_same_v<T, std::vector<std::optional<ValueRef>>>) {
            list(value, [&](const std::optional<ValueRef>& element) {
              element ? write_value(element->id) : void(text += "none");
            });
          } else if constexpr (std::is_same_v<T, Dim>) {
            text += value.to_text();
          } else if constexpr (std::is_same_v<T, std::vector<Dim>>) {
            list(value, [&](const Dim& dim) { text += dim.to_text(); });
          } else if constexpr (std::is_same_v<T, double>) {
            text += number_text(value);
          } else if constexpr (std::is_same_v<T, std::vector<double>>) {
            list(value, [&](double element) { text += number_text(element); });
          } else if constexpr (std::is_same_v<T, bool>) {
            text += value ? "true" : "false";
          } else if constexpr (std::is_same_v<T, std::vector<bool>>) {
            list(value, [&](bool element) { text += element ? "true" : "false"; });
          } else if constexpr (std::is_same_v<T, std::string>) {
            text += to_text(Json(value));
          } else {
            text += to_text(value);
          }
        },
        argument.value);
    text += ';';
  }
  text += op.grad_enabled ? ")->" : ")->nograd ";
  for (const ValueId output : op.outputs) {
    output < 0 ? void(text += '-') : write_value(output);
    text += ' ';
  }
  text += '\n';
}

}  // namespace

void sign_blocks(ModelGraph& graph) {
  std::vector<char> kind(graph.values.size(), 'v');
  for (const Parameter& parameter : graph.parameters) kind[parameter.value] = parameter.trainable ? 'p' : 'f';
  for (const Buffer& buffer : graph.buffers) kind[buffer.value] = 'b';
  for (const Input& input : graph.inputs) kind[input.value] = 'i';
  std::vector<char> parameter_seen(graph.values.size(), 0);
  const auto live = live_at_cuts(graph);

  std::vector<int> number(graph.values.size(), -1);
  for (std::size_t b = 0; b < graph.blocks.size(); ++b) {
    Block& block = graph.blocks[b];
    std::string text;
    std::vector<ValueId> numbered;
    const auto write_value = [&](ValueId value) {
      if (number[value] >= 0) {
        text += std::to_string(number[value]);
        return;
      }
      number[value] = static_cast<int>(numbered.size());
      numbered.push_back(value);
      const OpId producer = graph.values[value].producer;
      const bool outside = producer < block.first_op || producer >= block.end_op;
      text += std::to_string(number[value]);
      text += outside ? kind[value] : 'm';
      // A tied parameter that an earlier block owns is no memory of this one.
      if (kind[value] == 'p' && std::exchange(parameter_seen[value], 1) != 0) text += '!';
      text += '{';
      append_type(graph.values[value], text);
      text += '}';
    };
    for (OpId op = block.first_op; op < block.end_op; ++op) append_op(graph.ops[op], write_value, text);
    for (const std::size_t cut : {b, b + 1}) {
      text += cut == b ? "receives " : "sends ";
      for (const ValueId value : live[cut]) {
        append_type(graph.values[value], text);
        text += ' ';
      }
    }
    block.signature = sha256_hex(text).substr(0, kSignatureDigits);
    for (const ValueId value : numbered) number[value] = -1;
  }
}

std::string model_hash(const ModelGraph& graph) {
  std::string text = "coxswain model 1\n" + graph.batch_symbol + " " + std::to_string(graph.static_batch) + "\n";
  // Ids in order of appearance, so that dead values and the order of tables do not matter.
  std::vector<int> number(graph.values.size(), -1);
  int next = 0;
  const auto write_value = [&](ValueId value) {
    if (number[value] < 0) {
      number[value] = next++;
      text += std::to_string(number[value]) + "{";
      append_type(graph.values[value], text);
      text += '}';
    } else {
      text += std::to_string(number[value]);
    }
  };
  for (const Input& input : graph.inputs) {
    text += "input " + input.name + " " + std::to_string(input.sample_dim) + " ";
    write_value(input.value);
    text += '\n';
  }
  for (const Parameter& parameter : graph.parameters) {
    text += (parameter.trainable ? "parameter " : "frozen ") + parameter.name + " ";
    for (const std::string& name : parameter.tied_names) text += "= " + name + " ";
    write_value(parameter.value);
    text += '\n';
  }
  for (const Buffer& buffer : graph.buffers) {
    text += "buffer " + buffer.name + " ";
    write_value(buffer.value);
    if (buffer.content)
      for (const double element : *buffer.content) text += " " + number_text(element);
    text += '\n';
  }
  for (const Op& op : graph.ops) append_op(op, write_value, text);
  for (const LossTerm& term : graph.loss) {
    text += "loss " + number_text(term.coefficient) + " ";
    write_value(term.numerator);
    if (term.denominator) {
      text += " / ";
      write_value(*term.denominator);
    }
    text += '\n';
  }
  for (const Block& block : graph.blocks)
    text += "block " + block.name + " " + std::to_string(block.first_op) + " " + std::to_string(block.end_op) + "\n";
  return sha256_hex(text);
}

}  // namespace coxswain::model
