// Operators that copy elements to other places: cat, pad, repeat, triangles.
#include <algorithm>

#include "plan/rules/along.h"
#include "plan/rules/families.h"

namespace coxswain::plan {
namespace {

using enum RuleFamily;
using Dims = std::vector<std::vector<int>>;

// The joined dim stays whole, in each input and in the output.
std::optional<OpFactors> bind_cat(const OpReader& op, const ShardRule& rule) {
  if (op.inputs().empty() || op.outputs().size() != 1) return std::nullopt;
  const Sizes& out = op.outputs().front().sizes;
  const std::size_t along = wrap(op.integer("dim").value_or(0), out.size());
  if (along >= out.size()) return std::nullopt;
  Assembly assembly(op, rule);
  Dims dims = name_dims(assembly, "b", out);
  for (std::size_t i = 0; i < op.inputs().size(); ++i) {
    if (op.inputs()[i].sizes.size() != out.size()) return std::nullopt;
    dims[along] = assembly.whole("r", op.inputs()[i].sizes[along]);
    assembly.set_input(static_cast<int>(i), dims);
  }
  dims[along] = assembly.whole("t", out[along]);
  assembly.set_outputs(dims);
  return assembly.finish();
}

std::optional<OpFactors> bind_stack(const OpReader& op, const ShardRule& rule) {
  if (op.inputs().empty() || op.outputs().size() != 1) return std::nullopt;
  Assembly assembly(op, rule);
  Dims dims = name_dims(assembly, "b", op.sizes(0));
  for (std::size_t i = 0; i < op.inputs().size(); ++i) assembly.set_input(static_cast<int>(i), dims);
  const std::size_t along = wrap(op.integer("dim").value_or(0), dims.size() + 1);
  if (along > dims.size()) return std::nullopt;
  dims.insert(dims.begin() + static_cast<std::ptrdiff_t>(along),
              assembly.whole("t", static_cast<std::int64_t>(op.inputs().size())));
  assembly.set_outputs(dims);
  return assembly.finish();
}

// Dims of other size in the output are whole in both; of the same size, free unless `touched`.
std::optional<OpFactors> keep_others(const OpReader& op, const ShardRule& rule, const std::vector<bool>& touched) {
  if (op.inputs().empty() || op.outputs().size() != 1) return std::nullopt;
  const Sizes &in = op.sizes(0), &out = op.outputs().front().sizes;
  if (in.size() != out.size() || touched.size() != in.size()) return std::nullopt;
  Assembly assembly(op, rule);
  Dims from, to;
  for (std::size_t d = 0; d < in.size(); ++d) {
    if (in[d] == out[d]) {
      from.push_back(touched[d] ? assembly.whole("r", in[d]) : assembly.factor("b" + std::to_string(d), in[d]));
      to.push_back(from.back());
    } else {
      from.push_back(assembly.whole("r", in[d]));
      to.push_back(assembly.whole("t", out[d]));
    }
  }
  assembly.set_input(0, std::move(from));
  assembly.set_outputs(to);
  return assembly.finish();
}

// Pairs from the last dim; a pair of zeros leaves its dim alone.
std::optional<OpFactors> bind_pad(const OpReader& op, const ShardRule& rule) {
  const auto pad = op.integers("pad");
  const std::size_t rank = op.sizes(0).size();
  if (!pad || pad->size() > 2 * rank) return std::nullopt;
  std::vector<bool> touched(rank, false);
  for (std::size_t i = 0; i < pad->size(); ++i)
    if ((*pad)[i] != 0) touched[rank - 1 - i / 2] = true;
  return keep_others(op, rule, touched);
}

std::optional<OpFactors> bind_flip(const OpReader& op, const ShardRule& rule) {
  const auto dims = op.integers("dims");
  const std::size_t rank = op.sizes(0).size();
  if (!dims) return std::nullopt;
  // `roll` without dims runs through all elements.
  std::vector<bool> touched(rank, dims->empty() && op.position("shifts") >= 0);
  for (const std::int64_t dim : *dims) touched[wrap(dim, rank)] = true;
  return keep_others(op, rule, touched);
}

// The diagonal is counted in rows and columns of the whole.
std::optional<OpFactors> bind_triangle(const OpReader& op, const ShardRule& rule) {
  const std::size_t rank = op.sizes(0).size();
  if (rank < 2) return std::nullopt;
  std::vector<bool> touched(rank, false);
  touched[rank - 1] = touched[rank - 2] = true;
  return keep_others(op, rule, touched);
}

// A dim of n rows repeated r times is (r n).
std::optional<OpFactors> bind_repeat(const OpReader& op, const ShardRule& rule) {
  const auto repeats = op.integers("repeats");
  const Sizes& in = op.sizes(0);
  if (!repeats || repeats->size() < in.size()) return std::nullopt;
  Assembly assembly(op, rule);
  const std::size_t added = repeats->size() - in.size();
  Dims from, to;
  for (std::size_t d = 0; d < repeats->size(); ++d) {
    to.push_back(assembly.factor("r" + std::to_string(d), (*repeats)[d]));
    assembly.follow("repeats", static_cast<int>(d), to.back());
    if (d < added) continue;
    from.push_back(assembly.factor("n" + std::to_string(d), in[d - added]));
    to.back().insert(to.back().end(), from.back().begin(), from.back().end());
  }
  assembly.set_input(0, std::move(from));
  assembly.set_outputs(to);
  return assembly.finish();
}

// Each row r times in turn: (n r).
std::optional<OpFactors> bind_repeat_interleave(const OpReader& op, const ShardRule& rule) {
  const auto repeats = op.integer("repeats");
  if (!repeats || op.inputs().size() != 1) return std::nullopt;
  Assembly assembly(op, rule);
  const Dims from = name_dims(assembly, "n", op.sizes(0));
  const std::vector<int> times = assembly.factor("r", *repeats);
  Dims to = from;
  std::size_t along = 0;
  if (const auto dim = op.integer("dim")) {
    along = wrap(*dim, from.size());
    if (along >= to.size()) return std::nullopt;
  } else {
    to.assign(1, {});
    for (const std::vector<int>& one : from) to[0].insert(to[0].end(), one.begin(), one.end());
  }
  to[along].insert(to[along].end(), times.begin(), times.end());
  assembly.set_input(0, from);
  assembly.set_outputs(to);
  assembly.follow("repeats", -1, times);
  if (op.integer("output_size")) assembly.follow("output_size", -1, to[along]);
  return assembly.finish();
}

// `src` lies in rows of `dim` (select: has that dim not).
std::optional<OpFactors> bind_scatter_view(const OpReader& op, const ShardRule& rule) {
  const Sizes& in = op.sizes(0);
  const std::size_t along = wrap(op.integer("dim").value_or(0), in.size());
  if (op.inputs().size() != 2 || along >= in.size()) return std::nullopt;
  Assembly assembly(op, rule);
  Dims dims;
  for (std::size_t d = 0; d < in.size(); ++d)
    dims.push_back(d == along ? assembly.whole("r", in[d]) : assembly.factor("b" + std::to_string(d), in[d]));
  assembly.set_input(0, dims);
  assembly.set_outputs(dims);
  if (op.sizes(1).size() == in.size())
    dims[along] = assembly.whole("t", op.sizes(1)[along]);
  else
    dims.erase(dims.begin() + static_cast<std::ptrdiff_t>(along));
  assembly.set_input(1, dims);
  return assembly.finish();
}

std::optional<OpFactors> bind_one_hot(const OpReader& op, const ShardRule& rule) {
  if (op.outputs().size() != 1 || op.integer("num_classes").value_or(-1) < 0) return std::nullopt;
  Assembly assembly(op, rule);
  Dims dims = name_dims(assembly, "n", op.sizes(0));
  assembly.set_input(0, dims);
  dims.push_back(assembly.whole("c", op.outputs().front().sizes.back()));
  assembly.set_outputs(dims);
  return assembly.finish();
}

constexpr std::string_view kSame = "[b.. r..] -> [b.. r..]; whole r; linear self";

constexpr ShardRule kRules[] = {
    {"aten::cat", View, "[a.. r b..], [a.. r b..] -> [a.. t b..]; whole r, t; linear tensors", bind_cat},
    {"aten::stack", View, "[b..], [b..] -> [a.. t b..]; whole t; linear tensors", bind_stack},
    {"aten::pad", Index, "[b.. r..] -> [b.. t..]; whole r, t", bind_pad},
    {"aten::constant_pad_nd", Index, "[b.. r..] -> [b.. t..]; whole r, t", bind_pad},
    {"aten::repeat", View, "[n..] -> [(r n)..]; linear self", bind_repeat},
    {"aten::repeat_interleave.self_int", View, "[n..] -> [(n r)..]; linear self", bind_repeat_interleave},
    {"aten::flip", Index, kSame, bind_flip},
    {"aten::roll", Index, kSame, bind_flip},
    {"aten::tril", Index, kSame, bind_triangle},
    {"aten::triu", Index, kSame, bind_triangle},
    {"aten::slice_scatter", Index, "[b.. r], [b.. t] -> [b.. r]; whole r, t; linear self+src", bind_scatter_view},
    {"aten::select_scatter", Index, "[b.. r], [b..] -> [b.. r]; whole r; linear self+src", bind_scatter_view},
    {"aten::one_hot", Index, "[n..] -> [n.. c]; whole c", bind_one_hot},
};

}  // namespace

std::span<const ShardRule> copy_rules() { return kRules; }

}  // namespace coxswain::plan
