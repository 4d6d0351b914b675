#pragma once
// What the backward of an ATen operator keeps, by name: one list for memory estimates and for sharding rules, where a
// kept tensor has the placement of the tensor that it is. Called by plan/rules. Threads: constant data. Source:
// docs/cost_model.md, C3; PyTorch 2.13, tools/autograd/derivatives.yaml.
#include <optional>
#include <span>
#include <string_view>

namespace coxswain::model {

/// "Argument `value` (or output 0, 1 as "out", "out1") is kept when argument `when` requires a gradient"; empty:
/// always.
struct Saved {
  std::string_view value;
  std::string_view when = "";
};

/// What `target` ("aten::linear", "aten::sum.dim_IntList") keeps; absent: unknown, every floating-point input may be.
[[nodiscard]] std::optional<std::span<const Saved>> saved_arguments(std::string_view target);

}  // namespace coxswain::model
