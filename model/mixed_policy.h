#pragma once
// Mixed precision as data: for each ATen operator the dtype that it computes in under `precision: bfloat16` or
// `float16`. Operators that no parameter influences (positions, masks, rotary tables) are outside of it: they run as
// they were exported.
// Called by worker/engine (lowering) and widths, so that what is costed is what is run. Threads: pure. Source:
// docs/plan.md#mixed-precision.
#include <string_view>

namespace coxswain::model {

enum class ComputeRule {
  AsStored,        // nothing is cast: float32 training, and what no parameter influences
  Narrow,          // inputs are cast to the 16-bit dtype
  Float32,         // inputs are cast to float32, the result stays float32
  Float32Rounded,  // as Float32, and the result is rounded to 16 bits
  Float32Inside,   // the kernel takes 16 bits and computes in float32; parameters come in float32
  Follow,          // the widest of the inputs that parameters influence; the other inputs are cast to it
};

/// By name, whatever the overload: "aten::linear", "aten::sum.dim_IntList". Follow for what the table does not name.
[[nodiscard]] ComputeRule compute_rule_of(std::string_view target);

}  // namespace coxswain::model
