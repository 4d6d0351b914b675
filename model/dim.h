#pragma once
// A tensor size as an integer polynomial in named symbols ("8*batch + 1"), with floordiv, mod, min and max as atoms.
// Called by the reader, the cost model and the engine (which binds `batch` to the local micro-batch). Threads: pure
// values.
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace coxswain::model {

/// Symbol name -> value ("batch" -> 8).
using Bindings = std::map<std::string, std::int64_t>;

class Dim {
 public:
  enum class Operation { FloorDiv, Mod, Min, Max };
  /// A symbol, or an operation on two dims.
  struct Atom {
    std::string symbol;  // empty for an operation
    Operation operation = Operation::FloorDiv;
    std::shared_ptr<const Dim> left, right;
  };
  /// coefficient x product of atoms (sorted by text).
  struct Term {
    std::int64_t coefficient = 0;
    std::vector<Atom> atoms;
  };

  Dim() = default;  // zero
  Dim(std::int64_t constant);
  [[nodiscard]] static Dim symbol(std::string name);

  friend Dim operator+(const Dim& a, const Dim& b);
  friend Dim operator-(const Dim& a, const Dim& b);
  friend Dim operator*(const Dim& a, const Dim& b);
  /// Simplified where exact (constants, or every coefficient divisible).
  [[nodiscard]] static Dim apply(Operation operation, const Dim& a, const Dim& b);

  [[nodiscard]] bool is_constant() const;
  /// Requires: is_constant().
  [[nodiscard]] std::int64_t constant() const;
  /// Requires: every symbol bound.
  [[nodiscard]] std::int64_t evaluate(const Bindings& bindings) const;
  /// Canonical ("2*batch*heads + 1"); equal dims have equal text.
  [[nodiscard]] std::string to_text() const;
  [[nodiscard]] std::vector<std::string> symbols() const;
  /// This dim with `name` replaced by `value`.
  [[nodiscard]] Dim substitute(const std::string& name, const Dim& value) const;
  friend bool operator==(const Dim& a, const Dim& b) { return a.to_text() == b.to_text(); }

 private:
  std::vector<Term> terms_;  // sorted, no zero coefficients
};

/// Reads sympy's spelling ("8*s77", "(s0//2)", "Mod(s0, 4)", "Max(1, s0)", "s0**2"). Errors: InvalidArgument.
[[nodiscard]] Result<Dim> parse_dim(std::string_view text);

}  // namespace coxswain::model
