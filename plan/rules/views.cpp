// Views: the same elements under other dims. Which factors they have is computed from shapes and arguments.
#include <algorithm>
#include <numeric>

#include "plan/rules/families.h"
#include "plan/rules/notation.h"

namespace coxswain::plan {
namespace {

using enum RuleFamily;
using Dims = std::vector<std::vector<int>>;

// Row-major order read as digits, from the last: both shapes share a digit of the greatest common divisor of what is
// left of their current dims. Where that is 1 and both have something left, the dims straddle: what remains stays
// whole, up to a place where both begin a dim anew.
class ViewFactors {
 public:
  ViewFactors(Assembly& assembly, const Sizes& in, const Sizes& out)
      : assembly_(assembly), in_(in), out_(out), in_dims_(in.size()), out_dims_(out.size()) {
    a_ = in.size();
    b_ = out.size();
    while (a_ > 0 || b_ > 0 || left_a_ > 1 || left_b_ > 1) {
      if (left_a_ == 1 && a_ > 0) {
        left_a_ = in_[--a_];
      } else if (left_b_ == 1 && b_ > 0) {
        left_b_ = out_[--b_];
      } else if (const std::int64_t common = std::gcd(left_a_, left_b_); common > 1) {
        share(common);
      } else {
        straddle();
      }
    }
  }
  [[nodiscard]] const Dims& in() const { return in_dims_; }
  [[nodiscard]] const Dims& out() const { return out_dims_; }

 private:
  void share(std::int64_t size) {
    const std::vector<int> digit = assembly_.factor("d" + std::to_string(next_++), size);
    in_dims_[a_].insert(in_dims_[a_].begin(), digit.begin(), digit.end());
    out_dims_[b_].insert(out_dims_[b_].begin(), digit.begin(), digit.end());
    left_a_ /= size;
    left_b_ /= size;
  }

  void straddle() {
    std::int64_t product_a = left_a_, product_b = left_b_;
    keep(in_dims_[a_], left_a_);
    keep(out_dims_[b_], left_b_);
    while (product_a != product_b && (a_ > 0 || b_ > 0)) {
      if (product_a < product_b && a_ > 0) {
        product_a *= in_[--a_];
        keep(in_dims_[a_], in_[a_]);
      } else if (b_ > 0) {
        product_b *= out_[--b_];
        keep(out_dims_[b_], out_[b_]);
      } else {
        break;
      }
    }
    left_a_ = left_b_ = 1;
  }

  void keep(std::vector<int>& dim, std::int64_t size) {
    const std::vector<int> whole = assembly_.whole("x" + std::to_string(next_++), size);
    dim.insert(dim.begin(), whole.begin(), whole.end());
  }

  Assembly& assembly_;
  const Sizes &in_, &out_;
  Dims in_dims_, out_dims_;
  std::size_t a_ = 0, b_ = 0;  // current dims
  std::int64_t left_a_ = 1, left_b_ = 1;
  int next_ = 0;
};

bool has_elements(const Sizes& sizes) { return std::find(sizes.begin(), sizes.end(), 0) == sizes.end(); }

// The sizes that the operator names follow the local output; those of another tensor are that tensor's.
std::optional<OpFactors> bind_view(const OpReader& op, const ShardRule& rule) {
  if (op.inputs().empty() || op.outputs().size() != 1 || op.position("dtype") >= 0) return std::nullopt;
  const Sizes &in = op.sizes(0), &out = op.outputs().front().sizes;
  if (!has_elements(in) || !has_elements(out)) return std::nullopt;
  Assembly assembly(op, rule);
  const ViewFactors factors(assembly, in, out);
  assembly.set_input(0, factors.in());
  if (op.inputs().size() > 1) assembly.set_input(1, factors.out());
  assembly.set_outputs(factors.out());
  const auto first = op.integer("dim");  // unflatten
  if (const auto sizes = op.integers("sizes"); sizes && first) {
    const std::size_t at = wrap(*first, in.size());
    for (std::size_t d = 0; d < sizes->size(); ++d)
      assembly.follow("sizes", static_cast<int>(d), factors.out()[at + d]);
  }
  for (const char* name : {"size", "shape"})
    if (op.integers(name)) assembly.follow_dims(name, factors.out());
  return assembly.finish();
}

// Output dim i is input dim order[i]; -1: a new one of size 1.
std::optional<OpFactors> reordered(const OpReader& op, const ShardRule& rule, const std::vector<int>& order) {
  Assembly assembly(op, rule);
  const Dims dims = name_dims(assembly, "d", op.sizes(0));
  Dims out;
  for (const int from : order) out.push_back(from < 0 ? std::vector<int>{} : dims[static_cast<std::size_t>(from)]);
  assembly.set_input(0, dims);
  assembly.set_outputs(out);
  return assembly.finish();
}

std::vector<int> identity(std::size_t rank) {
  std::vector<int> order(rank);
  std::iota(order.begin(), order.end(), 0);
  return order;
}

std::optional<OpFactors> bind_transpose(const OpReader& op, const ShardRule& rule) {
  const std::size_t rank = op.sizes(0).size();
  std::vector<int> order = identity(rank);
  const auto dim0 = op.integer(op.position("dim0") >= 0 ? "dim0" : "axis0");
  const auto dim1 = op.integer(op.position("dim1") >= 0 ? "dim1" : "axis1");
  if (!dim0 || !dim1) return std::nullopt;
  if (rank > 0) std::swap(order[wrap(*dim0, rank)], order[wrap(*dim1, rank)]);
  return reordered(op, rule, order);
}

std::optional<OpFactors> bind_permute(const OpReader& op, const ShardRule& rule) {
  const auto dims = op.integers("dims");
  if (!dims) return std::nullopt;
  std::vector<int> order;
  for (const std::int64_t dim : *dims) order.push_back(static_cast<int>(wrap(dim, dims->size())));
  return reordered(op, rule, order);
}

std::optional<OpFactors> bind_last_two(const OpReader& op, const ShardRule& rule) {
  std::vector<int> order = identity(op.sizes(0).size());
  if (order.size() >= 2) std::swap(order[order.size() - 1], order[order.size() - 2]);
  return reordered(op, rule, order);
}

std::optional<OpFactors> bind_reverse(const OpReader& op, const ShardRule& rule) {
  std::vector<int> order = identity(op.sizes(0).size());
  std::reverse(order.begin(), order.end());
  return reordered(op, rule, order);
}

std::optional<OpFactors> bind_unsqueeze(const OpReader& op, const ShardRule& rule) {
  const auto dim = op.integer("dim");
  if (!dim) return std::nullopt;
  std::vector<int> order = identity(op.sizes(0).size());
  order.insert(order.begin() + static_cast<std::ptrdiff_t>(wrap(*dim, order.size() + 1)), -1);
  return reordered(op, rule, order);
}

// A part of one row would be squeezed as well; so without `dim` only a view of its own sizes would do.
std::optional<OpFactors> bind_squeeze(const OpReader& op, const ShardRule& rule) {
  const auto dims = op.integers("dim");
  if (!dims) return std::nullopt;
  const Sizes& sizes = op.sizes(0);
  std::vector<int> order;
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    const bool named =
        std::any_of(dims->begin(), dims->end(), [&](std::int64_t dim) { return wrap(dim, sizes.size()) == d; });
    if (named && sizes[d] != 1) return std::nullopt;
    if (!named) order.push_back(static_cast<int>(d));
  }
  return reordered(op, rule, order);
}

// Repeated dims are new factors that the input does not have.
std::optional<OpFactors> bind_expand(const OpReader& op, const ShardRule& rule) {
  const Sizes &in = op.sizes(0), &out = op.outputs().front().sizes;
  if (in.size() > out.size()) return std::nullopt;
  Assembly assembly(op, rule);
  const Dims dims = name_dims(assembly, "d", out);
  Dims own(dims.end() - static_cast<std::ptrdiff_t>(in.size()), dims.end());
  for (std::size_t d = 0; d < in.size(); ++d)
    if (in[d] == 1) own[d].clear();
  assembly.set_input(0, own);
  if (op.inputs().size() > 1) assembly.set_input(1, dims);
  assembly.set_outputs(dims);
  if (op.integers("size")) assembly.follow_dims("size", dims);
  return assembly.finish();
}

// A slice of all rows is free; of some, the dim stays whole.
std::optional<OpFactors> bind_slice(const OpReader& op, const ShardRule& rule) {
  const Sizes &in = op.sizes(0), &out = op.outputs().front().sizes;
  const std::size_t along = wrap(op.integer("dim").value_or(0), in.size());
  if (in.size() != out.size() || along >= in.size()) return std::nullopt;
  const bool all = in[along] == out[along];
  Assembly assembly(op, rule);
  Dims dims = name_dims(assembly, "d", out);
  assembly.set_outputs(dims);
  if (!all) {
    dims[along] = assembly.whole("r", in[along]);
    Dims cut = dims;
    cut[along] = assembly.whole("t", out[along]);
    assembly.set_outputs(cut);
  }
  assembly.set_input(0, dims);
  // A slice to the end says so by a bound beyond it; `narrow` counts its rows.
  if (all && op.position("length") >= 0) assembly.follow("length", -1, dims[along]);
  return assembly.finish();
}

std::optional<OpFactors> bind_select(const OpReader& op, const ShardRule& rule) {
  const Sizes& in = op.sizes(0);
  const auto dim = op.integer("dim").value_or(0);
  const std::size_t along = wrap(dim, in.size());
  if (along >= in.size()) return std::nullopt;
  Assembly assembly(op, rule);
  Dims dims;
  for (std::size_t d = 0; d < in.size(); ++d)
    dims.push_back(d == along ? assembly.whole("r", in[d]) : assembly.factor("d" + std::to_string(d), in[d]));
  assembly.set_input(0, dims);
  dims.erase(dims.begin() + static_cast<std::ptrdiff_t>(along));
  assembly.set_outputs(dims);
  return assembly.finish();
}

// Lengths of the pieces; absent where not every piece is known.
std::optional<Sizes> piece_lengths(const OpReader& op, std::size_t along, std::int64_t rows) {
  Sizes lengths;
  std::int64_t sum = 0;
  for (const OpReader::Tensor& piece : op.outputs()) lengths.push_back(piece.sizes[along]);
  for (const std::int64_t length : lengths) sum += length;
  if (sum == rows) return lengths;
  // Pieces that nobody uses: `split_size` and `chunks` tell how long they are.
  if (const auto sizes = op.integers("split_sizes")) return *sizes;
  const std::int64_t length = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
  if (length == 0 || rows % length != 0) return std::nullopt;
  return Sizes(static_cast<std::size_t>(rows / length), length);
}

std::optional<OpFactors> bind_tensor_split(const OpReader& op, const ShardRule& rule) {
  const Sizes& in = op.sizes(0);
  const std::size_t along = wrap(op.integer("dim").value_or(0), in.size());
  if (op.inputs().size() != 1 || op.outputs().empty() || along >= in.size()) return std::nullopt;
  Assembly assembly(op, rule);
  Dims dims = name_dims(assembly, "d", in);
  for (const OpReader::Tensor& piece : op.outputs()) {
    dims[along] = assembly.whole("t", piece.sizes[along]);
    assembly.set_outputs(dims, piece.argument);
  }
  dims[along] = assembly.whole("r", in[along]);
  assembly.set_input(0, dims);
  return assembly.finish();
}

// Pieces of one dim: (pieces d), d = their greatest common length. GPT-2's fused projection is three of d = (heads
// depth).
std::optional<OpFactors> bind_split(const OpReader& op, const ShardRule& rule) {
  const Sizes& in = op.sizes(0);
  const std::size_t along = wrap(op.integer("dim").value_or(0), in.size());
  if (op.outputs().empty() || along >= in.size() || !has_elements(in)) return std::nullopt;
  const auto lengths = piece_lengths(op, along, in[along]);
  if (!lengths) return std::nullopt;
  // `chunks` rounds up: unequal pieces of a part would be others.
  const bool equal =
      std::all_of(lengths->begin(), lengths->end(), [&](std::int64_t l) { return l == lengths->front(); });
  if (!equal && op.position("chunks") >= 0) return bind_tensor_split(op, rule);
  const std::int64_t common = std::accumulate(lengths->begin(), lengths->end(), std::int64_t{0},
                                              [](std::int64_t a, std::int64_t b) { return std::gcd(a, b); });
  if (common == 0) return std::nullopt;
  Assembly assembly(op, rule);
  Sizes shared = in;
  shared[along] = common;
  const Dims dims = name_dims(assembly, "d", shared);
  const auto times = [&](const char* name, std::int64_t count) {
    Dims all = dims;
    std::vector<int> outer = assembly.whole(name, count);
    all[along].insert(all[along].begin(), outer.begin(), outer.end());
    return all;
  };
  assembly.set_input(0, times("pieces", in[along] / common));
  for (const OpReader::Tensor& piece : op.outputs())
    assembly.set_outputs(times("multiple", piece.sizes[along] / common), piece.argument);
  if (const auto size = op.integer("split_size"))
    assembly.follow("split_size", -1, dims[along], (*lengths)[0] / common);
  for (const char* name : {"split_sizes", "split_size"})
    if (const auto sizes = op.integers(name); sizes && !op.integer(name))
      for (std::size_t i = 0; i < sizes->size(); ++i)
        assembly.follow(name, static_cast<int>(i), dims[along], (*sizes)[i] / common);
  return assembly.finish();
}

constexpr std::string_view kView = "[d..] -> [d..]; linear self";
constexpr std::string_view kViewAs = "[d..], [d..] -> [d..]; linear self";
constexpr std::string_view kSome = "[a.. r b..] -> [a.. t b..]; whole r, t; linear self";
constexpr std::string_view kOne = "[a.. r b..] -> [a.. b..]; whole r; linear self";
constexpr std::string_view kPieces = "[a.. (pieces d) b..] -> [a.. d b..], [a.. d b..]; whole pieces; linear self";

constexpr ShardRule kRules[] = {
    {"aten::view", View, kView, bind_view},
    {"aten::_unsafe_view", View, kView, bind_view},
    {"aten::reshape", View, kView, bind_view},
    {"aten::flatten", View, kView, bind_view},
    {"aten::unflatten", View, kView, bind_view},
    {"aten::ravel", View, kView, bind_view},
    {"aten::view_as", View, kViewAs, bind_view},
    {"aten::reshape_as", View, kViewAs, bind_view},
    {"aten::transpose", View, kView, bind_transpose},
    {"aten::swapaxes", View, kView, bind_transpose},
    {"aten::swapdims", View, kView, bind_transpose},
    {"aten::permute", View, kView, bind_permute},
    {"aten::t", View, kView, bind_reverse},
    {"aten::numpy_T", View, kView, bind_reverse},
    {"aten::mT", View, kView, bind_last_two},
    {"aten::unsqueeze", View, kView, bind_unsqueeze},
    {"aten::squeeze", View, kView, bind_squeeze},
    {"aten::expand", View, "[b..] -> [d..]; linear self", bind_expand},
    {"aten::broadcast_to", View, "[b..] -> [d..]; linear self", bind_expand},
    {"aten::expand_as", View, "[b..], [d..] -> [d..]; linear self", bind_expand},
    {"aten::slice", View, kSome, bind_slice},
    {"aten::narrow", View, kSome, bind_slice},
    {"aten::select", View, kOne, bind_select},
    {"aten::unbind", View, kOne, bind_select},
    {"aten::split", View, kPieces, bind_split},
    {"aten::split_with_sizes", View, kPieces, bind_split},
    {"aten::chunk", View, kPieces, bind_split},
    {"aten::tensor_split", View, kSome, bind_tensor_split},
};

}  // namespace

std::span<const ShardRule> view_rules() { return kRules; }

}  // namespace coxswain::plan
