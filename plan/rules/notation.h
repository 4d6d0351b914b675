#pragma once
// The text of a rule, read; and an operator's factors, put together. Private to plan/rules. Threads: pure.
//   rule   = tensors "->" tensors { ";" clause }
//   tensor = "[" { factor | factor ".." } "]" [ "?" may be absent ] [ "~" leading dims may be missing ]
//   clause = "sum f, g" | "max f" | "whole f" | "scaled f" | "masked f by argument" | "offset f" | "add argument"
//          | "linear argument+argument, argument"
// `f..` is any number of dims, aligned at the right; a dim of size 1 is read by all parts of a larger one.
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "plan/rules/reader.h"
#include "plan/rules/rules.h"

namespace coxswain::plan {

struct Token {
  std::string name;
  bool group = false;
};
struct TensorPattern {
  std::vector<Token> tokens;
  bool leading_may_miss = false;
};
struct Clause {
  FactorKind kind = FactorKind::Free;
  PartForm form = PartForm::Plain;
  std::string index;  // argument of a masked factor
  bool contiguous = false;
};
struct Notation {
  std::vector<TensorPattern> inputs, outputs;
  std::map<std::string, Clause, std::less<>> factors;
  std::vector<std::string> added;
  std::vector<std::vector<std::string>> linear;
};
[[nodiscard]] Notation parse_notation(std::string_view text);

/// Factors of one operator under construction. What a factor's name says in the rule's clauses holds for it (digits at
/// a name's end do not count).
class Assembly {
 public:
  Assembly(const OpReader& op, const ShardRule& rule);

  [[nodiscard]] const OpReader& op() const { return op_; }
  [[nodiscard]] const Notation& notation() const { return notation_; }
  /// A new factor as the dims of one tensor's dim; none for size 1.
  [[nodiscard]] std::vector<int> factor(const std::string& name, std::int64_t size);
  /// One that must stay whole, whatever the clauses say.
  [[nodiscard]] std::vector<int> whole(const std::string& name, std::int64_t size);
  void set_input(int input, std::vector<std::vector<int>> dims);
  /// All outputs, or that of one number.
  void set_outputs(const std::vector<std::vector<int>>& dims, int output = -1);
  /// Each dim a factor of its own that stays whole: an input read for its shape, dtype or contents alone.
  void set_whole_input(int input, const std::string& name);
  void add_rewrite(Rewrite rewrite);
  /// Integer argument (or element of a list) := constant factor x local sizes of `factors`.
  void follow(std::string_view argument, int element, const std::vector<int>& factors, std::int64_t coefficient = 1);
  /// Every element of a list of sizes := the local dims, from `first` on.
  void follow_dims(std::string_view argument, const std::vector<std::vector<int>>& dims, std::size_t first = 0);
  void add_linear(std::vector<int> inputs);
  [[nodiscard]] std::int64_t size(const std::vector<int>& factors) const;

  /// Clauses applied, sizes checked; absent where they do not fit.
  [[nodiscard]] std::optional<OpFactors> finish();

 private:
  void apply_linear();
  [[nodiscard]] bool fits() const;

  const OpReader& op_;
  Notation notation_;
  OpFactors result_;
};

/// A rule whose notation says all.
[[nodiscard]] std::optional<OpFactors> bind_notation(const OpReader& op, const ShardRule& rule);
/// The same, with other tensors and the clauses of `rule`.
[[nodiscard]] std::optional<OpFactors> bind_notation(const OpReader& op, const ShardRule& rule,
                                                     std::string_view tensors);
/// All inputs broadcast against each other, every output has all dims (d).
[[nodiscard]] std::optional<OpFactors> bind_pointwise(const OpReader& op, const ShardRule& rule);

/// Dims [first, end) of a tensor as new factors.
[[nodiscard]] std::vector<std::vector<int>> name_dims(Assembly& assembly, const std::string& name, const Sizes& sizes);

}  // namespace coxswain::plan
