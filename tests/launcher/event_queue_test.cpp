// Events come in order, whether they wake the one that waits or not.
#include "launcher/control/event_queue.h"

#include <atomic>
#include <thread>
#include <vector>

#include "common/clock.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

TimePoint soon() { return Deadline::after(steady_clock(), Seconds(20)).at; }

}  // namespace

TEST_CASE("what wakes nobody is popped with the event after it, in order", "[event_queue]") {
  EventQueue<int> queue;
  std::vector<int> popped;
  std::jthread waits([&] {
    while (popped.empty() || popped.back() != 3)
      if (const auto event = queue.pop(soon())) popped.push_back(*event);
  });
  queue.push_later(1);
  queue.push_later(2);
  queue.push(3);
  waits.join();
  CHECK(popped == std::vector{1, 2, 3});
}

TEST_CASE("what wakes nobody is there when the wait ends, or has not begun", "[event_queue]") {
  EventQueue<int> queue;
  queue.push_later(1);
  CHECK(queue.pop(TimePoint{}) == 1);
  CHECK_FALSE(queue.pop(TimePoint{}));
}

TEST_CASE("a flood of what wakes nobody wakes all the same", "[event_queue]") {
  constexpr int kMany = 1000;
  EventQueue<int> queue;
  std::atomic<int> popped = 0;
  std::jthread waits([&] {
    while (popped < kMany && queue.pop(TimePoint::max())) ++popped;
  });
  queue.push(0);
  while (popped == 0) std::this_thread::yield();
  while (popped < kMany) queue.push_later(0);  // for ever, if it wakes nobody
  waits.join();
  CHECK(popped == kMany);
}
