#include "cluster/cpu_share.h"

#include <sys/wait.h>
#include <unistd.h>

#include <ctime>
#include <fstream>

#include "cluster/cgroup.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

namespace coxswain::cluster {
namespace {

namespace fs = std::filesystem;

void put(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }

TEST_CASE("version 2: a folder with a quota of 4 ms periods, longer where the quota were too small", "[cpu_share]") {
  const TempDir root;
  put(root / "cgroup.controllers", "cpu memory\n");
  auto share = make_cpu_share("rank 0/x", 0.4, root.path());
  REQUIRE(share);
  const fs::path folder = fs::path((*share)->tasks_file()).parent_path();
  CHECK(folder.parent_path() == root.path());
  CHECK(folder.filename().string().rfind("coxswain-" + std::to_string(::getpid()) + "-", 0) == 0);
  CHECK(folder.filename().string().find("rank_0_x") != std::string::npos);
  CHECK(read_small_file(folder / "cpu.max") == "1600 4000");
  const auto small = make_cpu_share("rank 1", 0.24, root.path());
  REQUIRE(small);
  const fs::path of_small = fs::path((*small)->tasks_file()).parent_path();
  CHECK(read_small_file(of_small / "cpu.max") == "1000 4167");
  fs::remove(of_small / "cpu.max");
  CHECK(read_small_file(root / "cgroup.subtree_control") == "+cpu");
  REQUIRE((*share)->add_process(4711));
  CHECK(read_small_file((*share)->tasks_file()) == "4711");
  put(folder / "cpu.stat", "usage_usec 10\nnr_throttled 3\nthrottled_usec 2500000\n");
  CHECK((*share)->throttled_seconds() == 2.5);
  // A kernel folder has no files that one could remove; here they go first.
  for (const char* name : {"cpu.max", "cgroup.procs", "cpu.stat"}) fs::remove(folder / name);
  share->reset();
  CHECK_FALSE(fs::exists(folder));
}

TEST_CASE("two shares of one name are two folders", "[cpu_share]") {
  const TempDir root;
  fs::create_directories(root / "cpu");
  put(root / "cpu/cpu.cfs_quota_us", "-1");
  auto first = make_cpu_share("a", 1.5, root.path());
  auto second = make_cpu_share("a", 1.5, root.path());
  REQUIRE(first);
  REQUIRE(second);
  CHECK((*first)->tasks_file() != (*second)->tasks_file());
  for (auto* share : {&first, &second}) {
    const fs::path folder = fs::path((**share)->tasks_file()).parent_path();
    CHECK(read_small_file(folder / "cpu.cfs_period_us") == "4000");
    CHECK(read_small_file(folder / "cpu.cfs_quota_us") == "6000");
    fs::remove(folder / "cpu.cfs_period_us");
    fs::remove(folder / "cpu.cfs_quota_us");
  }
}

TEST_CASE("without a cpu controller the error says what to do", "[cpu_share]") {
  const TempDir root;
  const auto share = make_cpu_share("a", 1, root.path());
  REQUIRE_FALSE(share);
  CHECK(share.error().code == ErrorCode::FailedPrecondition);
  CHECK_FALSE(share.error().hint.empty());
}

TEST_CASE("a share below the kernel's least quota is refused", "[cpu_share]") {
  for (const double cores : {0.0, -1.0, 0.05}) {
    const auto share = make_cpu_share("a", cores);
    REQUIRE_FALSE(share);
    CHECK(share.error().code == ErrorCode::InvalidArgument);
  }
}

TEST_CASE("a folder left by a killed process goes, a living one's stays", "[cpu_share]") {
  const TempDir root;
  put(root / "cgroup.controllers", "cpu\n");
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  fs::create_directories(root / ("coxswain-" + std::to_string(child) + "-0-a"));
  fs::create_directories(root / ("coxswain-" + std::to_string(::getppid()) + "-0-a"));
  fs::create_directories(root / "somebody-else");
  auto share = make_cpu_share("a", 1, root.path());
  REQUIRE(share);
  CHECK_FALSE(fs::exists(root / ("coxswain-" + std::to_string(child) + "-0-a")));
  CHECK(fs::exists(root / ("coxswain-" + std::to_string(::getppid()) + "-0-a")));
  CHECK(fs::exists(root / "somebody-else"));
  fs::remove(fs::path((*share)->tasks_file()).parent_path() / "cpu.max");
}

TEST_CASE("a process in a share is throttled, and the folder goes after it", "[cpu_share]") {
  auto share = make_cpu_share("test", 0.2);
  if (!share) {
    // Without the right to make cgroups there is only the error to look at.
    CHECK(share.error().code == ErrorCode::FailedPrecondition);
    return;
  }
  const std::string tasks = (*share)->tasks_file();
  const fs::path folder = fs::path(tasks).parent_path();
  int gate[2];
  REQUIRE(::pipe(gate) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(gate[1]);
    char byte = 0;
    if (::read(gate[0], &byte, 1) < 0) ::_exit(1);
    // Fifty milliseconds of processor time: at 1 ms in 5 the quota must run out on the way.
    while (std::clock() < CLOCKS_PER_SEC / 20) {}
    ::_exit(0);
  }
  ::close(gate[0]);
  CHECK((*share)->add_process(child));
  CHECK(read_small_file(tasks) == std::to_string(child) + "\n");
  ::close(gate[1]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK((*share)->throttled_seconds() > 0);
  share->reset();
  CHECK_FALSE(fs::exists(folder));
}

TEST_CASE("the destructor waits for a process that is about to end", "[cpu_share]") {
  auto share = make_cpu_share("test", 0.2);
  if (!share) return;
  const fs::path folder = fs::path((*share)->tasks_file()).parent_path();
  int gate[2];
  REQUIRE(::pipe(gate) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(gate[1]);
    char byte = 0;
    const bool closed = ::read(gate[0], &byte, 1) == 0;
    // Ends a little after the parent has begun to remove the folder.
    while (std::clock() < CLOCKS_PER_SEC / 50) {}
    ::_exit(closed ? 0 : 1);
  }
  ::close(gate[0]);
  REQUIRE((*share)->add_process(child));
  ::close(gate[1]);
  share->reset();
  CHECK_FALSE(fs::exists(folder));
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
}

}  // namespace
}  // namespace coxswain::cluster
