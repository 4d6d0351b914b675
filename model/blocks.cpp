// Cut candidates from module paths. In a transformer the operators arrive as
//   embed | h.0 ... | h.1 ... | h.2 ... | norm head loss
// and each numbered child becomes a block. Operators that no parameter influences (masks, rotary tables, shifted
// labels) stand where tracing met them; they move to the one block that needs them, or to the prologue when several do,
// so that a stage can pick and recompute just those it needs.
#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "model/finish_parts.h"
#include "model/op_values.h"

namespace coxswain::model {
namespace {

bool is_number(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

/// Ends of the numbered components of a path: "model.layers.3.mlp" -> {(12 = start of "3", 14 = its end)}.
struct NumberedComponent {
  std::size_t begin, end;
};
std::vector<NumberedComponent> numbered_components(std::string_view path) {
  std::vector<NumberedComponent> found;
  for (std::size_t begin = 0; begin < path.size();) {
    std::size_t end = path.find('.', begin);
    if (end == std::string_view::npos) end = path.size();
    if (is_number(path.substr(begin, end - begin))) found.push_back({begin, end});
    begin = end + 1;
  }
  return found;
}

bool depends_on_parameter(const ModelGraph& graph, const Op& op) {
  return std::any_of(op.outputs.begin(), op.outputs.end(),
                     [&](ValueId value) { return value >= 0 && graph.values[value].depends_on_parameter; });
}

/// The outermost module that has several numbered children decides; with one child each, the outermost of them.
class PathBlocks {
 public:
  PathBlocks(const ModelGraph& graph, const std::vector<char>& dependent) {
    for (std::size_t i = 0; i < graph.ops.size(); ++i) {
      if (dependent[i] == 0) continue;
      const std::string& path = graph.ops[i].module_path;
      for (const NumberedComponent part : numbered_components(path))
        children_[path.substr(0, part.begin)].insert(path.substr(part.begin, part.end - part.begin));
    }
  }

  [[nodiscard]] std::string block_name(const std::string& path) const {
    const std::vector<NumberedComponent> parts = numbered_components(path);
    for (const NumberedComponent part : parts) {
      const auto found = children_.find(path.substr(0, part.begin));
      if (found != children_.end() && found->second.size() > 1) return path.substr(0, part.end);
    }
    return parts.empty() ? std::string() : path.substr(0, parts.front().end);
  }

 private:
  std::map<std::string, std::set<std::string>> children_;
};

constexpr int kUnassigned = -1;

/// Block index of each parameter-dependent operator; names of the numbered blocks in order. False: they interleave.
bool place_dependent_ops(const ModelGraph& graph, const std::vector<char>& dependent, std::vector<int>& block,
                         std::vector<std::string>& names) {
  const PathBlocks paths(graph, dependent);
  std::set<std::string> seen;
  std::size_t last_named = 0;
  for (std::size_t i = 0; i < graph.ops.size(); ++i) {
    if (dependent[i] == 0) continue;
    const std::string name = paths.block_name(graph.ops[i].module_path);
    if (!name.empty()) {
      if (names.empty() || names.back() != name) {
        if (!seen.insert(name).second) return false;
        names.push_back(name);
      }
      last_named = i;
    }
    block[i] = static_cast<int>(names.size());  // 0 before the first; what stands between two blocks joins the earlier
  }
  for (std::size_t i = last_named + 1; i < graph.ops.size(); ++i)
    if (dependent[i] != 0) block[i] = static_cast<int>(names.size()) + 1;
  return true;
}

/// Backwards, so that a chain of parameter-free operators follows its last consumer.
void place_free_ops(const ModelGraph& graph, int epilogue, std::vector<int>& block) {
  std::vector<int> needed_in(graph.values.size(), kUnassigned);
  const auto need = [&](ValueId value, int where) {
    int& current = needed_in[value];
    current = current == kUnassigned || current == where ? where : 0;
  };
  for (const LossTerm& term : graph.loss) {
    if (term.denominator) need(*term.denominator, epilogue);
    need(term.numerator, epilogue);
  }
  for (std::size_t i = graph.ops.size(); i-- > 0;) {
    if (block[i] == kUnassigned) {
      for (const ValueId output : graph.ops[i].outputs) {
        if (output < 0 || needed_in[output] == kUnassigned) continue;
        block[i] = block[i] == kUnassigned || block[i] == needed_in[output] ? needed_in[output] : 0;
      }
    }
    for_each_input(graph.ops[i], [&](ValueId value) { need(value, block[i]); });
  }
}

}  // namespace

void assign_blocks(ModelGraph& graph) {
  std::vector<char> dependent(graph.ops.size(), 0);
  for (std::size_t i = 0; i < graph.ops.size(); ++i) dependent[i] = depends_on_parameter(graph, graph.ops[i]) ? 1 : 0;

  std::vector<int> block(graph.ops.size(), kUnassigned);
  std::vector<std::string> names;
  const bool ordered = place_dependent_ops(graph, dependent, block, names);
  if (!ordered || names.empty()) {
    graph.notes.push_back(ordered ? "no numbered modules: the model is one block and cannot be cut into stages"
                                  : "the numbered modules are used in interleaved order: the model is one block and "
                                    "cannot be cut into stages");
    graph.blocks = {Block{"model", 0, static_cast<OpId>(graph.ops.size()), ""}};
    return;
  }
  const int epilogue = static_cast<int>(names.size()) + 1;
  place_free_ops(graph, epilogue, block);

  std::vector<std::size_t> order(graph.ops.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return block[a] < block[b]; });
  std::vector<Op> ops;
  ops.reserve(order.size());
  std::vector<int> sizes(static_cast<std::size_t>(epilogue) + 1, 0);
  for (const std::size_t i : order) {
    ++sizes[static_cast<std::size_t>(block[i])];
    ops.push_back(std::move(graph.ops[i]));
  }
  graph.ops = std::move(ops);

  graph.blocks.clear();
  OpId first = 0;
  for (int b = 0; b <= epilogue; ++b) {
    const std::string name = b == 0 ? "prologue" : b == epilogue ? "epilogue" : names[static_cast<std::size_t>(b) - 1];
    graph.blocks.push_back({name, first, first + sizes[static_cast<std::size_t>(b)], ""});
    first = graph.blocks.back().end_op;
  }
}

}  // namespace coxswain::model
