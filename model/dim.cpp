#include "model/dim.h"

#include <algorithm>
#include <optional>
#include <set>

#include "common/ensure.h"

namespace coxswain::model {
namespace {

// Sizes of real models are far from the limit; absurd ones of a hostile file must wrap instead of being undefined.
std::int64_t wrap_add(std::int64_t a, std::int64_t b) {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
}
std::int64_t wrap_multiply(std::int64_t a, std::int64_t b) {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) * static_cast<std::uint64_t>(b));
}

// Python's: towards minus infinity.
std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  if (b == -1) return wrap_multiply(a, -1);
  const std::int64_t quotient = a / b;
  return (a % b != 0 && (a < 0) != (b < 0)) ? quotient - 1 : quotient;
}

std::int64_t apply_to_constants(Dim::Operation operation, std::int64_t a, std::int64_t b) {
  switch (operation) {
    case Dim::Operation::FloorDiv: return floor_divide(a, b);
    case Dim::Operation::Mod: return wrap_add(a, wrap_multiply(-1, wrap_multiply(floor_divide(a, b), b)));
    case Dim::Operation::Min: return std::min(a, b);
    case Dim::Operation::Max: return std::max(a, b);
  }
  return 0;
}

std::string atom_text(const Dim::Atom& atom) {
  if (!atom.symbol.empty()) return atom.symbol;
  const std::string left = atom.left->to_text(), right = atom.right->to_text();
  switch (atom.operation) {
    case Dim::Operation::FloorDiv: return "floordiv(" + left + ", " + right + ")";
    case Dim::Operation::Mod: return "mod(" + left + ", " + right + ")";
    case Dim::Operation::Min: return "min(" + left + ", " + right + ")";
    case Dim::Operation::Max: return "max(" + left + ", " + right + ")";
  }
  return "";
}

std::string product_text(const std::vector<Dim::Atom>& atoms) {
  std::string text;
  for (const auto& atom : atoms) text += (text.empty() ? "" : "*") + atom_text(atom);
  return text;
}

// Sorted by degree (highest first), then text; like terms merged; zeros dropped.
std::vector<Dim::Term> normalise(std::vector<Dim::Term> terms) {
  std::map<std::pair<std::int64_t, std::string>, Dim::Term> merged;
  for (auto& term : terms) {
    std::sort(term.atoms.begin(), term.atoms.end(),
              [](const Dim::Atom& a, const Dim::Atom& b) { return atom_text(a) < atom_text(b); });
    const auto key = std::make_pair(-static_cast<std::int64_t>(term.atoms.size()), product_text(term.atoms));
    const auto [place, inserted] = merged.try_emplace(key, term);
    if (!inserted) place->second.coefficient = wrap_add(place->second.coefficient, term.coefficient);
  }
  std::vector<Dim::Term> result;
  for (auto& [key, term] : merged) {
    if (term.coefficient != 0) result.push_back(std::move(term));
  }
  return result;
}

// `term` / `divisor` when that is a term again.
std::optional<Dim::Term> divide_exactly(Dim::Term term, const Dim::Term& divisor) {
  if (divisor.coefficient == 0 || term.coefficient % divisor.coefficient != 0) return std::nullopt;
  term.coefficient = floor_divide(term.coefficient, divisor.coefficient);
  for (const auto& atom : divisor.atoms) {
    const auto found = std::find_if(term.atoms.begin(), term.atoms.end(),
                                    [&](const Dim::Atom& a) { return atom_text(a) == atom_text(atom); });
    if (found == term.atoms.end()) return std::nullopt;
    term.atoms.erase(found);
  }
  return term;
}

}  // namespace

Dim::Dim(std::int64_t constant) {
  if (constant != 0) terms_.push_back(Term{constant, {}});
}

Dim Dim::symbol(std::string name) {
  Dim result;
  result.terms_.push_back(Term{1, {Atom{std::move(name), Operation::FloorDiv, nullptr, nullptr}}});
  return result;
}

Dim operator+(const Dim& a, const Dim& b) {
  Dim result;
  result.terms_ = a.terms_;
  result.terms_.insert(result.terms_.end(), b.terms_.begin(), b.terms_.end());
  result.terms_ = normalise(std::move(result.terms_));
  return result;
}

Dim operator-(const Dim& a, const Dim& b) { return a + Dim(-1) * b; }

Dim operator*(const Dim& a, const Dim& b) {
  Dim result;
  for (const auto& left : a.terms_) {
    for (const auto& right : b.terms_) {
      Dim::Term term{wrap_multiply(left.coefficient, right.coefficient), left.atoms};
      term.atoms.insert(term.atoms.end(), right.atoms.begin(), right.atoms.end());
      result.terms_.push_back(std::move(term));
    }
  }
  result.terms_ = normalise(std::move(result.terms_));
  return result;
}

Dim Dim::apply(Operation operation, const Dim& a, const Dim& b) {
  const bool divides = operation == Operation::FloorDiv || operation == Operation::Mod;
  if (a.is_constant() && b.is_constant() && (!divides || b.constant() != 0)) {
    return Dim(apply_to_constants(operation, a.constant(), b.constant()));
  }
  if (!divides && a == b) return a;
  if (divides && b.terms_.size() == 1) {
    // Exact when every term holds the divisor: (8*batch) // batch = 8.
    std::vector<Term> quotient;
    for (const auto& term : a.terms_) {
      if (auto exact = divide_exactly(term, b.terms_.front())) quotient.push_back(std::move(*exact));
    }
    if (quotient.size() == a.terms_.size()) {
      Dim result;
      if (operation == Operation::FloorDiv) result.terms_ = normalise(std::move(quotient));
      return result;
    }
  }
  Dim result;
  result.terms_.push_back(
      Term{1, {Atom{"", operation, std::make_shared<const Dim>(a), std::make_shared<const Dim>(b)}}});
  return result;
}

bool Dim::is_constant() const { return terms_.empty() || (terms_.size() == 1 && terms_.front().atoms.empty()); }

std::int64_t Dim::constant() const {
  COX_ENSURE(is_constant(), to_text());
  return terms_.empty() ? 0 : terms_.front().coefficient;
}

std::int64_t Dim::evaluate(const Bindings& bindings) const {
  std::int64_t sum = 0;
  for (const auto& term : terms_) {
    std::int64_t product = term.coefficient;
    for (const auto& atom : term.atoms) {
      std::int64_t factor = 0;
      if (!atom.symbol.empty()) {
        const auto found = bindings.find(atom.symbol);
        COX_ENSURE(found != bindings.end(), "unbound symbol", atom.symbol);
        factor = found->second;
      } else {
        const std::int64_t right = atom.right->evaluate(bindings);
        const bool divides = atom.operation == Operation::FloorDiv || atom.operation == Operation::Mod;
        COX_ENSURE(!divides || right != 0, "division by zero in", to_text());
        factor = apply_to_constants(atom.operation, atom.left->evaluate(bindings), right);
      }
      product = wrap_multiply(product, factor);
    }
    sum = wrap_add(sum, product);
  }
  return sum;
}

std::string Dim::to_text() const {
  if (terms_.empty()) return "0";
  std::string text;
  for (const auto& term : terms_) {
    std::int64_t coefficient = term.coefficient;
    if (!text.empty()) {
      text += coefficient < 0 ? " - " : " + ";
      if (coefficient < 0) coefficient = wrap_multiply(coefficient, -1);
    }
    const std::string product = product_text(term.atoms);
    if (product.empty()) {
      text += std::to_string(coefficient);
    } else if (coefficient == 1) {
      text += product;
    } else if (coefficient == -1) {
      text += "-" + product;
    } else {
      text += std::to_string(coefficient) + "*" + product;
    }
  }
  return text;
}

std::vector<std::string> Dim::symbols() const {
  std::set<std::string> names;
  for (const auto& term : terms_) {
    for (const auto& atom : term.atoms) {
      if (!atom.symbol.empty()) {
        names.insert(atom.symbol);
        continue;
      }
      for (const auto& side : {atom.left, atom.right}) {
        for (auto& name : side->symbols()) names.insert(std::move(name));
      }
    }
  }
  return {names.begin(), names.end()};
}

Dim Dim::substitute(const std::string& name, const Dim& value) const {
  Dim result;
  for (const auto& term : terms_) {
    Dim product(term.coefficient);
    for (const auto& atom : term.atoms) {
      if (atom.symbol.empty()) {
        product =
            product * apply(atom.operation, atom.left->substitute(name, value), atom.right->substitute(name, value));
      } else {
        product = product * (atom.symbol == name ? value : symbol(atom.symbol));
      }
    }
    result = result + product;
  }
  return result;
}

}  // namespace coxswain::model
