#pragma once
// Finds the forms of all values of one run of blocks over one step of the mesh: the least of the parameter bytes that
// stay whole, then the least nominal time of work and transitions, by dynamic programming over the operators in order.
// A state is the forms in which each live value is at hand: one transition serves all later readers, and what is
// gathered for one projection is there for the next. Private to plan/layout. Threads: pure. Source: docs/layout.md.
#include <map>
#include <vector>

#include "plan/layout/choices.h"

namespace coxswain::plan {

/// Ordered: bytes of weights (two dims and more) that every member holds whole, then seconds.
struct LayoutCost {
  double whole_parameter_bytes = 0, seconds = 0;
  friend auto operator<=>(const LayoutCost&, const LayoutCost&) = default;
};

struct RunLayout {
  std::map<model::OpId, Choice> chosen;
  LayoutCost cost;
};

/// `stored`: the form of every trainable parameter that an earlier run of the stage has placed; completed.
/// Requires: choices of list_choices for the same graph, run and step.
[[nodiscard]] RunLayout find_layout(const model::ModelGraph& graph, const BlockRun& run, const MeshStep& step,
                                    const std::map<model::OpId, OpChoices>& choices,
                                    std::map<model::ValueId, Form>& stored);

/// From a form at hand to one that is wanted, or nothing: seconds, forward and, where there is a gradient, back.
[[nodiscard]] std::optional<double> transition_seconds(const Form& from, const Form& to, double bytes,
                                                       bool has_gradient, const MeshStep& step);

/// Forms at hand of the values that live in a run, as transitions and operators go on. The search and the rewriting
/// walk through the same one.
class FormTable {
 public:
  FormTable(const model::ModelGraph& graph, const MeshStep& step) : graph_(graph), step_(step) {}

  struct Step {
    model::ValueId value = -1;
    Form from, to;
  };
  using AtHand = std::vector<Form>;

  /// The cheapest transition by which `value` comes to be at hand as `wanted`; nothing where it is already, or where
  /// there is none (then `found` is false).
  [[nodiscard]] std::optional<Step> step_to(model::ValueId value, const AtHand& at_hand, const Form& wanted,
                                            double& seconds, bool& found) const;

 private:
  const model::ModelGraph& graph_;
  const MeshStep step_;
};

}  // namespace coxswain::plan
