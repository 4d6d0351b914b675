#include <numeric>

#include "tests/collective/conformance.h"

#include <catch2/catch.hpp>

using namespace coxswain::collective;

namespace {

void conform(Rank& rank) {
  const auto communicator = rank.communicator();
  if (communicator) run_conformance(*communicator, rank.report);
}

}  // namespace

TEST_CASE("host conforms with all ranks on one node") {
  const int size = GENERATE(1, 2, 3, 4, 8);
  CAPTURE(size);
  CHECK(run_threads(one_node(size), conform) == "");
}

TEST_CASE("host conforms between processes") {
  const int size = GENERATE(2, 3);
  CAPTURE(size);
  CHECK(run_processes(one_node(size), conform) == "");
}

TEST_CASE("host conforms over TCP between nodes") {
  CHECK(run_threads({"a", "b"}, conform) == "");
  CHECK(run_threads({"a", "b", "c"}, conform) == "");
}

TEST_CASE("host conforms with two ranks on each of two nodes") {
  CHECK(run_processes({"a", "a", "b", "b"}, conform) == "");
}

TEST_CASE("host conforms with nodes of three and two ranks, interleaved") {
  CHECK(run_threads({"a", "b", "a", "b", "a"}, conform) == "");
}
