// C53: constants that made the times are found again; outliers and silence do not move them.
#include "cost_model/fit_efficiency.h"

#include "tests/cost_model/make_recipe.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

namespace {

/// Runs of which the half differs in the share of collectives, so that two constants can be told apart.
std::vector<MeasuredRecipe> runs_with(const Efficiency& truth) {
  std::vector<MeasuredRecipe> rows;
  for (const double tensor : {1.0, 2.0, 4.0, 8.0}) {
    for (const double micro_batch : {1.0, 10.0}) {
      MeasuredRecipe row;
      row.shape = make_small_shape();
      row.recipe.tensor = tensor;
      row.recipe.micro_batch = micro_batch;
      row.machine = make_recipe_machine();
      row.machine.domain_devices = 8;
      row.machine.node_link.bandwidth.value = BytesPerSecond(4);
      row.step = estimate_recipe(row.shape, row.recipe, row.machine, truth)->step;
      row.weight = 10;
      rows.push_back(row);
    }
  }
  return rows;
}

Efficiency truth() {
  Efficiency e = make_plain_efficiency();
  e.matmul_16bit = 0.8;
  e.node_link = 0.7;
  return e;
}

}  // namespace

TEST_CASE("C53: what made the times is found again", "[fit_efficiency_test]") {
  const Efficiency fitted = fit_efficiency(runs_with(truth()), make_plain_efficiency(), 20, 10);
  CHECK(fitted.matmul_16bit == Approx(0.8).epsilon(0.01));
  CHECK(fitted.node_link == Approx(0.7).epsilon(0.01));
  CHECK(fitted.all_to_all == Approx(1));  // no row speaks of it
}

TEST_CASE("C53: a row that is ten times off pulls little", "[fit_efficiency_test]") {
  auto rows = runs_with(truth());
  rows[3].step = rows[3].step * 10.0;
  const Efficiency fitted = fit_efficiency(rows, make_plain_efficiency(), 30, 10);
  CHECK(fitted.matmul_16bit == Approx(0.8).epsilon(0.05));
}

TEST_CASE("C53: without rows, and with rows that cannot be estimated, the prior stays", "[fit_efficiency_test]") {
  CHECK(fit_efficiency({}, truth(), 20) == truth());
  auto rows = runs_with(truth());
  for (MeasuredRecipe& row : rows) row.shape.hidden = 0;
  CHECK(fit_efficiency(rows, truth(), 20) == truth());
}

TEST_CASE("C53: the same rows give the same bits", "[fit_efficiency_test]") {
  CHECK(fit_efficiency(runs_with(truth()), prior_efficiency(), 5) ==
        fit_efficiency(runs_with(truth()), prior_efficiency(), 5));
}
