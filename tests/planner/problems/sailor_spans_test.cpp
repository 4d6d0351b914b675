// Classes of GPUs, and what spans cost on them.
#include "planner/problems/sailor_spans.h"
#include "tests/planner/problems/sailor_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::planner::sailor_test;

TEST_CASE("zones with links of one speed are one class, types are not", "[sailor_spans_test]") {
  const SailorInstance instance = make_instance(2, 4, {{0, 0, 3}, {0, 1, 4}, {1, 0, 2}});
  const SailorModel model(instance);
  const auto classes = make_classes(model);
  REQUIRE(classes.size() == 2);
  std::vector<int> counts{classes[0].count, classes[1].count};
  std::sort(counts.begin(), counts.end());
  CHECK(counts == std::vector<int>{2, 7});
}

TEST_CASE("a span takes the sum of its layers, a mixed stage the slower group's", "[sailor_spans_test]") {
  // A layer takes 1 s on a and 2 s on b, half of it on two GPUs.
  const SailorInstance instance = make_instance(3, 4, {{0, 0, 2}, {1, 0, 2}});
  const SailorModel model(instance);
  const auto classes = make_classes(model);
  const SailorSpans spans(model, classes, 1);
  const auto group = [&](int gpu, int tp) {
    for (std::size_t g = 0; g < spans.groups().size(); ++g) {
      const SailorGroup& one = spans.groups()[g];
      if (classes[static_cast<std::size_t>(one.class_index)].gpu == gpu && one.tp == tp) return static_cast<int>(g);
    }
    return -1;
  };
  CHECK(spans.compute({group(0, 1), -1}, 0, 2) == 2'000'000'000'000);
  CHECK(spans.compute({group(0, 2), -1}, 1, 3) == 1'000'000'000'000);
  CHECK(spans.compute({group(0, 1), group(1, 1)}, 0, 3) == 6'000'000'000'000);
  CHECK(spans.update({group(1, 2), -1}, 0) == 250'000'000'000);
}
