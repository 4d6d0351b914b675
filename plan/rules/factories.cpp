// Tensors made from arguments alone: every part makes its own rows.
#include "plan/rules/families.h"
#include "plan/rules/notation.h"

namespace coxswain::plan {
namespace {

using enum RuleFamily;

// `self` gives dtype and device only.
std::optional<OpFactors> bind_filled(const OpReader& op, const ShardRule& rule) {
  if (op.outputs().size() != 1) return std::nullopt;
  Assembly assembly(op, rule);
  const auto dims = name_dims(assembly, "d", op.outputs().front().sizes);
  assembly.set_whole_input(op.input("self"), "other");
  assembly.set_outputs(dims);
  if (op.integers("size")) assembly.follow_dims("size", dims);
  return assembly.finish();
}

// Row i is start + i step: a part starts at its first row. Without `start` there is no argument to move.
std::optional<OpFactors> bind_arange(const OpReader& op, const ShardRule& rule) {
  if (op.outputs().size() != 1) return std::nullopt;
  const std::int64_t size = op.outputs().front().sizes.at(0);
  Assembly assembly(op, rule);
  const auto start = op.integer("start"), end = op.integer("end");
  const auto step = op.position("step") >= 0 ? op.integer("step") : std::optional<std::int64_t>(1);
  if (!start || !end || !step || size < 2) {
    assembly.set_outputs({assembly.whole("n", size)});
    return assembly.finish();
  }
  const std::vector<int> n = assembly.factor("n", size);
  assembly.set_outputs({n});
  assembly.add_rewrite({op.position("start"), -1, *start, *step, n, Rewrite::From::First});
  assembly.add_rewrite({op.position("end"), -1, *start, *step, n, Rewrite::From::End});
  return assembly.finish();
}

std::optional<OpFactors> bind_whole(const OpReader& op, const ShardRule& rule) {
  Assembly assembly(op, rule);
  for (const OpReader::Tensor& output : op.outputs()) {
    std::vector<std::vector<int>> dims;
    for (const std::int64_t size : output.sizes) dims.push_back(assembly.whole("r", size));
    assembly.set_outputs(dims, output.argument);
  }
  return assembly.finish();
}

constexpr ShardRule kRules[] = {
    {"aten::zeros", Factory, "-> [d..]", bind_filled},
    {"aten::ones", Factory, "-> [d..]", bind_filled},
    {"aten::full", Factory, "-> [d..]", bind_filled},
    {"aten::empty", Factory, "-> [d..]", bind_filled},
    {"aten::new_zeros", Factory, "[other..] -> [d..]; whole other", bind_filled},
    {"aten::new_ones", Factory, "[other..] -> [d..]; whole other", bind_filled},
    {"aten::new_full", Factory, "[other..] -> [d..]; whole other", bind_filled},
    {"aten::new_empty", Factory, "[other..] -> [d..]; whole other", bind_filled},
    {"aten::zeros_like", Factory, "[d..] -> [d..]", bind_pointwise},
    {"aten::ones_like", Factory, "[d..] -> [d..]", bind_pointwise},
    {"aten::full_like", Factory, "[d..] -> [d..]", bind_pointwise},
    {"aten::empty_like", Factory, "[d..] -> [d..]", bind_pointwise},
    {"aten::scalar_tensor", Factory, "-> []"},
    {"aten::arange", Factory, "-> [n]; offset n", bind_arange},
    {"aten::linspace", Factory, "-> [n]; whole n", bind_whole},
    {"aten::eye", Factory, "-> [n m]; whole n, m", bind_whole},
};

}  // namespace

std::span<const ShardRule> factory_rules() { return kRules; }

}  // namespace coxswain::plan
