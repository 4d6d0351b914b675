// What was written is there again, whoever died; what is damaged or another run's is refused.
#include "launcher/control/journal.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "common/bytes_io.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

Input input(int i) {
  Input made;
  made.kind = static_cast<InputKind>(1 + i % 9);
  made.at = TimePoint(std::chrono::nanoseconds(1'000'000'007 * static_cast<std::int64_t>(i)));
  made.agent = i;
  made.number = static_cast<std::uint64_t>(i) << 40;
  made.body = std::string(static_cast<std::size_t>(i), '\0') + "body";
  return made;
}

void check_inputs(const Journal& journal, int count) {
  const auto found = journal.inputs();
  REQUIRE(found);
  REQUIRE(found->size() == static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    const Input& one = (*found)[static_cast<std::size_t>(i)];
    CHECK(one.kind == input(i).kind);
    CHECK(one.at == input(i).at);
    CHECK(one.agent == i);
    CHECK(one.number == input(i).number);
    CHECK(one.body == input(i).body);
  }
}

}  // namespace

TEST_CASE("a journal holds what was added, in order, for whoever opens it next", "[journal]") {
  TempDir folder;
  const auto file = folder / "coordinator.db";
  {
    auto journal = Journal::open(file, "run");
    REQUIRE(journal);
    check_inputs(*journal, 0);
    REQUIRE(journal->add({input(0), input(1)}));
    REQUIRE(journal->add({input(2)}));
  }
  auto journal = Journal::open(file, "run");
  REQUIRE(journal);
  check_inputs(*journal, 3);
  journal->remove();
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("a journal whose writer was killed holds all that it was told was written", "[journal]") {
  TempDir folder;
  const auto file = folder / "coordinator.db";
  int told[2];
  REQUIRE(::pipe(told) == 0);
  const pid_t writer = ::fork();
  if (writer == 0) {
    auto journal = Journal::open(file, "run");
    for (int i = 0; journal && i < 1'000'000; ++i) {
      if (!journal->add({input(i)})) break;
      const char byte = 1;
      if (::write(told[1], &byte, 1) != 1) break;
    }
    ::_exit(0);
  }
  ::close(told[1]);
  char bytes[37];
  int count = 0;
  while (count < 37) count += static_cast<int>(::read(told[0], bytes, static_cast<std::size_t>(37 - count)));
  ::kill(writer, SIGKILL);
  while (const auto more = ::read(told[0], bytes, sizeof bytes)) count += static_cast<int>(more);
  ::waitpid(writer, nullptr, 0);
  ::close(told[0]);
  const auto journal = Journal::open(file, "run");
  REQUIRE(journal);
  const auto found = journal->inputs();
  REQUIRE(found);
  const int written = static_cast<int>(found->size());
  CHECK((written == count || written == count + 1));  // killed between its commit and its word
  check_inputs(*journal, written);
}

TEST_CASE("steps of the generation that goes on give way to one input; those before it stay", "[journal]") {
  TempDir folder;
  auto journal = Journal::open(folder / "coordinator.db", "run");
  REQUIRE(journal);
  const auto report = [](std::int64_t step, const std::string& body) {
    return Input{InputKind::AgentReport, {}, 0, 1, step, body};
  };
  const auto other = [](InputKind kind, const std::string& body) { return Input{kind, {}, 0, 1, 0, body}; };
  const auto bodies = [&] {
    std::string text;
    const auto inputs = journal->inputs();
    for (const Input& one : *inputs) text += one.body;
    return text;
  };
  REQUIRE(journal->add({report(1, "a"), report(2, "b"), other(InputKind::RecoveryFound, "R"), report(2, "c"),
                        other(InputKind::AgentReport, "S"), report(3, "d"), report(4, "e")}));
  REQUIRE(journal->replace_steps(3, other(InputKind::StepsTaken, "3")));
  CHECK(bodies() == "abRSe3");
  REQUIRE(journal->add({report(5, "f")}));
  REQUIRE(journal->replace_steps(5, other(InputKind::StepsTaken, "5")));
  CHECK(bodies() == "abRS5");
  // What a plan or a look at steps brought depended on the steps before it.
  for (const InputKind kind : {InputKind::PlanChosen, InputKind::PlanFailed, InputKind::Calibrated}) {
    REQUIRE(journal->add({report(6, "g"), other(kind, "P"), report(6, "h")}));
    REQUIRE(journal->replace_steps(6, other(InputKind::StepsTaken, "6")));
  }
  CHECK(bodies() == "abRS5gP6gP6gP6");
}

TEST_CASE("a journal that is damaged or of another run is refused", "[journal]") {
  TempDir folder;
  const auto file = folder / "coordinator.db";
  {
    auto journal = Journal::open(file, "run");
    REQUIRE(journal);
    for (int i = 0; i < 500; ++i) REQUIRE(journal->add({input(i)}));
  }
  SECTION("another run") {
    const auto journal = Journal::open(file, "other");
    REQUIRE_FALSE(journal);
    CHECK(journal.error().code == ErrorCode::DataLoss);
    CHECK(journal.error().got.find("run") != std::string::npos);
  }
  SECTION("damaged") {
    std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(4096 * 3 + 4);
    bytes << std::string(200, '\x5a');
    bytes.close();
    const auto journal = Journal::open(file, "run");
    REQUIRE_FALSE(journal);
    CHECK(journal.error().code == ErrorCode::DataLoss);
  }
  SECTION("no SQLite file at all") {
    REQUIRE(write_file(
        file, "something else that is longer than a header of SQLite, which has 100 bytes; so a bit more of it"));
    const auto journal = Journal::open(file, "run");
    REQUIRE_FALSE(journal);
  }
  SECTION("a folder that is not there") {
    const auto journal = Journal::open(folder / "none" / "coordinator.db", "run");
    REQUIRE_FALSE(journal);
    CHECK(journal.error().code == ErrorCode::FailedPrecondition);
  }
}
