#include "cluster/cgroup.h"

#include <cmath>
#include <fstream>

#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

namespace coxswain::cluster {
namespace {

void put(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

TEST_CASE("version 1: the tightest limit on the way up counts", "[cgroup]") {
  const TempDir root;
  const std::string own = "4:memory:/job/a\n3:cpu,cpuacct:/job/a\n0::/\n";
  put(root / "cpu/cpu.cfs_quota_us", "-1\n");
  put(root / "cpu/cpu.cfs_period_us", "100000\n");
  put(root / "cpu/job/cpu.cfs_quota_us", "150000\n");
  put(root / "cpu/job/cpu.cfs_period_us", "100000\n");
  put(root / "cpu/job/a/cpu.cfs_quota_us", "-1\n");
  put(root / "cpu/job/a/cpu.cfs_period_us", "10000\n");
  put(root / "memory/memory.limit_in_bytes", "9223372036854771712\n");
  put(root / "memory/job/memory.limit_in_bytes", "1000000\n");
  put(root / "memory/job/a/memory.limit_in_bytes", "2000000\n");
  CHECK(cgroup_cores(root.path(), own) == 1.5);
  CHECK(cgroup_memory(root.path(), own) == Bytes(1000000));
  const auto cpu = find_controller("cpu", root.path(), own);
  REQUIRE(cpu);
  CHECK(cpu->version == 1);
  CHECK(cpu->own == root / "cpu/job/a");
}

TEST_CASE("version 2: the tightest limit on the way up counts", "[cgroup]") {
  const TempDir root;
  const std::string own = "0::/user/session\n";
  put(root / "cgroup.controllers", "cpuset cpu memory pids\n");
  put(root / "user/cpu.max", "max 100000\n");
  put(root / "user/memory.max", "4000\n");
  put(root / "user/session/cpu.max", "50000 100000\n");
  put(root / "user/session/memory.max", "max\n");
  CHECK(cgroup_cores(root.path(), own) == 0.5);
  CHECK(cgroup_memory(root.path(), own) == Bytes(4000));
  const auto cpu = find_controller("cpu", root.path(), own);
  REQUIRE(cpu);
  CHECK(cpu->version == 2);
  CHECK(cpu->own == root / "user/session");
}

TEST_CASE("no limit, no controller, a path that the container hides", "[cgroup]") {
  const TempDir root;
  CHECK(std::isinf(cgroup_cores(root.path(), "0::/\n")));
  CHECK_FALSE(cgroup_memory(root.path(), "0::/\n"));
  put(root / "cgroup.controllers", "cpuset pids\n");
  CHECK_FALSE(find_controller("cpu", root.path(), "0::/\n"));
  put(root / "cgroup.controllers", "cpu\n");
  put(root / "cpu.max", "30000 10000\n");
  CHECK(cgroup_cores(root.path(), "0::/docker/0123\n") == 3.0);
}

TEST_CASE("a hybrid machine keeps the controller in one of two trees", "[cgroup]") {
  const TempDir root;
  put(root / "unified/cgroup.controllers", "cpu\n");
  put(root / "memory/memory.limit_in_bytes", "77\n");
  const auto cpu = find_controller("cpu", root.path(), "4:memory:/\n0::/\n");
  REQUIRE(cpu);
  CHECK(cpu->mount == root / "unified");
  CHECK(cgroup_memory(root.path(), "4:memory:/\n0::/\n") == Bytes(77));
}

}  // namespace
}  // namespace coxswain::cluster
