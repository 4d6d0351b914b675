// Matmul-like operators and attention.
#include <algorithm>
#include <string>

#include "plan/rules/families.h"
#include "plan/rules/notation.h"

namespace coxswain::plan {
namespace {

using enum RuleFamily;

// A vector stands for a matrix of one row or column.
std::optional<OpFactors> bind_matmul(const OpReader& op, const ShardRule& rule) {
  if (op.inputs().size() != 2) return std::nullopt;
  const bool row = op.sizes(0).size() == 1, column = op.sizes(1).size() == 1;
  if (row && column) return bind_notation(op, rule, "[k], [k] -> []");
  if (row) return bind_notation(op, rule, "[k], [b.. k n] -> [b.. n]");
  if (column) return bind_notation(op, rule, "[b.. m k], [k] -> [b.. m]");
  return bind_notation(op, rule, "[b.. m k], [b.. k n] -> [b.. m n]");
}

// One tensor's letters as dims; "..." takes what is left. Absent for a diagonal.
std::optional<std::vector<std::string>> einsum_names(std::string_view letters, std::size_t rank) {
  const std::size_t dots = letters.find("...");
  const std::size_t fixed = dots == std::string_view::npos ? letters.size() : letters.size() - 3;
  if (fixed > rank || (dots == std::string_view::npos && fixed != rank)) return std::nullopt;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < letters.size(); ++i) {
    if (i == dots) {
      for (std::size_t left = rank - fixed; left > 0; --left) names.push_back("." + std::to_string(left));
      i += 2;
      continue;
    }
    const std::string name(1, letters[i]);
    if (std::find(names.begin(), names.end(), name) != names.end()) return std::nullopt;
    names.push_back(name);
  }
  return names;
}

struct EinsumDims {
  std::vector<std::vector<std::string>> inputs;
  std::vector<std::string> output;
  std::map<std::string, std::int64_t> sizes;
};

std::optional<EinsumDims> read_einsum(const OpReader& op) {
  const auto given = op.text("equation");
  if (!given || op.outputs().size() != 1) return std::nullopt;
  std::string equation(*given);
  equation.erase(std::remove(equation.begin(), equation.end(), ' '), equation.end());
  const std::size_t arrow = equation.find("->");
  if (arrow == std::string::npos) return std::nullopt;
  EinsumDims dims;
  std::size_t at = 0;
  for (const OpReader::Tensor& input : op.inputs()) {
    const std::size_t end = std::min(equation.find(',', at), arrow);
    auto names = einsum_names(std::string_view(equation).substr(at, end - at), input.sizes.size());
    if (!names) return std::nullopt;
    for (std::size_t d = 0; d < names->size(); ++d) {
      std::int64_t& size = dims.sizes[(*names)[d]];
      size = std::max(size, input.sizes[d]);
    }
    dims.inputs.push_back(std::move(*names));
    at = end + 1;
  }
  auto output = einsum_names(std::string_view(equation).substr(arrow + 2), op.outputs().front().sizes.size());
  if (!output) return std::nullopt;
  dims.output = std::move(*output);
  return dims;
}

std::optional<OpFactors> bind_einsum(const OpReader& op, const ShardRule& rule) {
  const auto dims = read_einsum(op);
  if (!dims) return std::nullopt;
  Assembly assembly(op, rule);
  std::map<std::string, std::vector<int>> factors;
  for (const auto& [name, size] : dims->sizes) {
    const bool kept = std::find(dims->output.begin(), dims->output.end(), name) != dims->output.end();
    factors[name] = assembly.factor(kept ? "b" : "k", size);
  }
  const auto named = [&](const std::vector<std::string>& names, const Sizes& sizes) {
    std::vector<std::vector<int>> result;
    for (std::size_t d = 0; d < names.size(); ++d)
      result.push_back(sizes[d] == dims->sizes.at(names[d]) ? factors[names[d]] : std::vector<int>{});
    return result;
  };
  for (std::size_t i = 0; i < op.inputs().size(); ++i) {
    assembly.set_input(static_cast<int>(i), named(dims->inputs[i], op.inputs()[i].sizes));
    if (op.is_floating(op.inputs()[i])) assembly.add_linear({static_cast<int>(i)});
  }
  assembly.set_outputs(named(dims->output, op.outputs().front().sizes));
  return assembly.finish();
}

// Heads of the query are (k g) where keys have k: enable_gqa repeats each key g times.
struct AttentionDims {
  std::vector<std::vector<int>> leading, query_heads, key_heads;
  std::vector<int> q, s, d, v;
};

std::vector<std::vector<int>> joined(const AttentionDims& dims, const std::vector<std::vector<int>>& heads,
                                     const std::vector<int>& rows, const std::vector<int>& columns) {
  std::vector<std::vector<int>> all = dims.leading;
  all.insert(all.end(), heads.begin(), heads.end());
  all.push_back(rows);
  all.push_back(columns);
  return all;
}

std::optional<OpFactors> bind_attention(const OpReader& op, const ShardRule& rule) {
  if (op.inputs().size() < 3 || op.outputs().size() != 1) return std::nullopt;
  const Sizes &query = op.sizes(0), &key = op.sizes(1), &value = op.sizes(2);
  const std::size_t rank = query.size();
  if (rank < 2 || key.size() != rank || value.size() != rank) return std::nullopt;
  Assembly assembly(op, rule);
  AttentionDims dims;
  for (std::size_t b = 0; b + 3 < rank; ++b) {
    if (key[b] != query[b] || value[b] != query[b]) return std::nullopt;
    dims.leading.push_back(assembly.factor("b" + std::to_string(b), query[b]));
  }
  if (rank > 2) {
    const std::int64_t heads = query[rank - 3], keys = key[rank - 3];
    if (keys == 0 || heads % keys != 0 || value[rank - 3] != keys) return std::nullopt;
    dims.key_heads.push_back(assembly.factor("h", keys));
    dims.query_heads.push_back(dims.key_heads.front());
    const std::vector<int> group = assembly.factor("g", heads / keys);
    dims.query_heads.front().insert(dims.query_heads.front().end(), group.begin(), group.end());
  }
  const bool causal = op.flag("is_causal");
  dims.q = causal ? assembly.whole("q", query[rank - 2]) : assembly.factor("q", query[rank - 2]);
  dims.s = assembly.factor("s", key[rank - 2]);
  dims.d = assembly.factor("d", query[rank - 1]);
  dims.v = assembly.factor("v", value[rank - 1]);
  assembly.set_input(0, joined(dims, dims.query_heads, dims.q, dims.d));
  assembly.set_input(1, joined(dims, dims.key_heads, dims.s, dims.d));
  assembly.set_input(2, joined(dims, dims.key_heads, dims.s, dims.v));
  assembly.set_outputs(joined(dims, dims.query_heads, dims.q, dims.v));
  if (const int mask = op.input("attn_mask"); mask >= 0) {
    const Sizes& sizes = op.sizes(mask);
    const auto scores = joined(dims, dims.query_heads, dims.q, dims.s);
    if (sizes.size() > rank) return std::nullopt;
    std::vector<std::vector<int>> mask_dims(scores.end() - static_cast<std::ptrdiff_t>(sizes.size()), scores.end());
    for (std::size_t i = 0; i < sizes.size(); ++i)
      if (sizes[i] == 1) mask_dims[i].clear();
    assembly.set_input(mask, std::move(mask_dims));
  }
  return assembly.finish();
}

constexpr ShardRule kRules[] = {
    {"aten::linear", Matmul, "[b.. i], [o i], [o]? -> [b.. o]; sum i; add bias; linear input+bias, weight+bias"},
    {"aten::addmm", Matmul, "[m n]~, [m k], [k n] -> [m n]; sum k; add self; linear self+mat1, self+mat2"},
    {"aten::baddbmm", Matmul,
     "[b m n]~, [b m k], [b k n] -> [b m n]; sum k; add self; linear self+batch1, self+batch2"},
    {"aten::mm", Matmul, "[m k], [k n] -> [m n]; sum k; linear self, mat2"},
    {"aten::bmm", Matmul, "[b m k], [b k n] -> [b m n]; sum k; linear self, mat2"},
    {"aten::mv", Matmul, "[m k], [k] -> [m]; sum k; linear self, vec"},
    {"aten::dot", Matmul, "[k], [k] -> []; sum k; linear self, tensor"},
    // Rows stand in groups that end where `offs` says, so neither they nor the experts may be split.
    {"transformers::grouped_mm_fallback", Matmul,
     "[s i], [e i o], [e] -> [s o]; sum i; whole s, e; linear input, weight"},
    {"aten::matmul", Matmul, "[b.. m k], [b.. k n] -> [b.. m n]; sum k; linear self, other", bind_matmul},
    {"aten::einsum", Matmul, "[b.. k..], [b.. k..] -> [b..]; sum k", bind_einsum},
    {"aten::bilinear", Matmul,
     "[b.. i], [b.. j], [o i j], [o]? -> [b.. o]; sum i, j; add bias; linear input1+bias, input2+bias, weight+bias"},
    // A causal mask counts rows from the first: q whole. Keys of all positions meet in one softmax: s whole.
    {"aten::scaled_dot_product_attention", Attention,
     "[b.. (h g) q d], [b.. h s d], [b.. h s v], [b.. (h g) q s]? -> [b.. (h g) q v]; whole s, d; linear value",
     bind_attention},
};

}  // namespace

std::span<const ShardRule> product_rules() { return kRules; }

}  // namespace coxswain::plan
