#include "worker/service/clock_offset.h"

#include <thread>

#include "collective/backend.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;

namespace {

/// The machine's clock, ahead by a fixed time.
class AheadClock final : public Clock {
 public:
  explicit AheadClock(std::chrono::nanoseconds ahead) : ahead_(ahead) {}
  TimePoint now() const override { return steady_clock().now() + ahead_; }
  std::string utc_text() const override { return steady_clock().utc_text(); }

 private:
  std::chrono::nanoseconds ahead_;
};

/// What every rank finds when rank r's clock is `ahead[r]` seconds ahead.
std::vector<worker::ClockOffset> measure(const std::vector<std::string>& nodes, const std::vector<int>& ahead) {
  TempDir scratch;
  std::vector<std::unique_ptr<collective::Endpoint>> endpoints;
  std::vector<std::string> addresses;
  for (std::size_t rank = 0; rank < nodes.size(); ++rank) {
    collective::EndpointOptions options;
    options.rank = static_cast<int>(rank);
    options.size = static_cast<int>(nodes.size());
    options.node = nodes[rank];
    options.job_key = "key";
    options.run_id = "run";
    options.scratch_dir = scratch.path().string();
    auto endpoint = collective::open_endpoint(options);
    REQUIRE(endpoint);
    endpoints.push_back(std::move(*endpoint));
    addresses.push_back(endpoints.back()->address());
  }
  std::vector<worker::ClockOffset> found(nodes.size(), {-1, -1});
  {
    std::vector<std::jthread> threads;
    for (std::size_t rank = 0; rank < nodes.size(); ++rank) {
      threads.emplace_back([&, rank] {
        const Deadline deadline = Deadline::after(steady_clock(), Seconds(60));
        auto world = endpoints[rank]->connect(addresses, deadline);
        if (!world) return;
        const AheadClock clock(std::chrono::seconds(ahead[rank]));
        if (const auto offset = worker::measure_clock_offset(**world, nodes, clock, deadline)) found[rank] = *offset;
      });
    }
  }
  return found;
}

}  // namespace

TEST_CASE("the offset of another node's clock is found within the error that is told", "[clock_offset]") {
  const auto found = measure({"a", "a", "b", "b", "c"}, {0, 0, 1000, 1000, -50});
  constexpr std::int64_t kSecond = 1'000'000'000;
  for (const std::size_t rank : {0, 1}) {
    CHECK(found[rank].offset_nanoseconds == 0);
    CHECK(found[rank].error_nanoseconds == 0);
  }
  CHECK(std::abs(found[2].offset_nanoseconds - 1000 * kSecond) <= found[2].error_nanoseconds);
  CHECK(found[2].error_nanoseconds > 0);
  CHECK(found[3].offset_nanoseconds == found[2].offset_nanoseconds);
  CHECK(std::abs(found[4].offset_nanoseconds + 50 * kSecond) <= found[4].error_nanoseconds);
}

TEST_CASE("ranks of one node have one clock", "[clock_offset]") {
  for (const worker::ClockOffset& offset : measure({"a", "a"}, {0, 0})) {
    CHECK(offset.offset_nanoseconds == 0);
    CHECK(offset.error_nanoseconds == 0);
  }
}
