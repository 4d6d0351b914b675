// The table of constants: complete, named once, and what is built in lies where one expects it (C53).
#include "cost_model/efficiency.h"

#include <cmath>
#include <set>
#include <string>

#include <catch2/catch.hpp>

using namespace coxswain::cost_model;

TEST_CASE("every constant stands in the table once, in the order of the struct", "[efficiency_test]") {
  REQUIRE(efficiency_terms().size() * sizeof(double) == sizeof(Efficiency));
  Efficiency probe;
  const double* first = &probe.matmul_16bit;
  std::set<std::string> names;
  std::ptrdiff_t place = 0;
  for (const EfficiencyTerm& term : efficiency_terms()) {
    CHECK(&(probe.*(term.value)) - first == place++);
    CHECK(names.insert(term.name).second);
    CHECK(term.prior > 0);
    CHECK(term.log_sigma > 0);
    CHECK(std::string(term.source).size() > 5);
  }
}

TEST_CASE("the priors are the struct's own values", "[efficiency_test]") { CHECK(prior_efficiency() == Efficiency{}); }

TEST_CASE("C53: built-in constants stay within three widths of their priors", "[efficiency_test]") {
  const Efficiency fitted = default_efficiency();
  for (const EfficiencyTerm& term : efficiency_terms()) {
    INFO(term.name);
    CHECK(std::abs(std::log(fitted.*(term.value) / term.prior)) < 3 * term.log_sigma);
  }
}

TEST_CASE("the groups that were fitted are named once", "[efficiency_test]") {
  std::set<std::string> names;
  for (const char* group : fitted_groups()) CHECK(names.insert(group).second);
  CHECK(names.size() == 57);
}
