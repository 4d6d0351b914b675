// Actions that end, spin or wait, under a watch.
#include "worker/service/action_watch.h"

#include <atomic>

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::worker;

namespace {

constexpr double kPatienceSeconds = 60;

/// Computes as told.
class Scripted final : public executor::Compute {
 public:
  Result<void> start(const plan::Action&) override {
    body();
    return {};
  }
  Result<bool> finished() override { return true; }
  Result<executor::Communication> prepare(const plan::Action&) override { return executor::Communication{}; }
  Result<void> finish(const plan::Action&) override { return {}; }

  std::function<void()> body = [] {};
};

const plan::Action kForward{plan::ActionKind::Forward, 3, 0, 4, -1};

/// What was told, for the thread that computes.
struct Told {
  std::mutex mutex;
  std::condition_variable changed;
  std::atomic<bool> any = false;
  std::vector<HungAction> found;

  void add(const HungAction& hung) {
    const std::lock_guard lock(mutex);
    found.push_back(hung);
    any = true;
    changed.notify_all();
  }
};

}  // namespace

TEST_CASE("an action that spins is told as computing, one that waits as waiting", "[action_watch]") {
  const bool spins = GENERATE(true, false);
  Scripted compute;
  Told told;
  compute.body = [&] {
    const Deadline deadline = Deadline::after(steady_clock(), Seconds(kPatienceSeconds));
    if (spins) {
      while (!told.any && !deadline.passed(steady_clock())) {}
      return;
    }
    std::unique_lock lock(told.mutex);
    told.changed.wait_until(lock, deadline.at, [&] { return told.any.load(); });
  };
  ActionWatch watch(compute, Seconds(0.4), [&](const HungAction& hung) { told.add(hung); });
  REQUIRE(watch.start(kForward));
  REQUIRE(told.found.size() == 1);
  CHECK(told.found[0].spins == spins);
  CHECK(told.found[0].running.value >= 0.4);
  CHECK(plan::to_text(told.found[0].action) == plan::to_text(kForward));
}

TEST_CASE("actions that end are not told, however many", "[action_watch]") {
  Scripted compute;
  int told = 0, actions = 0;
  {
    ActionWatch watch(compute, Seconds(0.2), [&](const HungAction&) { ++told; });
    // Ten times the limit in all.
    const Deadline deadline = Deadline::after(steady_clock(), Seconds(2));
    while (!deadline.passed(steady_clock())) {
      if (!watch.start(kForward) || !watch.finished()) FAIL("the script has no errors");
      ++actions;
    }
  }
  CHECK(told == 0);
  CHECK(actions > 1);
}
