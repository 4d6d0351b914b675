// Groups whose looks are worse than their guesses fall behind.
#include "planner/look_order.h"

#include <catch2/catch.hpp>

using namespace coxswain::planner;

TEST_CASE("the best guess of each group comes first, and groups that disappoint come later", "[look_order_test]") {
  std::vector<Task> tasks;
  for (const auto& [group, guess] :
       std::vector<std::pair<int, Cost>>{{0, 110}, {0, 100}, {1, 105}, {1, 106}, {2, 300}}) {
    Task& task = tasks.emplace_back();
    task.combination.group = group;
    task.guess = guess;
  }
  LookOrder order(tasks);
  CHECK(order.next(2, kNoCost) == std::vector<std::size_t>{1, 2});
  order.saw(1, 200);  // twice its guess: the next one of its group is expected at 220
  order.saw(2, 115);  // 106 x 115 / 105 is below that
  CHECK(order.next(1, kNoCost) == std::vector<std::size_t>{3});
  order.saw(3, kNoCost);  // group 1 has no more
  CHECK(order.next(8, kNoCost) == std::vector<std::size_t>{0, 4});
  CHECK(order.next(8, kNoCost).empty());
}

TEST_CASE("what was seen of many micro-batches says nothing of few", "[look_order_test]") {
  std::vector<Task> tasks(3);
  for (std::size_t i = 0; i < 3; ++i) tasks[i].guess = 100 + static_cast<Cost>(i);
  tasks[0].combination.count = 16;
  tasks[1].combination.count = 17;
  tasks[2].combination.count = 2;
  LookOrder order(tasks, true);
  CHECK(order.next(1, kNoCost) == std::vector<std::size_t>{0});
  order.saw(0, 300);
  CHECK(order.next(3, 200) == std::vector<std::size_t>{2});
}

TEST_CASE("nothing is looked at that is expected above the best look", "[look_order_test]") {
  std::vector<Task> tasks(2);
  tasks[0].guess = 100;
  tasks[1].guess = 120;
  LookOrder order(tasks);
  CHECK(order.next(2, 100).empty());
  CHECK(order.next(2, 101) == std::vector<std::size_t>{0});
}
