#include "cluster/nvml.h"

#include <catch2/catch.hpp>

namespace coxswain::cluster {
namespace {

TEST_CASE("a missing library is said, not failed on", "[nvml]") {
  const NvmlDevices found = read_nvml("libnvidia-ml-none.so.1");
  CHECK(found.devices.empty());
  CHECK(found.note == "NVML not found: libnvidia-ml-none.so.1");
}

TEST_CASE("a library without the calls is said to be too old", "[nvml]") {
  const NvmlDevices found = read_nvml("libm.so.6");
  CHECK(found.devices.empty());
  CHECK(found.note == "NVML is too old: libm.so.6 lacks nvmlInit_v2");
}

TEST_CASE("devices come with memory and link", "[nvml]") {
  // tests/cluster/fake_nvml.cpp: two devices, the second without NVLink.
  const NvmlDevices found = read_nvml(COX_FAKE_NVML);
  CHECK(found.note.empty());
  REQUIRE(found.devices.size() == 2);
  CHECK(found.devices[0].ordinal == 0);
  CHECK(found.devices[0].name == "Fake H100");
  CHECK(found.devices[0].memory == Bytes(80'000'000'000));
  CHECK(found.devices[0].link == "nvlink");
  CHECK(found.devices[1].ordinal == 1);
  CHECK(found.devices[1].link == "pcie");
}

}  // namespace
}  // namespace coxswain::cluster
