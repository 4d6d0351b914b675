// Norms: what one mean is taken over stays whole.
#include "plan/rules/families.h"
#include "plan/rules/notation.h"

namespace coxswain::plan {
namespace {

using enum RuleFamily;

// The last dims, as many as `normalized_shape` has; statistics keep them with size 1.
std::optional<OpFactors> bind_last(const OpReader& op, const ShardRule& rule) {
  const auto shape = op.integers("normalized_shape");
  if (!shape || op.inputs().empty() || shape->size() > op.sizes(0).size()) return std::nullopt;
  Assembly assembly(op, rule);
  const Sizes& sizes = op.sizes(0);
  const std::size_t first = sizes.size() - shape->size();
  std::vector<std::vector<int>> dims, statistics, row;
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    dims.push_back(assembly.factor((d < first ? "b" : "r") + std::to_string(d), sizes[d]));
    statistics.push_back(d < first ? dims.back() : std::vector<int>{});
    if (d >= first) row.push_back(dims.back());
  }
  assembly.set_input(0, dims);
  for (std::size_t i = 1; i < op.inputs().size(); ++i) assembly.set_input(static_cast<int>(i), row);
  assembly.set_outputs(dims, 0);
  for (int statistic = 1; statistic < 3; ++statistic) assembly.set_outputs(statistics, statistic);
  return assembly.finish();
}

// Channels are (g k), each group has a mean of its own.
std::optional<OpFactors> bind_group_norm(const OpReader& op, const ShardRule& rule) {
  const auto groups = op.integer("num_groups");
  if (!groups || *groups < 1 || op.sizes(0).size() < 2 || op.sizes(0)[1] % *groups != 0) return std::nullopt;
  Assembly assembly(op, rule);
  const Sizes& sizes = op.sizes(0);
  std::vector<std::vector<int>> dims{assembly.factor("n", sizes[0])};
  const std::vector<int> g = assembly.factor("g", *groups), k = assembly.factor("k", sizes[1] / *groups);
  std::vector<int> channel = g;
  channel.insert(channel.end(), k.begin(), k.end());
  dims.push_back(channel);
  for (std::size_t d = 2; d < sizes.size(); ++d) dims.push_back(assembly.factor("s" + std::to_string(d), sizes[d]));
  assembly.set_input(0, dims);
  for (std::size_t i = 1; i < op.inputs().size(); ++i) assembly.set_input(static_cast<int>(i), {channel});
  assembly.set_outputs(dims);
  if (!g.empty()) assembly.follow("num_groups", -1, g);
  return assembly.finish();
}

// A mean per channel over samples and positions (batch norm), or per channel and sample; running statistics are fixed
// numbers.
std::optional<OpFactors> bind_channels(const OpReader& op, const ShardRule& rule, bool own_mean, bool over_samples) {
  if (op.inputs().empty() || op.sizes(0).size() < 2) return std::nullopt;
  Assembly assembly(op, rule);
  const Sizes& sizes = op.sizes(0);
  std::vector<std::vector<int>> dims;
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    const std::string name = (d == 0 ? "n" : d == 1 ? "c" : "s") + std::to_string(d);
    const bool averaged = own_mean && (d > 1 || (d == 0 && over_samples));
    dims.push_back(averaged ? assembly.whole(name, sizes[d]) : assembly.factor(name, sizes[d]));
  }
  assembly.set_input(0, dims);
  for (std::size_t i = 1; i < op.inputs().size(); ++i) assembly.set_input(static_cast<int>(i), {dims[1]});
  assembly.set_outputs(dims);
  return assembly.finish();
}

std::optional<OpFactors> bind_batch_norm(const OpReader& op, const ShardRule& rule) {
  return bind_channels(op, rule, op.flag("training"), true);
}

std::optional<OpFactors> bind_instance_norm(const OpReader& op, const ShardRule& rule) {
  const bool own = op.flag("use_input_stats");
  return bind_channels(op, rule, own, own && op.input("running_mean") >= 0);
}

constexpr ShardRule kRules[] = {
    {"aten::layer_norm", Normalisation, "[b.. r..], [r..]?, [r..]? -> [b.. r..]; whole r", bind_last},
    {"aten::native_layer_norm", Normalisation, "[b.. r..], [r..]?, [r..]? -> [b.. r..], [b.. 1..], [b.. 1..]; whole r",
     bind_last},
    {"aten::rms_norm", Normalisation, "[b.. r..], [r..]? -> [b.. r..]; whole r", bind_last},
    {"aten::group_norm", Normalisation, "[n (g k) s..], [(g k)]?, [(g k)]? -> [n (g k) s..]; whole k, s",
     bind_group_norm},
    // n and s whole while training.
    {"aten::batch_norm", Normalisation, "[n c s..], [c]?, [c]?, [c]?, [c]? -> [n c s..]", bind_batch_norm},
    // s whole where it takes the input's statistics.
    {"aten::instance_norm", Normalisation, "[n c s..], [c]?, [c]?, [c]?, [c]? -> [n c s..]", bind_instance_norm},
};

}  // namespace

std::span<const ShardRule> normalisation_rules() { return kRules; }

}  // namespace coxswain::plan
