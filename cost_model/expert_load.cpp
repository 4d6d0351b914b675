#include "cost_model/expert_load.h"

#include <cmath>

#include "common/ensure.h"

namespace coxswain::cost_model {
namespace {

/// x with so much of the standard normal distribution below it, 0.5 <= probability < 1.
double normal_quantile(double probability) {
  double low = 0, high = 8;
  for (int i = 0; i < 40; ++i) {
    const double middle = (low + high) / 2;
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < probability ? low : high) = middle;
  }
  return low;
}

}  // namespace

double expected_imbalance(int experts, int places, double load_cv) {
  COX_ENSURE(places >= 1 && places <= experts && load_cv >= 0, experts, places, load_cv);
  if (places == 1 || load_cv == 0) return 1;
  // Of a finite population of experts each place draws k without putting back: variance / k, (experts - k) / (experts -
  // 1) of it.
  const double all = experts, each = all / places;
  const double place_cv = load_cv * std::sqrt((all - each) / (all - 1) / each);
  // Blom 1958: the greatest of n lies where n - 0.375 of n + 0.25 lie below. Loads sum to a constant, so that they
  // differ by more than independent ones of the same variance.
  const double greatest = normal_quantile((places - 0.375) / (places + 0.25));
  return 1 + place_cv * greatest * std::sqrt(static_cast<double>(places) / (places - 1));
}

}  // namespace coxswain::cost_model
