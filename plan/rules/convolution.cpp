// Convolution, pooling, upsampling: positions stay whole (their windows overlap the parts of others).
#include "plan/rules/families.h"
#include "plan/rules/notation.h"

namespace coxswain::plan {
namespace {

using enum RuleFamily;

std::vector<int> joined(std::vector<int> outer, const std::vector<int>& inner) {
  outer.insert(outer.end(), inner.begin(), inner.end());
  return outer;
}

struct ConvolutionShape {
  std::size_t spatial = 0;
  std::int64_t groups = 1, in_per_group = 1, out_per_group = 1;
  bool transposed = false;
};

std::optional<ConvolutionShape> shape_of(const OpReader& op) {
  if (op.input("input") != 0 || op.input("weight") != 1 || op.outputs().size() != 1) return std::nullopt;
  const Sizes &input = op.sizes(0), &weight = op.sizes(1);
  if (weight.size() < 3 || input.size() + 1 < weight.size() || input.size() > weight.size()) return std::nullopt;
  ConvolutionShape shape;
  shape.spatial = weight.size() - 2;
  shape.groups = op.integer("groups").value_or(1);
  shape.transposed = op.flag("transposed");
  if (shape.groups < 1 || weight[0] % shape.groups != 0) return std::nullopt;
  shape.in_per_group = shape.transposed ? weight[0] / shape.groups : weight[1];
  shape.out_per_group = shape.transposed ? weight[1] : weight[0] / shape.groups;
  return shape;
}

// Channels are (g i) and (g o): groups are independent, i is summed.
std::optional<OpFactors> bind_convolution(const OpReader& op, const ShardRule& rule) {
  const auto shape = shape_of(op);
  if (!shape) return std::nullopt;
  Assembly assembly(op, rule);
  const Sizes &input = op.sizes(0), &weight = op.sizes(1), &output = op.outputs().front().sizes;
  const bool batched = input.size() == shape->spatial + 2;
  const std::vector<int> g = assembly.factor("g", shape->groups), i = assembly.factor("i", shape->in_per_group),
                         o = assembly.factor("o", shape->out_per_group);
  std::vector<std::vector<int>> in, out, filter;
  if (batched) {
    in.push_back(assembly.factor("n", input[0]));
    out.push_back(in.front());
  }
  in.push_back(joined(g, i));
  out.push_back(joined(g, o));
  filter = shape->transposed ? std::vector<std::vector<int>>{joined(g, i), o}
                             : std::vector<std::vector<int>>{joined(g, o), i};
  for (std::size_t d = 0; d < shape->spatial; ++d) {
    in.push_back(assembly.whole("s", input[input.size() - shape->spatial + d]));
    out.push_back(assembly.whole("t", output[output.size() - shape->spatial + d]));
    filter.push_back(assembly.whole("k", weight[2 + d]));
  }
  assembly.set_input(0, in);
  assembly.set_input(1, filter);
  assembly.set_input(op.input("bias"), {joined(g, o)});
  assembly.set_outputs(out);
  if (!g.empty()) assembly.follow("groups", -1, g);
  return assembly.finish();
}

constexpr std::string_view kConvolution =
    "[n (g i) s..], [(g o) i k..], [(g o)]? -> [n (g o) t..]; sum i; whole s, t, k; add bias; "
    "linear input+bias, weight+bias";
constexpr std::string_view kPool1 = "[b.. s] -> [b.. t]; whole s, t";
constexpr std::string_view kPool1Linear = "[b.. s] -> [b.. t]; whole s, t; linear self";
constexpr std::string_view kPool2 = "[b.. r s] -> [b.. t u]; whole r, s, t, u";
constexpr std::string_view kPool2Linear = "[b.. r s] -> [b.. t u]; whole r, s, t, u; linear self";

constexpr ShardRule kRules[] = {
    {"aten::convolution", Convolution, kConvolution, bind_convolution},
    {"aten::conv1d", Convolution, kConvolution, bind_convolution},
    {"aten::conv2d", Convolution, kConvolution, bind_convolution},
    {"aten::conv3d", Convolution, kConvolution, bind_convolution},
    {"aten::max_pool1d", Convolution, kPool1},
    {"aten::max_pool2d", Convolution, kPool2},
    {"aten::avg_pool1d", Convolution, kPool1Linear},
    {"aten::avg_pool2d", Convolution, kPool2Linear},
    {"aten::adaptive_avg_pool1d", Convolution, kPool1Linear},
    {"aten::adaptive_avg_pool2d", Convolution, kPool2Linear},
    {"aten::upsample_nearest2d", Convolution, kPool2Linear},
    {"aten::upsample_bilinear2d", Convolution, kPool2Linear},
};

}  // namespace

std::span<const ShardRule> convolution_rules() { return kRules; }

}  // namespace coxswain::plan
