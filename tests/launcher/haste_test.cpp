// Of a rank's reports only those of steps wait, and not the first of them.
#include "launcher/control/haste.h"

#include "proto/control.pb.h"
#include "tests/support/manual_clock.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

std::string step() {
  control::WorkerReport report;
  report.mutable_step()->set_step(1);
  return report.SerializeAsString();
}

std::vector<std::string> others() {
  std::vector<control::WorkerReport> reports(6);
  reports[0].set_ready("address");
  reports[1].mutable_measured();
  reports[2].mutable_checked();
  reports[3].mutable_failure();
  reports[4].mutable_finished();
  reports[5].mutable_saved();
  std::vector<std::string> texts;
  for (const auto& report : reports) texts.push_back(report.SerializeAsString());
  return texts;
}

}  // namespace

TEST_CASE("steps of a rank that stepped for 10 s wait for the heartbeat", "[haste]") {
  ManualClock clock;
  ReportHaste haste;
  clock.advance(Seconds(60));  // it takes its time until the first step
  CHECK(haste.of(step(), clock.now()) == Haste::AtOnce);
  clock.advance(Seconds(9.9));
  CHECK(haste.of(step(), clock.now()) == Haste::AtOnce);
  clock.advance(Seconds(0.2));
  CHECK(haste.of(step(), clock.now()) == Haste::WithNextBeat);
}

TEST_CASE("a process that goes on in another generation is young again", "[haste]") {
  ManualClock clock;
  ReportHaste haste;
  CHECK(haste.of(step(), clock.now()) == Haste::AtOnce);
  clock.advance(Seconds(60));
  CHECK(haste.of(step(), clock.now()) == Haste::WithNextBeat);
  control::WorkerReport parked;
  parked.mutable_parked();
  CHECK(haste.of(parked.SerializeAsString(), clock.now()) == Haste::AtOnce);
  CHECK(haste.of(step(), clock.now()) == Haste::AtOnce);
}

TEST_CASE("what is no step never waits", "[haste]") {
  ManualClock clock;
  ReportHaste haste;
  CHECK(haste.of(step(), clock.now()) == Haste::AtOnce);
  clock.advance(Seconds(60));
  for (const std::string& other : others()) CHECK(haste.of(other, clock.now()) == Haste::AtOnce);
  CHECK(haste.of("\xff\xff", clock.now()) == Haste::AtOnce);
  CHECK(haste.of(step(), clock.now()) == Haste::WithNextBeat);
}
