#include "cluster/inventory.h"

#include <sched.h>
#include <unistd.h>

#include <catch2/catch.hpp>

namespace coxswain::cluster {
namespace {

TEST_CASE("the inventory of this machine stays within what the kernel says", "[inventory]") {
  const Inventory inventory = take_inventory();
  cpu_set_t affinity;
  REQUIRE(sched_getaffinity(0, sizeof affinity, &affinity) == 0);
  CHECK(inventory.cores > 0);
  CHECK(inventory.cores <= CPU_COUNT(&affinity));
  CHECK(inventory.numa_nodes >= 1);
  CHECK(inventory.memory > Bytes(0));
  CHECK(inventory.memory.value <= static_cast<std::int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE));
  // Either devices or the reason why there are none.
  CHECK(inventory.cuda.empty() == !inventory.cuda_note.empty());
}

TEST_CASE("a narrower affinity leaves fewer cores", "[inventory]") {
  cpu_set_t before;
  REQUIRE(sched_getaffinity(0, sizeof before, &before) == 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &before)) continue;
    CPU_SET(cpu, &one);
    break;
  }
  REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
  const Inventory inventory = take_inventory();
  REQUIRE(sched_setaffinity(0, sizeof before, &before) == 0);
  CHECK(inventory.cores <= 1.0);
}

}  // namespace
}  // namespace coxswain::cluster
