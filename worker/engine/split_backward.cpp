#include "worker/engine/split_backward.h"

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

namespace coxswain::worker {
namespace {

using torch::autograd::Edge;
using torch::autograd::edge_list;
using torch::autograd::Node;
using torch::autograd::variable_list;
using NodePointer = c10::intrusive_ptr<Node>;

// I keeps the graph, for W's sake; a node that W does not visit gives up what it saved as soon as it has run.
struct ReleaseAfterUse final : torch::autograd::FunctionPostHook {
  Node* node;  // owns this hook
  explicit ReleaseAfterUse(Node* owner) : node(owner) {}
  variable_list operator()(const variable_list& outputs, const variable_list&) override {
    node->release_variables();
    return outputs;
  }
};

// Where a node leads to.
struct Reach {
  bool input = false, parameter = false;
};

// Each node below `roots` once, after everything below it.
std::vector<NodePointer> nodes_below(const edge_list& roots) {
  std::vector<NodePointer> nodes;
  std::unordered_set<const Node*> seen;
  const auto add = [&](const Edge& edge) {
    if (edge.is_valid() && seen.insert(edge.function.get()).second) nodes.push_back(edge.function);
  };
  for (const Edge& root : roots) add(root);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const NodePointer node = nodes[i];
    for (const Edge& next : node->next_edges()) add(next);
  }
  std::stable_sort(nodes.begin(), nodes.end(), [](const NodePointer& a, const NodePointer& b) {
    return a->topological_nr() < b->topological_nr();
  });
  return nodes;
}

variable_list execute(const edge_list& roots, const variable_list& gradients, bool keep_graph,
                      const edge_list& targets) {
  if (roots.empty() || targets.empty()) return variable_list(targets.size());
  return torch::autograd::Engine::get_default_engine().execute(roots, gradients, keep_graph, /*create_graph=*/false,
                                                               /*accumulate_grad=*/false, targets);
}

}  // namespace

variable_list run_input_half(edge_list roots, variable_list gradients, const edge_list& inputs,
                             const edge_list& parameters, WeightWork& work) {
  std::unordered_map<const Node*, Reach> reach;
  for (const Edge& edge : inputs) reach[edge.function.get()].input = true;
  for (const Edge& edge : parameters) reach[edge.function.get()].parameter = true;
  edge_list targets = inputs;
  std::vector<NodePointer> shared;  // on the way to inputs, and above an edge to parameters alone
  for (const NodePointer& node : nodes_below(roots)) {
    Reach& here = reach[node.get()];
    bool has_own_parameters = false;
    for (const Edge& next : node->next_edges()) {
      if (!next.is_valid()) continue;
      const Reach& below = reach[next.function.get()];
      here.input = here.input || below.input;
      here.parameter = here.parameter || below.parameter;
      has_own_parameters = has_own_parameters || (below.parameter && !below.input);
    }
    if (!here.input) continue;
    if (has_own_parameters) {
      for (std::uint32_t i = 0; i < node->num_inputs(); ++i) targets.emplace_back(node, i);
      shared.push_back(node);
    } else {
      node->will_release_variables();
      node->add_post_hook(std::make_unique<ReleaseAfterUse>(node.get()));
    }
  }
  edge_list on_the_way;
  variable_list arriving;
  for (std::size_t i = 0; i < roots.size(); ++i) {
    const Reach& below = reach[roots[i].function.get()];
    if (below.input) {
      on_the_way.push_back(std::move(roots[i]));
      arriving.push_back(std::move(gradients[i]));
    } else if (below.parameter) {
      work.roots.push_back(std::move(roots[i]));
      work.gradients.push_back(std::move(gradients[i]));
    }
  }
  variable_list results = execute(on_the_way, arriving, /*keep_graph=*/true, targets);
  for (std::size_t i = inputs.size(); i < targets.size(); ++i) {
    if (!results[i].defined()) continue;
    work.roots.push_back(std::move(targets[i]));
    work.gradients.push_back(std::move(results[i]));
  }
  results.resize(inputs.size());
  for (const NodePointer& node : shared)
    for (Edge& next : node->next_edges())
      if (next.is_valid() && reach[next.function.get()].input) next = Edge();
  return results;
}

variable_list run_weight_half(WeightWork work, const edge_list& parameters) {
  return execute(work.roots, work.gradients, /*keep_graph=*/false, parameters);
}

}  // namespace coxswain::worker
