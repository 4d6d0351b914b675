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

/// A split of the graph below `roots`.
class Cut {
 public:
  Cut(const edge_list& roots, const edge_list& inputs, const edge_list& parameters) : nodes_(nodes_below(roots)) {
    for (const Edge& edge : inputs) reach_[edge.function.get()].input = true;
    for (const Edge& edge : parameters) reach_[edge.function.get()].parameter = true;
    for (const NodePointer& node : nodes_) {
      Reach& here = reach_[node.get()];
      for (const Edge& next : node->next_edges()) {
        if (!next.is_valid()) continue;
        const Reach& below = reach_[next.function.get()];
        here.input = here.input || below.input;
        here.parameter = here.parameter || below.parameter;
      }
    }
    find_early(parameters);
  }

  [[nodiscard]] const std::vector<NodePointer>& nodes() const { return nodes_; }
  [[nodiscard]] Reach reach(const Edge& edge) const {
    const auto found = reach_.find(edge.function.get());
    return found == reach_.end() ? Reach{} : found->second;
  }
  [[nodiscard]] bool leads_to_input(const NodePointer& node) const { return reach_.at(node.get()).input; }
  /// A parameter whose gradient I gives.
  [[nodiscard]] bool is_early(const Edge& edge) const { return early_.count(edge.function.get()) != 0; }
  /// On the way to inputs, and above an edge to parameters that wait for W.
  [[nodiscard]] bool is_shared(const NodePointer& node) const {
    return leads_to_input(node) && has_own(node, [&](const Edge& edge) { return !is_early(edge); });
  }

 private:
  // Of one dim, and used only by nodes on the way to inputs that have no other parameters of their own.
  void find_early(const edge_list& parameters) {
    std::unordered_set<const Node*> narrow;
    for (const Edge& edge : parameters)
      if (edge.function->input_metadata(edge.input_nr).shape_as_dim_vector().size() < 2)
        narrow.insert(edge.function.get());
    early_ = narrow;
    const auto is_wide = [&](const Edge& edge) { return narrow.count(edge.function.get()) == 0; };
    for (const NodePointer& node : nodes_) {
      if (leads_to_input(node) && !has_own(node, is_wide)) continue;
      for (const Edge& next : node->next_edges())
        if (next.is_valid()) early_.erase(next.function.get());
    }
  }

  template <class Counts>
  [[nodiscard]] bool has_own(const NodePointer& node, Counts&& counts) const {
    return std::any_of(node->next_edges().begin(), node->next_edges().end(), [&](const Edge& next) {
      if (!next.is_valid()) return false;
      const Reach below = reach(next);
      return below.parameter && !below.input && counts(next);
    });
  }

  std::vector<NodePointer> nodes_;
  std::unordered_map<const Node*, Reach> reach_;
  std::unordered_set<const Node*> early_;
};

}  // namespace

variable_list run_input_half(edge_list roots, variable_list gradients, const edge_list& inputs,
                             const edge_list& parameters, WeightWork& work) {
  const Cut cut(roots, inputs, parameters);
  edge_list targets = inputs;
  std::vector<std::size_t> early;  // parameters
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    if (!cut.is_early(parameters[p])) continue;
    early.push_back(p);
    targets.push_back(parameters[p]);
  }
  const std::size_t num_asked = targets.size();
  std::vector<NodePointer> shared;
  for (const NodePointer& node : cut.nodes()) {
    if (!cut.leads_to_input(node)) continue;
    if (cut.is_shared(node)) {
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
    const Reach below = cut.reach(roots[i]);
    if (below.input) {
      on_the_way.push_back(std::move(roots[i]));
      arriving.push_back(std::move(gradients[i]));
    } else if (below.parameter) {
      work.roots.push_back(std::move(roots[i]));
      work.gradients.push_back(std::move(gradients[i]));
    }
  }
  variable_list results = execute(on_the_way, arriving, /*keep_graph=*/true, targets);
  for (std::size_t i = num_asked; i < targets.size(); ++i) {
    if (!results[i].defined()) continue;
    work.roots.push_back(std::move(targets[i]));
    work.gradients.push_back(std::move(results[i]));
  }
  for (const NodePointer& node : shared)
    for (Edge& next : node->next_edges())
      if (next.is_valid() && cut.reach(next).input) next = Edge();
  variable_list of_parameters(parameters.size());
  for (std::size_t e = 0; e < early.size(); ++e) of_parameters[early[e]] = std::move(results[inputs.size() + e]);
  results.resize(inputs.size());
  results.insert(results.end(), of_parameters.begin(), of_parameters.end());
  return results;
}

variable_list run_weight_half(WeightWork work, const edge_list& parameters) {
  return execute(work.roots, work.gradients, /*keep_graph=*/false, parameters);
}

}  // namespace coxswain::worker
