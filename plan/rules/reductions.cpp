// Sums and their like, and operators that run along a dim.
#include <algorithm>

#include "plan/rules/along.h"
#include "plan/rules/families.h"

namespace coxswain::plan {
namespace {

using enum RuleFamily;

// Which dims `dim` (or `dims`) names; all where it names none.
std::vector<bool> named_dims(const OpReader& op, std::size_t rank) {
  const auto given = op.integers(op.position("dims") >= 0 ? "dims" : "dim");
  if (!given || given->empty()) return std::vector<bool>(rank, true);
  std::vector<bool> named(rank, false);
  for (const std::int64_t dim : *given)
    if (wrap(dim, rank) < rank) named[wrap(dim, rank)] = true;
  return named;
}

}  // namespace

std::optional<OpFactors> bind_reduction(const OpReader& op, const ShardRule& rule) {
  if (op.inputs().size() != 1) return std::nullopt;
  Assembly assembly(op, rule);
  const Sizes& sizes = op.sizes(0);
  const std::vector<bool> reduced = named_dims(op, sizes.size());
  std::vector<std::vector<int>> in, out;
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    in.push_back(assembly.factor((reduced[d] ? "r" : "b") + std::to_string(d), sizes[d]));
    if (!reduced[d])
      out.push_back(in.back());
    else if (op.flag("keepdim"))
      out.emplace_back();
  }
  assembly.set_input(0, std::move(in));
  assembly.set_outputs(out);
  return assembly.finish();
}

std::optional<OpFactors> bind_along(const OpReader& op, const ShardRule& rule) {
  if (op.inputs().size() != 1 || op.outputs().empty()) return std::nullopt;
  Assembly assembly(op, rule);
  const Sizes &sizes = op.sizes(0), &result = op.outputs().front().sizes;
  if (sizes.size() != result.size()) return std::nullopt;
  const std::vector<bool> along = named_dims(op, sizes.size());
  std::vector<std::vector<int>> in, out;
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    in.push_back(assembly.factor((along[d] ? "r" : "b") + std::to_string(d), sizes[d]));
    out.push_back(!along[d]               ? in.back()
                  : sizes[d] == result[d] ? in.back()
                                          : assembly.whole("t" + std::to_string(d), result[d]));
  }
  assembly.set_input(0, std::move(in));
  assembly.set_outputs(out);
  return assembly.finish();
}

namespace {

constexpr std::string_view kWhole = "[b.. r..] -> [b..]; whole r";
constexpr std::string_view kPair = "[b.. r..] -> [b..], [b..]; whole r";
constexpr std::string_view kSum = "[b.. r..] -> [b..]; sum r; linear self";
constexpr std::string_view kMax = "[b.. r..] -> [b..]; max r";

constexpr ShardRule kRules[] = {
    {"aten::sum", Reduction, kSum, bind_reduction},
    {"aten::mean", Reduction, "[b.. r..] -> [b..]; scaled r; linear self", bind_reduction},
    {"aten::count_nonzero", Reduction, "[b.. r..] -> [b..]; sum r", bind_reduction},
    {"aten::any", Reduction, kMax, bind_reduction},
    {"aten::amax", Reduction, kMax, bind_reduction},
    {"aten::amin", Reduction, kWhole, bind_reduction},
    {"aten::all", Reduction, kWhole, bind_reduction},
    {"aten::argmax", Reduction, kWhole, bind_reduction},
    {"aten::argmin", Reduction, kWhole, bind_reduction},
    {"aten::var", Reduction, kWhole, bind_reduction},
    {"aten::std", Reduction, kWhole, bind_reduction},
    {"aten::var_mean", Reduction, kPair, bind_reduction},
    {"aten::norm", Reduction, kWhole, bind_reduction},
    {"aten::linalg_vector_norm", Reduction, kWhole, bind_reduction},
    {"aten::prod", Reduction, kWhole, bind_reduction},
    {"aten::logsumexp", Reduction, kWhole, bind_reduction},
    // Without a dim the result is the maximum alone; with one also where it lies.
    {"aten::max", Reduction, kMax, bind_reduction},
    {"aten::max.dim", Reduction, kPair, bind_reduction},
    {"aten::max.other", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::min", Reduction, kWhole, bind_reduction},
    {"aten::min.dim", Reduction, kPair, bind_reduction},
    {"aten::min.other", Pointwise, "[d..], [d..] -> [d..]", bind_pointwise},
    {"aten::cumsum", Reduction, "[a.. r b..] -> [a.. r b..]; whole r; linear self", bind_along},
    {"aten::cumprod", Reduction, "[a.. r b..] -> [a.. r b..]; whole r", bind_along},
    {"aten::diff", Reduction, "[a.. r b..] -> [a.. t b..]; whole r", bind_along},
    {"aten::topk", Reduction, "[a.. r b..] -> [a.. t b..], [a.. t b..]; whole r", bind_along},
    {"aten::sort", Reduction, "[a.. r b..] -> [a.. r b..], [a.. r b..]; whole r", bind_along},
};

}  // namespace

std::span<const ShardRule> reduction_rules() { return kRules; }

}  // namespace coxswain::plan
