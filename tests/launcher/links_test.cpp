#include "worker/service/links.h"

#include <thread>

#include "collective/backend.h"
#include "common/hash.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;

TEST_CASE("one pair a node, one pair between each two nodes", "[links]") {
  using Pairs = std::vector<std::pair<int, int>>;
  CHECK(worker::link_pairs({"a"}).empty());
  CHECK(worker::link_pairs({"a", "a", "a"}) == Pairs{{0, 1}});
  CHECK(worker::link_pairs({"a", "b", "a", "c"}) == Pairs{{0, 2}, {0, 1}, {0, 3}, {1, 3}});
}

TEST_CASE("links are measured through the host backend", "[links]") {
  TempDir scratch;
  constexpr int kRanks = 3;
  std::vector<std::unique_ptr<collective::Endpoint>> endpoints;
  std::vector<std::string> addresses;
  for (int rank = 0; rank < kRanks; ++rank) {
    collective::EndpointOptions options;
    options.rank = rank;
    options.size = kRanks;
    options.node = "n";
    options.job_key = "key";
    options.run_id = "run";
    options.scratch_dir = scratch.path().string();
    auto endpoint = collective::open_endpoint(options);
    REQUIRE(endpoint);
    endpoints.push_back(std::move(*endpoint));
    addresses.push_back(endpoints.back()->address());
  }
  std::vector<std::vector<worker::LinkMeasurement>> measured(kRanks);
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < kRanks; ++rank) {
      threads.emplace_back([&, rank] {
        const Deadline deadline = Deadline::after(steady_clock(), Seconds(60));
        auto world = endpoints[static_cast<std::size_t>(rank)]->connect(addresses, deadline);
        if (!world) return;
        if (auto links = worker::measure_links(**world, {"n", "n", "n"}, deadline))
          measured[static_cast<std::size_t>(rank)] = *links;
      });
    }
  }
  REQUIRE(measured[0].size() == 1);
  CHECK(measured[0][0].from == 0);
  CHECK(measured[0][0].to == 1);
  CHECK(measured[0][0].latency.value > 0);
  CHECK(measured[0][0].bandwidth.value > 0);
  CHECK(measured[1].empty());
}
