#include "launcher/control/step_times.h"

#include <algorithm>
#include <random>

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

StepRow row_of(std::int64_t step, double seconds) {
  StepRow row;
  row.step = step;
  row.step_seconds = seconds;
  return row;
}

/// As the journal keeps it.
template <class Kept>
Kept written_and_read(const Kept& kept) {
  return Kept::from_json(*parse_json(to_text(kept.to_json())));
}

}  // namespace

TEST_CASE("the quoted step time is the median of steps from 5 on", "[step_times]") {
  StepTimes times;
  times.add(row_of(1, 9.0));
  times.add(row_of(2, 7.0));
  CHECK(times.median_seconds() == 8.0);
  for (int step = 5; step < 8; ++step) times.add(row_of(step, 0.1 * step));
  CHECK(times.median_seconds() == Approx(0.6));
  CHECK(written_and_read(times).median_seconds() == times.median_seconds());
}

TEST_CASE("the median of many step times is right within 0.05 %, in little memory", "[step_times]") {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> seconds(-2, 0.7);
  RunningMedian median;
  std::vector<double> all;
  for (int i = 0; i < 20001; ++i) {
    all.push_back(seconds(random));
    median.add(all.back());
    if (i == 300 || i == 5000) median = written_and_read(median);
  }
  std::sort(all.begin(), all.end());
  CHECK(median.value() == Approx(all[10000]).epsilon(6e-4));
  CHECK(to_text(median.to_json()).size() < 100000);  // exact values would be 360,000
}

TEST_CASE("sums of steps forget what came after a step, and each counts once", "[step_times]") {
  StepSums sums;
  sums.add(7, {1, 0});
  sums.add(8, {10, 2});
  sums.add(9, {100, 20});
  CHECK(sums.total().all == 111);
  CHECK(sums.total().slower == 22);
  CHECK(sums.forget_after(9) == 0);
  CHECK(sums.forget_after(7) == 110);
  CHECK(sums.total().all == 1);
  sums.add(8, {1000, 200});
  CHECK(sums.total().all == 1001);
  CHECK(sums.total().slower == 200);
  CHECK(sums.forget_after(6) == 1001);  // to where the run began
  CHECK(sums.total().all == 0);
  sums.add(7, {3, 0});
  CHECK(sums.total().all == 3);
}

TEST_CASE("sums of a long run are exact for new steps and near for old ones", "[step_times]") {
  const std::int64_t back = GENERATE(0, 1, 127, 1000, 60000, 99999);
  INFO(back);
  constexpr std::int64_t kSteps = 100000;
  const auto seconds_of = [](std::int64_t step) { return static_cast<double>(1 + step % 3); };
  StepSums sums;
  double all = 0, after = 0;
  for (std::int64_t step = 1; step <= kSteps; ++step) {
    sums.add(step, {seconds_of(step), 0});
    all += seconds_of(step);
    if (step > kSteps - back) after += seconds_of(step);
    if (step == 50000) sums = written_and_read(sums);
  }
  CHECK(to_text(sums.to_json()).size() < 10000);
  const double forgotten = sums.forget_after(kSteps - back);
  if (back < 128) CHECK(forgotten == after);
  CHECK(forgotten == Approx(after).margin(2));  // between two kept steps it is on their line
  CHECK(sums.total().all == all - forgotten);
}
