// Metis's formulas by hand, and what is between measured points.
#include "planner/problems/metis_model.h"

#include "tests/planner/problems/metis_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;

namespace {

MetisInstance measured() {
  MetisInstance instance = make_metis();
  instance.points[{0, 1}][2] = make_point({1, 10, 100}, {100, 100, 100}, 7);
  instance.points[{0, 2}][2] = make_point({0.5, 5, 50}, {50, 50, 50}, 3);
  instance.points[{1, 1}][2] = make_point({2, 20, 200}, {100, 100, 100}, 9);
  return instance;
}

}  // namespace

TEST_CASE("Metis: a step of two stages, term by term", "[metis_model_test]") {
  const MetisInstance instance = measured();
  const MetisModel model(instance);
  // 2 micro-batches of 4: layers 0 and 1 on one host of FAST as two replicas of 2 samples, layer 2 on SLOW likewise.
  const MetisPlan plan{2, {{0, 2, 1, {{0, 2, 2, 0}}}, {2, 3, 1, {{1, 2, 2, 0}}}}};
  const auto estimate = model.estimate(plan);
  REQUIRE(estimate);
  const double compute = (2 - 1) * 200 + (11 + 200);
  const double sync = 2 * (9 + 0.25);                             // of the last stage, and the generator
  const double update = std::max(2 * 6 * 2.0 / 3, 2 * 12 / 3.0);  // 8 each
  const double reduce = std::max(2 * 0.5 * 3000 / 100.0, 2 * 0.5 * 3000 / 100.0);
  const double cut = 2 * 10 * 50 / 5.0;  // the cut before the last layer has the vocabulary; the slower network
  CHECK(estimate->ms == Approx(compute + sync + update + reduce + cut).epsilon(1e-12));
  CHECK(estimate->low_ms == estimate->ms);
  CHECK(estimate->high_ms == estimate->ms);
}

TEST_CASE("Metis: bandwidth is the host's inside it, the slowest network's outside", "[metis_model_test]") {
  const MetisInstance instance = measured();
  const MetisModel model(instance);
  const MetisStage inside{0, 3, 1, {{0, 2, 2, 2}}}, across{0, 3, 1, {{0, 2, 2, 1}}}, alone{0, 3, 2, {{0, 1, 2, 0}}},
      mixed{0, 3, 1, {{0, 1, 2, 0}, {1, 1, 2, 0}}};
  CHECK(model.common_host(inside) == 1);
  CHECK(model.common_host(across) == -1);
  CHECK(model.reduce_ms(inside) == Approx(2 * 0.5 * 6000 / 100));
  CHECK(model.reduce_ms(across) == Approx(2 * 0.5 * 6000 / 10));
  CHECK(model.reduce_ms(mixed) == Approx(2 * 0.5 * 6000 / 5));
  CHECK(model.reduce_ms(alone) == 0);
  CHECK(model.update_ms(alone) == Approx(2 * 6 / 2));
  // Inside one host a cut after layer 0 carries samples x sequence x hidden numbers.
  CHECK(model.cut_ms({0, 1, 1, {{0, 1, 2, 0}}}, {1, 3, 1, {{0, 1, 2, 1}}}) == Approx(2 * 10 * 4 / 100.0));
  CHECK(model.cut_ms({0, 1, 1, {{0, 1, 2, 1}}}, {1, 3, 1, {{0, 1, 2, 2}}}) == Approx(2 * 10 * 4 / 10.0));
}

TEST_CASE("Metis: tensor groups stay inside hosts", "[metis_model_test]") {
  const MetisInstance instance = measured();
  const MetisModel model(instance);
  CHECK(model.find_room(0, 2, 1, 0) == 0);
  CHECK(model.find_room(0, 2, 1, 1) == 2);
  CHECK(model.find_room(0, 2, 2, 0) == 0);
  CHECK(model.find_room(0, 2, 2, 1) == -1);
  CHECK(model.find_room(0, 1, 3, 1) == 1);
  CHECK(model.find_room(1, 4, 1, 0) == -1);
}

TEST_CASE("Metis: between two batches time is on a line and inside stated bounds", "[metis_model_test]") {
  MetisInstance instance = make_metis();
  instance.points[{0, 1}][2] = make_point({10, 10, 40}, {100, 100, 100}, 4);
  instance.points[{0, 1}][6] = make_point({30, 18, 20}, {140, 100, 100}, 8);
  const MetisModel model(instance);
  CHECK(!model.times({0, 1}, 1));
  CHECK(!model.times({0, 1}, 7));
  CHECK(!model.times({0, 2}, 2));
  CHECK(model.times({0, 1}, 2)->measured);
  const auto times = model.times({0, 1}, 3);  // a quarter of the way
  REQUIRE(times);
  CHECK(!times->measured);
  CHECK(times->sync_ms == Approx(5));
  CHECK(times->ms[1] == Approx(15));  // as many samples a second: nothing is open
  CHECK(times->low_ms[1] == Approx(15));
  CHECK(times->high_ms[1] == Approx(15));
  CHECK(times->ms[2] - times->ms[1] == Approx(12));
  CHECK(times->low_ms[2] - times->low_ms[1] == Approx(10));    // no less than two samples take
  CHECK(times->high_ms[2] - times->high_ms[1] == Approx(15));  // no more a sample than two take
  CHECK(times->ms[3] - times->ms[2] == Approx(35));
  CHECK(times->low_ms[3] - times->low_ms[2] == Approx(20));  // a larger batch that is faster: anything between
  CHECK(times->high_ms[3] - times->high_ms[2] == Approx(40));
  CHECK(times->mb[1] == Approx(110));
  CHECK(times->growth_mb[1] == Approx(30));  // 10 MB a sample
}

TEST_CASE("Metis: memory counts the micro-batches in flight", "[metis_model_test]") {
  MetisInstance instance = make_metis();
  instance.points[{0, 1}][1] = make_point({1, 1, 1}, {110, 110, 110}, 0);
  instance.points[{0, 1}][2] = make_point({2, 2, 2}, {120, 120, 120}, 0);
  const MetisModel model(instance);
  const auto plan = [](std::int64_t count, std::int64_t samples) {
    return MetisPlan{
        count, {{0, 1, 1, {{0, 1, samples, 0}}}, {1, 2, 1, {{0, 1, samples, 1}}}, {2, 3, 1, {{0, 1, samples, 2}}}}};
  };
  // 8 micro-batches of one sample: the first stage holds 110 + 2 x 10.
  instance.types[0].memory_mb = 130;
  CHECK(model.estimate(plan(8, 1)));
  instance.types[0].memory_mb = 129;
  CHECK(!model.estimate(plan(8, 1)));
  // 4 of two: 120 + 2 x 20.
  instance.types[0].memory_mb = 160;
  CHECK(model.estimate(plan(4, 2)));
  instance.types[0].memory_mb = 159;
  CHECK(!model.estimate(plan(4, 2)));
}

TEST_CASE("Metis: plans that break a rule have no estimate", "[metis_model_test]") {
  const MetisInstance instance = measured();
  const MetisModel model(instance);
  const MetisPlan good{4, {{0, 3, 1, {{0, 1, 2, 0}}}}};
  REQUIRE(model.estimate(good));
  MetisPlan bad = good;
  bad.micro_batches = 3;  // does not divide 8
  CHECK(!model.estimate(bad));
  bad = good;
  bad.micro_batches = 2;  // 4 samples wanted, 2 given
  CHECK(!model.estimate(bad));
  bad = good;
  bad.stages[0].end = 2;
  CHECK(!model.estimate(bad));
  bad = good;
  bad.stages[0].replicas[0].first_device = 4;
  CHECK(!model.estimate(bad));
  bad = {4, {{0, 1, 1, {{0, 1, 2, 0}}}, {1, 3, 1, {{0, 1, 2, 0}}}}};  // one device twice
  CHECK(!model.estimate(bad));
}
