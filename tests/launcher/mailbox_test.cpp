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
    for (auto& letter : there.open(on_its_way.front())) {
      arrived.push_back(letter.body);
      there.took(letter.number);
    }
    on_its_way.pop_front();
    answers.push_back(there.notice("heartbeat"));
  }
  void answer() {
    if (answers.empty()) return;
    const auto letters = here.open(answers.front());
    REQUIRE(letters.size() == 1);
    CHECK(letters[0].number == 0);
    CHECK(letters[0].body == "heartbeat");
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
  const auto both = coordinator.open(*agent.next());
  REQUIRE(both.size() == 2);
  coordinator.took(both[0].number);
  // The coordinator is made again out of its journal, which knows of "first".
  Mailbox again;
  again.took(1);
  again.add("a command that was decided before");
  agent.open(again.notice("heartbeat"));
  agent.send_again();
  const auto rest = again.open(*agent.next());
  REQUIRE(rest.size() == 1);
  CHECK(rest[0].body == "second");
  CHECK_FALSE(agent.next());
  CHECK(agent.open(*again.next()).at(0).body == "a command that was decided before");
}

TEST_CASE("an envelope that is broken holds nothing, and a word about letters never sent is none", "[mailbox]") {
  Mailbox here, boaster;
  CHECK(here.open("\xff\xff\xff").empty());
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
  std::vector<Mailbox::Letter> sent;
  while (auto envelope = here.next()) {
    for (auto& letter : there.open(*envelope)) sent.push_back(std::move(letter));
  }
  CHECK(sent.size() == 4096);
  CHECK(here.unsent() == 10000 - 4096);
  there.took(sent.back().number);
  here.open(there.notice(""));
  CHECK(here.next());
}

TEST_CASE("letters that are not sent travel together, as many as an envelope holds", "[mailbox]") {
  Mailbox here, there;
  const std::string half(512 << 10, 'x');
  for (const char* small : {"a", "b"}) here.add(small);
  for (int i = 0; i < 3; ++i) here.add(half);
  const auto first = there.open(*here.next());
  REQUIRE(first.size() == 4);
  CHECK(first[0].body == "a");
  CHECK(first[1].body == "b");
  CHECK(first[3].number == 4);
  here.add("c");
  const auto second = there.open(*here.next());
  REQUIRE(second.size() == 2);
  CHECK(second[0].number == 5);
  CHECK(second[0].body == half);
  CHECK(second[1].body == "c");
  CHECK_FALSE(here.next());
}
