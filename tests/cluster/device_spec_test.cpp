#include "cluster/device_spec.h"

#include <catch2/catch.hpp>

namespace coxswain::cluster {
namespace {

DeviceRequest cpu(double cores, bool explicit_share = false) { return {DeviceKind::Cpu, -1, cores, explicit_share}; }
DeviceRequest cuda(int index) { return {DeviceKind::Cuda, index, 0, false}; }

std::vector<DeviceRequest> parse(std::string_view spec, double cores = 2, int num_cuda = 0, int num_numa = 1) {
  const auto requests = parse_device_spec(spec, cores, num_cuda, num_numa);
  if (!requests) FAIL(to_text(requests.error()));
  return *requests;
}

TEST_CASE("cores without a share are shared out evenly", "[device_spec]") {
  CHECK(parse("2xcpu") == std::vector<DeviceRequest>{cpu(1), cpu(1)});
  CHECK(parse("4xcpu") == std::vector<DeviceRequest>(4, cpu(0.5)));
  CHECK(parse("cpu") == std::vector<DeviceRequest>{cpu(2)});
  CHECK(parse("cpu@0.5,2xcpu", 4.5) == std::vector<DeviceRequest>{cpu(0.5, true), cpu(2), cpu(2)});
}

TEST_CASE("an explicit share is kept and marked", "[device_spec]") {
  CHECK(parse("cpu@1.0,cpu@0.4") == std::vector<DeviceRequest>{cpu(1.0, true), cpu(0.4, true)});
  CHECK(parse("2xcpu@1") == std::vector<DeviceRequest>{cpu(1, true), cpu(1, true)});
  CHECK(parse("cpu@0.7,cpu@0.2,cpu@0.1", 1.0).size() == 3);
}

TEST_CASE("CUDA devices by index, range and count", "[device_spec]") {
  CHECK(parse("cuda:0-3", 2, 4) == std::vector<DeviceRequest>{cuda(0), cuda(1), cuda(2), cuda(3)});
  CHECK(parse("2xcuda", 2, 4) == std::vector<DeviceRequest>{cuda(0), cuda(1)});
  CHECK(parse("2xcuda,cuda:0,cpu", 2, 4) == std::vector<DeviceRequest>{cuda(1), cuda(2), cuda(0), cpu(2)});
}

TEST_CASE("auto is every CUDA device, or a CPU device a NUMA node", "[device_spec]") {
  CHECK(parse("auto", 8, 2) == std::vector<DeviceRequest>{cuda(0), cuda(1)});
  CHECK(parse("auto", 8, 0, 2) == std::vector<DeviceRequest>{cpu(4), cpu(4)});
  CHECK(parse("auto", 2, 0, 0) == std::vector<DeviceRequest>{cpu(2)});
}

struct Bad {
  const char* spec;
  int column;
  const char* message;
};

TEST_CASE("a mistake is named with its column", "[device_spec]") {
  for (const Bad& bad : {Bad{"", 1, "empty device"},
                         Bad{"cpu,", 5, "empty device"},
                         Bad{"gpu", 1, "unknown kind of device"},
                         Bad{"2xtpu", 3, "unknown kind of device"},
                         Bad{"cpu@1.0,auto", 9, "unknown kind of device"},
                         Bad{"2cpu", 2, "number without 'x'"},
                         Bad{"0xcpu", 1, "not a number in range"},
                         Bad{"99999xcpu", 1, "not a number in range"},
                         Bad{"cpu:0", 4, "a CPU device has no index"},
                         Bad{"cpu@", 5, "not a number of cores"},
                         Bad{"cpu@-1", 5, "not a number of cores"},
                         Bad{"cpu@0", 5, "not a number of cores"},
                         Bad{"cpu@inf", 5, "not a number of cores"},
                         Bad{"cpu@1.0x", 8, "unexpected text after the device"},
                         Bad{"cuda@1", 5, "only a CPU device takes a share of cores"},
                         Bad{"cuda:", 6, "not a number in range"},
                         Bad{"cuda:3-1", 8, "not a number in range"},
                         Bad{"2xcuda:0", 7, "a count and an index exclude each other"},
                         Bad{"cuda:0,cuda:0-1", 8, "device is named twice"},
                         Bad{"cuda:0-9", 1, "this machine has fewer CUDA devices"},
                         Bad{"cuda:0,4xcuda", 8, "this machine has fewer CUDA devices"},
                         Bad{"cpu@1.5,cpu@1.5", 9, "devices ask for more cores than this machine has"},
                         Bad{"cpu@2,cpu", 7, "devices ask for more cores than this machine has"}}) {
    CAPTURE(bad.spec);
    const auto requests = parse_device_spec(bad.spec, 2, 4, 1);
    REQUIRE_FALSE(requests);
    CHECK(requests.error().code == ErrorCode::InvalidArgument);
    CHECK(requests.error().message == bad.message);
    CHECK(requests.error().path == "devices column " + std::to_string(bad.column));
  }
}

TEST_CASE("every mistake is reported", "[device_spec]") {
  const auto requests = parse_device_spec("gpu,cpu,cpu@x", 2, 0, 1);
  REQUIRE_FALSE(requests);
  REQUIRE(requests.error().details.size() == 2);
  CHECK(requests.error().details[1].path == "devices column 13");
}

}  // namespace
}  // namespace coxswain::cluster
