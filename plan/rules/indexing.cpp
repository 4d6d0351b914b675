// Indexing, gathers, embedding. A table split by rows is read with indices minus the part's first row, where they lie
// inside it; every row lies in one part, so the parts' results add up (vocabulary-parallel embedding).
#include <algorithm>

#include "plan/rules/families.h"
#include "plan/rules/notation.h"

namespace coxswain::plan {
namespace {

using enum RuleFamily;
using Dims = std::vector<std::vector<int>>;

std::optional<OpFactors> bind_embedding(const OpReader& op, const ShardRule& rule) {
  if (op.inputs().size() != 2 || op.outputs().size() != 1) return std::nullopt;
  const Sizes &table = op.sizes(0), &indices = op.sizes(1);
  Assembly assembly(op, rule);
  const bool padded = op.integer("padding_idx").value_or(-1) >= 0, counted = op.flag("scale_grad_by_freq");
  if (table.size() != 2) return std::nullopt;
  // The padding row is one of the whole table; frequencies are those of the whole batch.
  const std::vector<int> v = padded || counted ? assembly.whole("v", table[0]) : assembly.factor("v", table[0]);
  const std::vector<int> e = assembly.factor("e", table[1]);
  Dims rows;
  for (const std::int64_t size : indices) {
    const std::string name = "n" + std::to_string(rows.size());
    rows.push_back(counted ? assembly.whole(name, size) : assembly.factor(name, size));
  }
  assembly.set_input(0, {v, e});
  assembly.set_input(1, rows);
  rows.push_back(e);
  assembly.set_outputs(rows);
  return assembly.finish();
}

std::optional<OpFactors> bind_index_select(const OpReader& op, const ShardRule& rule) {
  const Sizes& in = op.sizes(0);
  const std::size_t along = wrap(op.integer("dim").value_or(0), in.size());
  if (op.inputs().size() != 2 || along >= in.size() || op.sizes(1).size() != 1) return std::nullopt;
  Assembly assembly(op, rule);
  Dims dims;
  for (std::size_t d = 0; d < in.size(); ++d)
    dims.push_back(assembly.factor(d == along ? "v" : "b" + std::to_string(d), in[d]));
  assembly.set_input(0, dims);
  dims[along] = assembly.factor("n", op.sizes(1)[0]);
  assembly.set_input(1, {dims[along]});
  assembly.set_outputs(dims);
  return assembly.finish();
}

// Tensors of one rank: dims other than `dim` are shared where all have the same size, else whole in each.
struct AlongDim {
  std::size_t along = 0;
  std::vector<Dims> tensors;  // without `dim`
};
std::optional<AlongDim> shared_dims(Assembly& assembly, std::size_t num_tensors) {
  const OpReader& op = assembly.op();
  const std::size_t rank = op.sizes(0).size();
  AlongDim shared;
  shared.along = wrap(op.integer("dim").value_or(0), rank);
  if (op.inputs().size() < num_tensors || shared.along >= rank) return std::nullopt;
  shared.tensors.assign(num_tensors, Dims(rank));
  for (std::size_t d = 0; d < rank; ++d) {
    bool equal = true;
    for (std::size_t t = 0; t < num_tensors; ++t) {
      if (op.sizes(static_cast<int>(t)).size() != rank) return std::nullopt;
      equal = equal && op.sizes(static_cast<int>(t))[d] == op.sizes(0)[d];
    }
    if (d == shared.along) continue;
    const std::vector<int> factor =
        equal ? assembly.factor("b" + std::to_string(d), op.sizes(0)[d]) : std::vector<int>{};
    for (std::size_t t = 0; t < num_tensors; ++t)
      shared.tensors[t][d] = equal ? factor : assembly.whole("x", op.sizes(static_cast<int>(t))[d]);
  }
  return shared;
}

std::optional<OpFactors> bind_gather(const OpReader& op, const ShardRule& rule) {
  if (!op.integer("dim")) return std::nullopt;
  Assembly assembly(op, rule);
  auto shared = shared_dims(assembly, 2);
  if (!shared) return std::nullopt;
  shared->tensors[0][shared->along] = assembly.factor("v", op.sizes(0)[shared->along]);
  shared->tensors[1][shared->along] = assembly.factor("n", op.sizes(1)[shared->along]);
  assembly.set_input(0, shared->tensors[0]);
  assembly.set_input(1, shared->tensors[1]);
  assembly.set_outputs(shared->tensors[1]);
  return assembly.finish();
}

// Rows written: the last writer wins, so they stay together; where they are added they may be added in parts.
std::optional<OpFactors> bind_scatter(const OpReader& op, const ShardRule& rule) {
  Assembly assembly(op, rule);
  auto shared = shared_dims(assembly, op.inputs().size());
  if (!shared) return std::nullopt;
  std::vector<int> rows;
  shared->tensors[0][shared->along] = assembly.whole("r", op.sizes(0)[shared->along]);
  for (std::size_t t = 1; t < shared->tensors.size(); ++t) {
    const std::int64_t size = op.sizes(static_cast<int>(t))[shared->along];
    if (t == 1) rows = assembly.factor("n", size);
    const bool same = size == op.sizes(1)[shared->along];
    shared->tensors[t][shared->along] = same ? rows : assembly.whole("x", size);
    if (!same) return std::nullopt;
  }
  for (std::size_t t = 0; t < shared->tensors.size(); ++t) assembly.set_input(static_cast<int>(t), shared->tensors[t]);
  assembly.set_outputs(shared->tensors[0]);
  return assembly.finish();
}

std::optional<OpFactors> bind_index_add(const OpReader& op, const ShardRule& rule) {
  const Sizes& in = op.sizes(0);
  const std::size_t along = wrap(op.integer("dim").value_or(0), in.size());
  if (op.inputs().size() != 3 || along >= in.size()) return std::nullopt;
  Assembly assembly(op, rule);
  Dims dims;
  for (std::size_t d = 0; d < in.size(); ++d)
    dims.push_back(d == along ? assembly.whole("r", in[d]) : assembly.factor("b" + std::to_string(d), in[d]));
  assembly.set_input(0, dims);
  assembly.set_outputs(dims);
  dims[along] = assembly.factor("n", op.inputs()[1].sizes.empty() ? 1 : op.sizes(1)[0]);
  assembly.set_input(1, op.sizes(1).empty() ? Dims{} : Dims{dims[along]});
  assembly.set_input(2, dims);
  return assembly.finish();
}

// Where the dims of advanced indices go: in place where the indexed dims are neighbours, else in front.
struct IndexedDims {
  std::vector<int> tensors;  // per dim of self: number of the input that indexes it, or -1
  std::size_t first = 0;     // indexed dim
  bool neighbours = true;
  Sizes shape;  // of all indices, broadcast
};
std::optional<IndexedDims> indexed_dims(const OpReader& op) {
  IndexedDims indexed;
  indexed.tensors = op.input_list("indices");
  const std::size_t rank = op.sizes(0).size();
  if (indexed.tensors.size() > rank) return std::nullopt;
  indexed.tensors.resize(rank, -1);
  int count = 0;
  std::size_t last = 0;
  for (std::size_t d = 0; d < rank; ++d) {
    const int input = indexed.tensors[d];
    if (input < 0) continue;
    if (count++ == 0)
      indexed.first = d;
    else if (d != last + 1)
      indexed.neighbours = false;
    last = d;
    const Sizes& sizes = op.sizes(input);
    if (sizes.size() > indexed.shape.size())
      indexed.shape.insert(indexed.shape.begin(), sizes.size() - indexed.shape.size(), 1);
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      std::int64_t& size = indexed.shape[indexed.shape.size() - sizes.size() + i];
      size = std::max(size, sizes[i]);
    }
  }
  if (count == 0) return std::nullopt;
  return indexed;
}

// `dims` of a broadcast shape, as one tensor with `sizes` has them.
Dims broadcast_dims(const Dims& dims, const Sizes& shape, const Sizes& sizes) {
  Dims own;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const std::size_t at = shape.size() - sizes.size() + i;
    own.push_back(sizes[i] == shape[at] ? dims[at] : std::vector<int>{});
  }
  return own;
}

struct IndexFactors {
  Dims self, result;
  Sizes result_sizes;
};
// A boolean mask picks as many rows as it holds: no rule.
bool has_mask(const IndexedDims& indexed, const Sizes& result) {
  std::size_t rank = indexed.shape.size();
  for (const int input : indexed.tensors) rank += input < 0 ? 1 : 0;
  return rank != result.size();
}

IndexFactors name_indexed(Assembly& assembly, const IndexedDims& indexed, const std::string& rows) {
  const OpReader& op = assembly.op();
  const Sizes& in = op.sizes(0);
  IndexFactors factors;
  Dims index;
  for (const std::int64_t size : indexed.shape)
    index.push_back(assembly.factor(rows + std::to_string(index.size()), size));
  for (std::size_t d = 0; d < in.size(); ++d) {
    const bool taken = indexed.tensors[d] >= 0;
    factors.self.push_back(taken ? assembly.whole("r", in[d]) : assembly.factor("b" + std::to_string(d), in[d]));
    if (taken) continue;
    factors.result.push_back(factors.self.back());
    factors.result_sizes.push_back(in[d]);
  }
  const auto at = static_cast<std::ptrdiff_t>(indexed.neighbours ? indexed.first : 0);
  factors.result.insert(factors.result.begin() + at, index.begin(), index.end());
  factors.result_sizes.insert(factors.result_sizes.begin() + at, indexed.shape.begin(), indexed.shape.end());
  assembly.set_input(0, factors.self);
  for (const int input : indexed.tensors)
    if (input >= 0) assembly.set_input(input, broadcast_dims(index, indexed.shape, op.sizes(input)));
  return factors;
}

std::optional<OpFactors> bind_index(const OpReader& op, const ShardRule& rule) {
  const auto indexed = indexed_dims(op);
  if (!indexed || op.outputs().size() != 1 || has_mask(*indexed, op.outputs().front().sizes)) return std::nullopt;
  Assembly assembly(op, rule);
  assembly.set_outputs(name_indexed(assembly, *indexed, "n").result);
  return assembly.finish();
}

std::optional<OpFactors> bind_index_put(const OpReader& op, const ShardRule& rule) {
  const auto indexed = indexed_dims(op);
  const int values = op.input("values");
  if (!indexed || values < 0 || op.outputs().size() != 1) return std::nullopt;
  Assembly assembly(op, rule);
  // Added rows may be added in parts; written rows stay together.
  const IndexFactors factors = name_indexed(assembly, *indexed, op.flag("accumulate") ? "n" : "w");
  if (op.sizes(values).size() > factors.result.size()) return std::nullopt;
  assembly.set_input(values, broadcast_dims(factors.result, factors.result_sizes, op.sizes(values)));
  assembly.set_outputs(factors.self);
  return assembly.finish();
}

constexpr ShardRule kRules[] = {
    {"aten::embedding", Index, "[v e], [n..] -> [n.. e]; masked v by indices; linear weight", bind_embedding},
    {"aten::index_select", Index, "[a.. v b..], [n] -> [a.. n b..]; masked v by index; linear self", bind_index_select},
    {"aten::gather", Index, "[a.. v b..], [a.. n b..] -> [a.. n b..]; masked v by index; linear self", bind_gather},
    {"aten::take_along_dim", Index, "[a.. v b..], [a.. n b..] -> [a.. n b..]; masked v by indices; linear self",
     bind_gather},
    {"aten::scatter", Index, "[a.. r b..], [a.. n b..], [a.. n b..]? -> [a.. r b..]; whole r, n", bind_scatter},
    {"aten::scatter_add", Index,
     "[a.. r b..], [a.. n b..], [a.. n b..] -> [a.. r b..]; whole r; sum n; add self; linear self+src", bind_scatter},
    {"aten::index_add", Index,
     "[a.. r b..], [n], [a.. n b..] -> [a.. r b..]; whole r; sum n; add self; linear self+source", bind_index_add},
    {"aten::index", Index, "[b.. r..], [n..], [n..] -> [b.. n..]; whole r; linear self", bind_index},
    {"aten::index_put", Index,
     "[b.. r..], [n..], [b.. n..] -> [b.. r..]; whole r, w; sum n; add self; linear self+values", bind_index_put},
};

}  // namespace

std::span<const ShardRule> index_rules() { return kRules; }

}  // namespace coxswain::plan
