// Letters arrive once and in order, whatever connections break.
#include "launcher/control/mailbox.h"

#include <deque>
#include <random>
#include <vector>

#include <catch2/catch.hpp>

using coxswain::launcher::Mailbox;

namespace {

/// Two sides and what is on its way between them; `cut` loses it.
struct Wire {
  Mailbox here, there;
  std::deque<std::string> on_its_way, answers;
  std::vector<std::string> arrived;

  void send() {
    while (auto envelope = here.next()) on_its_way.push_back(std::move(*envelope));
  }
  void deliver() {
    if (on_its_way.empty()) return;
    if (auto letter = there.open(on_its_way.front()); letter && letter->number > 0) {
      arrived.push_back(letter->body);
      there.took(letter->number);
    }
    on_its_way.pop_front();
    answers.push_back(there.notice("heartbeat"));
  }
  void answer() {
    if (answers.empty()) return;
    const auto letter = here.open(answers.front());
    REQUIRE(letter);
    CHECK(letter->number == 0);
    CHECK(letter->body == "heartbeat");
    answers.pop_front();
  }
  void cut() {
    on_its_way.clear();
    answers.clear();
    here.open(there.notice("hello"));
    here.send_again();
  }
};

}  // namespace

TEST_CASE("letters arrive once and in order over connections that break at random", "[mailbox]") {
  const int seed = GENERATE(range(0, 20));
  std::mt19937 random(static_cast<unsigned>(seed));
  Wire wire;
  int written = 0;
  for (int turn = 0; turn < 2000; ++turn) {
    switch (random() % 8) {
      case 0:
      case 1: wire.here.add(std::to_string(written++)); break;
      case 2: wire.send(); break;
      case 3:
      case 4: wire.deliver(); break;
      case 5:
      case 6: wire.answer(); break;
      default:
        if (random() % 10 == 0) wire.cut();
    }
  }
  wire.cut();
  wire.send();
  while (!wire.on_its_way.empty()) wire.deliver();
  while (!wire.answers.empty()) wire.answer();
  REQUIRE(wire.arrived.size() == static_cast<std::size_t>(written));
  for (int i = 0; i < written; ++i) CHECK(wire.arrived[static_cast<std::size_t>(i)] == std::to_string(i));
  CHECK(wire.here.waiting() == 0);
}

TEST_CASE("who comes back without its memory is sent everything; what it took before is passed over", "[mailbox]") {
  Mailbox agent, coordinator;
  agent.add("first");
  agent.add("second");
  const auto first = coordinator.open(*agent.next());
  coordinator.took(first->number);
  // The coordinator is made again out of its journal, which knows of "first".
  Mailbox again;
  again.took(1);
  again.add("a command that was decided before");
  agent.open(again.notice("heartbeat"));
  agent.send_again();
  CHECK(again.open(*agent.next())->body == "second");
  CHECK_FALSE(agent.next());
  CHECK(agent.open(*again.next())->body == "a command that was decided before");
}

TEST_CASE("an envelope that is broken holds nothing, and a word about letters never sent is none", "[mailbox]") {
  Mailbox here, boaster;
  CHECK_FALSE(here.open("\xff\xff\xff"));
  boaster.took(7);
  here.add("one");
  here.open(boaster.notice(""));
  CHECK(here.waiting() == 0);
  here.add("two");
  CHECK(here.next());
}

TEST_CASE("no more is on its way than a connection holds", "[mailbox]") {
  Mailbox here, there;
  for (int i = 0; i < 10000; ++i) here.add("x");
  int sent = 0;
  std::string last;
  while (auto envelope = here.next()) {
    ++sent;
    last = *envelope;
  }
  CHECK(sent == 4096);
  const auto letter = there.open(last);
  there.took(letter->number);
  here.open(there.notice(""));
  CHECK(here.next());
}
