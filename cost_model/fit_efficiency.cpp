#include "cost_model/fit_efficiency.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace coxswain::cost_model {
namespace {

constexpr double kErrorScale = 0.08;  // a row's error that weighs as much as a constant one sigma off its prior
constexpr double kCore = 0.03;        // below it errors count by their square, above by their size
constexpr double kStep = 1e-3;        // of the finite differences, in logarithms
constexpr double kLongest = 0.7;      // change of a logarithm in one iteration
constexpr double kEnough = 5e-5;      // relative gain at which the fit ends
constexpr int kMaxDamping = 8;

using Vector = std::vector<double>;

/// Solves `matrix` x = `right` by elimination with row pivots; the matrix is positive definite and small.
Vector solve(std::vector<Vector> matrix, Vector right) {
  const std::size_t n = right.size();
  for (std::size_t column = 0; column < n; ++column) {
    std::size_t pivot = column;
    for (std::size_t row = column + 1; row < n; ++row)
      if (std::abs(matrix[row][column]) > std::abs(matrix[pivot][column])) pivot = row;
    std::swap(matrix[column], matrix[pivot]);
    std::swap(right[column], right[pivot]);
    for (std::size_t row = column + 1; row < n; ++row) {
      const double factor = matrix[row][column] / matrix[column][column];
      for (std::size_t i = column; i < n; ++i) matrix[row][i] -= factor * matrix[column][i];
      right[row] -= factor * right[column];
    }
  }
  for (std::size_t row = n; row-- > 0;) {
    for (std::size_t i = row + 1; i < n; ++i) right[row] -= matrix[row][i] * right[i];
    right[row] /= matrix[row][row];
  }
  return right;
}

class Fit {
 public:
  Fit(const std::vector<MeasuredRecipe>& rows, const Efficiency& prior, double sigma_scale) : prior_(prior) {
    for (const EfficiencyTerm& term : efficiency_terms()) {
      terms_.push_back(&term);
      sigma_.push_back(term.log_sigma * sigma_scale);
    }
    for (const MeasuredRecipe& row : rows)
      if (row.step.value > 0 && estimate_recipe(row.shape, row.recipe, row.machine, prior)) rows_.push_back(&row);
  }

  Efficiency run(int max_iterations) {
    Vector offset(terms_.size(), 0.0);  // logarithms over the prior
    double cost = cost_of(offset, log_times(offset));
    double damping = 1e-3;
    for (int i = 0; i < max_iterations; ++i) {
      const auto improved = iterate(offset, cost, damping);
      if (!improved) break;
      const double gain = cost - improved->cost;
      offset = improved->offset;
      const bool done = gain < kEnough * cost;
      cost = improved->cost;
      if (done) break;
    }
    return at(offset);
  }

 private:
  struct Point {
    Vector offset;
    double cost = 0;
  };

  [[nodiscard]] Efficiency at(const Vector& offset) const {
    Efficiency result = prior_;
    for (std::size_t i = 0; i < terms_.size(); ++i) result.*(terms_[i]->value) *= std::exp(offset[i]);
    return result;
  }
  [[nodiscard]] Vector log_times(const Vector& offset) const {
    const Efficiency efficiency = at(offset);
    Vector result;
    result.reserve(rows_.size());
    for (const MeasuredRecipe* row : rows_) {
      const auto time = estimate_recipe(row->shape, row->recipe, row->machine, efficiency);
      result.push_back(std::log(time ? time->step.value : row->step.value));
    }
    return result;
  }
  [[nodiscard]] double error_of(const Vector& times, std::size_t row) const {
    return times[row] - std::log(rows_[row]->step.value);
  }
  static double size_of(double error) { return std::sqrt(error * error + kCore * kCore); }
  [[nodiscard]] double cost_of(const Vector& offset, const Vector& times) const {
    double cost = 0;
    for (std::size_t row = 0; row < rows_.size(); ++row)
      cost += rows_[row]->weight * size_of(error_of(times, row)) / kErrorScale;
    for (std::size_t i = 0; i < offset.size(); ++i) cost += 0.5 * std::pow(offset[i] / sigma_[i], 2);
    return cost;
  }

  /// One damped Gauss-Newton step of the reweighted squares; none when nothing nearby is better.
  [[nodiscard]] std::optional<Point> iterate(const Vector& offset, double cost, double& damping) const {
    const std::size_t n = offset.size();
    const Vector times = log_times(offset);
    std::vector<Vector> slope(n);
    for (std::size_t i = 0; i < n; ++i) {
      Vector moved = offset;
      moved[i] += kStep;
      slope[i] = log_times(moved);
      for (std::size_t row = 0; row < rows_.size(); ++row) slope[i][row] = (slope[i][row] - times[row]) / kStep;
    }
    std::vector<Vector> matrix(n, Vector(n, 0.0));
    Vector right(n, 0.0);
    for (std::size_t row = 0; row < rows_.size(); ++row) {
      const double error = error_of(times, row);
      const double weight = rows_[row]->weight / size_of(error) / kErrorScale;
      for (std::size_t i = 0; i < n; ++i) {
        right[i] -= weight * slope[i][row] * error;
        for (std::size_t k = 0; k <= i; ++k) matrix[i][k] += weight * slope[i][row] * slope[k][row];
      }
    }
    for (std::size_t i = 0; i < n; ++i) {
      right[i] -= offset[i] / (sigma_[i] * sigma_[i]);
      matrix[i][i] += 1 / (sigma_[i] * sigma_[i]);
      for (std::size_t k = 0; k < i; ++k) matrix[k][i] = matrix[i][k];
    }
    for (int attempt = 0; attempt < kMaxDamping; ++attempt, damping *= 6) {
      std::vector<Vector> damped = matrix;
      for (std::size_t i = 0; i < n; ++i) damped[i][i] *= 1 + damping;
      const Vector step = solve(damped, right);
      Point point{offset, 0};
      for (std::size_t i = 0; i < n; ++i) point.offset[i] += std::clamp(step[i], -kLongest, kLongest);
      point.cost = cost_of(point.offset, log_times(point.offset));
      if (point.cost < cost) {
        damping = std::max(damping / 6, 1e-4);
        return point;
      }
    }
    return std::nullopt;
  }

  Efficiency prior_;
  std::vector<const EfficiencyTerm*> terms_;
  Vector sigma_;
  std::vector<const MeasuredRecipe*> rows_;
};

}  // namespace

// C53
Efficiency fit_efficiency(const std::vector<MeasuredRecipe>& rows, const Efficiency& prior, int max_iterations,
                          double sigma_scale) {
  return Fit(rows, prior, sigma_scale).run(max_iterations);
}

}  // namespace coxswain::cost_model
