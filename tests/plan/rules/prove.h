#pragma once
// Proof of a sharding rule by brute force: the operator on whole tensors against the operator on parts, put together as
// the rule says, forward and backward. For every factor that the rule lets split: 2 and 3 parts, equal and unequal, and
// strided parts (an inner factor); for every linear group: 2 and 3 summands; in float64, float32 and bfloat16.
// `arguments`, in schema order: f[2,3] normal, p[..] in (0.5, 1.5), u[..] in (0.1, 0.9), c[..] as p without gradient,
// i9[..] integers in [0, 9), s9[..] ascending ones, b[..] booleans, {f[2], f[2]} a list, (1,2) integers, 0.5, true,
// none, float32, 'text'; `name=value` out of order. An expectation of "replicated" is a case whose rule does not take
// it.
#include <string>
#include <vector>

#include "plan/rules/rules.h"

namespace coxswain::tests {

struct RuleCase {
  const char* target;
  const char* arguments;
};

struct Proof {
  int placements = 0;  // forward
  int backward = 0;    // of them with gradients
  int flips = 0;       // wrong rules planted: a factor that must stay whole is split
  std::vector<std::string> failures;
  std::vector<std::string> missed;  // planted rules that no comparison caught
};
/// A case that libtorch does not run is a failure, except in bfloat16. `rule` null: the table's.
[[nodiscard]] Proof prove(const RuleCase& one, const plan::ShardRule* rule = nullptr);
/// Plants wrong rules.
[[nodiscard]] Proof plant(const RuleCase& one);

/// The factors that the rule names; "replicated" where it takes the case not.
[[nodiscard]] std::string bound_text(const RuleCase& one);

/// What the backward keeps: argument names ("out", "out1" for outputs) whose storage outlives them; and what the list
/// says.
struct KeptTensors {
  std::vector<std::string> found, listed;
};
[[nodiscard]] KeptTensors find_kept(const RuleCase& one);

}  // namespace coxswain::tests
