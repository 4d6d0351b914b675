// Sympy's two spellings: what it prints ("8*s77 + Mod(s0, 4)") and its constructor form
// ("Mul(Integer(8), Symbol('s77', positive=True, integer=True))"), which schema 8.20 stores.
#include <cctype>

#include "model/dim.h"

namespace coxswain::model {
namespace {

constexpr int kMaxDepth = 100;
constexpr std::int64_t kMaxPower = 8;

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<Dim> parse() {
    COX_TRY(Dim dim, sum(0));
    skip_spaces();
    if (position_ != text_.size()) return problem("unexpected text after the expression");
    return dim;
  }

 private:
  Error problem(std::string what) const {
    return Error{ErrorCode::InvalidArgument,
                 std::move(what),
                 "",
                 "an integer expression of symbols",
                 std::string(text_.substr(0, 200)) + " at character " + std::to_string(position_),
                 ""};
  }

  void skip_spaces() {
    while (position_ < text_.size() && text_[position_] == ' ') ++position_;
  }

  bool take(std::string_view token) {
    skip_spaces();
    if (text_.substr(position_, token.size()) != token) return false;
    position_ += token.size();
    return true;
  }

  bool at_power() const { return text_.substr(position_, 2) == "**"; }

  Result<Dim> sum(int depth) {
    if (depth > kMaxDepth) return problem("expression nested too deeply");
    const bool negative = take("-");
    COX_TRY(Dim result, product(depth));
    if (negative) result = Dim(-1) * result;
    while (true) {
      if (take("+")) {
        COX_TRY(const Dim right, product(depth));
        result = result + right;
      } else if (take("-")) {
        COX_TRY(const Dim right, product(depth));
        result = result - right;
      } else {
        return result;
      }
    }
  }

  Result<Dim> product(int depth) {
    COX_TRY(Dim result, power(depth));
    while (true) {
      skip_spaces();
      if (take("//")) {
        COX_TRY(const Dim right, power(depth));
        COX_TRY(result, divide(Dim::Operation::FloorDiv, result, right));
      } else if (take("%")) {
        COX_TRY(const Dim right, power(depth));
        COX_TRY(result, divide(Dim::Operation::Mod, result, right));
      } else if (!at_power() && take("*")) {
        COX_TRY(const Dim right, power(depth));
        result = result * right;
      } else {
        return result;
      }
    }
  }

  Result<Dim> divide(Dim::Operation operation, const Dim& left, const Dim& right) const {
    if (right.is_constant() && right.constant() == 0) return problem("division by zero");
    return Dim::apply(operation, left, right);
  }

  Result<Dim> power(int depth) {
    COX_TRY(Dim base, primary(depth));
    if (!take("**")) return base;
    COX_TRY(const Dim exponent, primary(depth));
    return raise(base, exponent);
  }

  Result<Dim> raise(const Dim& base, const Dim& exponent) const {
    if (!exponent.is_constant() || exponent.constant() < 0 || exponent.constant() > kMaxPower) {
      return problem("exponent must be an integer from 0 to " + std::to_string(kMaxPower));
    }
    Dim result(1);
    for (std::int64_t i = 0; i < exponent.constant(); ++i) result = result * base;
    return result;
  }

  Result<Dim> primary(int depth) {
    if (depth > kMaxDepth) return problem("expression nested too deeply");
    skip_spaces();
    if (take("(")) {
      COX_TRY(Dim inner, sum(depth + 1));
      if (!take(")")) return problem("missing )");
      return inner;
    }
    if (take("-")) {
      COX_TRY(const Dim inner, power(depth + 1));
      return Dim(-1) * inner;
    }
    if (position_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[position_]))) return integer();
    COX_TRY(const std::string name, identifier());
    if (!take("(")) return Dim::symbol(name);
    return call(name, depth);
  }

  Result<Dim> integer() {
    std::int64_t value = 0;
    while (position_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[position_]))) {
      if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, text_[position_] - '0', &value)) {
        return problem("integer too large");
      }
      ++position_;
    }
    return Dim(value);
  }

  Result<std::string> identifier() {
    const std::size_t first = position_;
    while (position_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[position_])) || text_[position_] == '_')) {
      ++position_;
    }
    if (position_ == first) return problem("expected a symbol, a number or a parenthesis");
    return std::string(text_.substr(first, position_ - first));
  }

  // After "name(". Keyword arguments (Symbol's assumptions) say nothing that we need.
  Result<Dim> call(const std::string& name, int depth) {
    if (name == "Symbol") return quoted_symbol();
    std::vector<Dim> arguments;
    if (!take(")")) {
      while (true) {
        COX_TRY(Dim argument, sum(depth + 1));
        arguments.push_back(std::move(argument));
        if (take(",")) continue;
        if (take(")")) break;
        return problem("expected , or )");
      }
    }
    return combine(name, arguments);
  }

  Result<Dim> quoted_symbol() {
    if (!take("'")) return problem("expected a quoted symbol");
    COX_TRY(const std::string name, identifier());
    if (!take("'")) return problem("expected a quoted symbol");
    while (position_ < text_.size() && text_[position_] != ')') ++position_;
    if (!take(")")) return problem("missing )");
    return Dim::symbol(name);
  }

  Result<Dim> combine(const std::string& name, const std::vector<Dim>& arguments) const {
    const auto fold = [&](auto&& operation) {
      Dim result = arguments.front();
      for (std::size_t i = 1; i < arguments.size(); ++i) result = operation(result, arguments[i]);
      return result;
    };
    if (arguments.empty()) return problem(name + " without arguments");
    // A size as a floating-point number: what uses it divides or multiplies floating-point tensors (pt2_arguments.cpp).
    if ((name == "Integer" || name == "ToFloat") && arguments.size() == 1) return arguments.front();
    if (name == "Add") return fold([](const Dim& a, const Dim& b) { return a + b; });
    if (name == "Mul") return fold([](const Dim& a, const Dim& b) { return a * b; });
    if (name == "Max" || name == "max") {
      return fold([](const Dim& a, const Dim& b) { return Dim::apply(Dim::Operation::Max, a, b); });
    }
    if (name == "Min" || name == "min") {
      return fold([](const Dim& a, const Dim& b) { return Dim::apply(Dim::Operation::Min, a, b); });
    }
    if (arguments.size() == 2) {
      if (name == "FloorDiv" || name == "CleanDiv" || name == "floordiv") {
        return divide(Dim::Operation::FloorDiv, arguments[0], arguments[1]);
      }
      if (name == "Mod" || name == "PythonMod" || name == "mod") {
        return divide(Dim::Operation::Mod, arguments[0], arguments[1]);
      }
      if (name == "Pow") return raise(arguments[0], arguments[1]);
    }
    return problem("unknown function " + name);
  }

  std::string_view text_;
  std::size_t position_ = 0;
};

}  // namespace

Result<Dim> parse_dim(std::string_view text) { return Parser(text).parse(); }

}  // namespace coxswain::model
