#include "launcher/control/spawner.h"

#include <signal.h>
#include <sys/wait.h>

#include "common/bytes_io.h"
#include "launcher/control/event_queue.h"
#include "launcher/control/exit_cause.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

struct Bench {
  EventQueue<ProcessExit> exits;
  TempDir folder;
  std::unique_ptr<Spawner> spawner = make_process_spawner([this](const ProcessExit& exit) { exits.push(exit); });

  SpawnRequest shell(const std::string& script) {
    SpawnRequest request;
    request.program = "/bin/sh";
    request.arguments = {"-c", script};
    return request;
  }
  ProcessExit wait() {
    auto exit = exits.pop(Deadline::after(steady_clock(), Seconds(20)).at);
    REQUIRE(exit);
    return *exit;
  }
};

}  // namespace

TEST_CASE("a child's exit code and signal come back", "[spawner]") {
  Bench bench;
  REQUIRE(bench.spawner->spawn(bench.shell("exit 7")));
  const ProcessExit code = bench.wait();
  CHECK_FALSE(code.signalled);
  CHECK(code.number == 7);
  CHECK(describe_exit(code, false) == "exit 7");
  REQUIRE(bench.spawner->spawn(bench.shell("kill -SEGV $$")));
  const ProcessExit signal = bench.wait();
  CHECK(signal.signalled);
  CHECK(describe_exit(signal, false) == "signal 11");
  CHECK(describe_exit({1, true, 9}, true) == "out of memory");
}

TEST_CASE("key, stdin, environment and files reach the child; other descriptors do not", "[spawner]") {
  Bench bench;
  SpawnRequest request = bench.shell("cat; echo; cat <&$COX_KEY_FD; echo; echo $GIVEN >&2; ls /proc/self/fd | wc -l");
  request.stdin_text = std::string(200000, 'x');  // more than a pipe holds
  request.key = "the key";
  request.environment["GIVEN"] = "given";
  request.stdout_file = bench.folder / "deep/out";
  request.stderr_file = bench.folder / "deep/err";
  REQUIRE(bench.spawner->spawn(request));
  CHECK(bench.wait().number == 0);
  const std::string out = *read_file(bench.folder / "deep/out");
  // 0, 1, 2, the key's, and the one that ls lists with.
  CHECK(out == std::string(200000, 'x') + "\nthe key\n5\n");
  CHECK(*read_file(bench.folder / "deep/err") == "given\n");
}

TEST_CASE("a program that is not there and a log that exists are errors, and leave no child", "[spawner]") {
  Bench bench;
  SpawnRequest request;
  request.program = "/nonexistent/program";
  const auto missing = bench.spawner->spawn(request);
  REQUIRE_FALSE(missing);
  CHECK(missing.error().code == ErrorCode::FailedPrecondition);
  SpawnRequest twice = bench.shell("true");
  twice.stdout_file = bench.folder / "out";
  REQUIRE(bench.spawner->spawn(twice));
  CHECK_FALSE(bench.spawner->spawn(twice));
}

TEST_CASE("a signal ends the child's whole group, the destructor ends the rest", "[spawner]") {
  Bench bench;
  SpawnRequest request = bench.shell("sleep 1000 & echo $! ; wait");
  request.stdout_file = bench.folder / "out";
  const auto pid = bench.spawner->spawn(request);
  REQUIRE(pid);
  bench.spawner->send_signal(*pid, SIGKILL);
  const ProcessExit exit = bench.wait();
  CHECK(exit.pid == *pid);
  CHECK(exit.number == SIGKILL);
  const auto other = bench.spawner->spawn(bench.shell("sleep 1000"));
  REQUIRE(other);
  bench.spawner.reset();
  CHECK(::kill(*other, 0) != 0);
}

TEST_CASE("a child that a signal stopped is known, with the time that it worked, and one that goes on", "[spawner]") {
  Bench bench;
  const std::string works = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; ";
  const auto pid = bench.spawner->spawn(bench.shell("kill -STOP $$; " + works + "kill -STOP $$; exit 4"));
  REQUIRE(pid);
  const auto await_stop = [&] {
    siginfo_t info{};
    REQUIRE(::waitid(P_PID, static_cast<id_t>(*pid), &info, WSTOPPED) == 0);
    return bench.spawner->stopped_at(*pid);
  };
  const auto first = await_stop();
  REQUIRE(first);
  CHECK(bench.spawner->stopped_at(*pid) == first);
  bench.spawner->send_signal(*pid, SIGCONT);
  const auto second = await_stop();
  REQUIRE(second);
  CHECK(*second > *first);
  bench.spawner->send_signal(*pid, SIGCONT);
  CHECK(bench.wait().number == 4);
  CHECK_FALSE(bench.spawner->stopped_at(*pid));
}

TEST_CASE("the last lines of a log, without control characters", "[exit_cause]") {
  TempDir folder;
  REQUIRE(write_file(folder / "log", "a\nb\n\x1b[31mc\nd\n"));
  CHECK(last_lines(folder / "log", 2) == " [31mc\nd");
  CHECK(last_lines(folder / "log", 9) == "a\nb\n [31mc\nd");
  CHECK(last_lines(folder / "none", 2).empty());
}
