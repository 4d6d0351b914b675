#include "collective/backend.h"

#include <algorithm>

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::collective;

TEST_CASE("host can always be opened and comes before MPI on CPU devices") {
  const auto names = available_backends(false);
  REQUIRE_FALSE(names.empty());
  CHECK(names.front() == "host");
  CHECK(std::find(names.begin(), names.end(), "nccl") == names.end());
}

TEST_CASE("an unknown backend is refused with the list of those there are") {
  EndpointOptions options;
  options.backend = "gloo";
  const auto endpoint = open_endpoint(options);
  REQUIRE_FALSE(endpoint.has_value());
  CHECK(endpoint.error().code == ErrorCode::InvalidArgument);
  CHECK(endpoint.error().expected == "auto, host, mpi or nccl");
  CHECK(endpoint.error().got == "gloo");
}

TEST_CASE("a missing or driverless nccl says what is missing and how to get it") {
  const auto cuda = available_backends(true);
  if (std::find(cuda.begin(), cuda.end(), "nccl") != cuda.end()) return;  // this machine has it
  EndpointOptions options;
  options.backend = "nccl";
  const auto endpoint = open_endpoint(options);
  REQUIRE_FALSE(endpoint.has_value());
  CHECK(endpoint.error().code == ErrorCode::FailedPrecondition);
  CHECK(endpoint.error().message.find("nccl") != std::string::npos);
  CHECK(endpoint.error().hint.find("driver") != std::string::npos);
}

TEST_CASE("a rank alone completes everything at once") {
  CompletionSignal signal;
  EndpointOptions options;
  options.backend = "auto";
  options.signal = &signal;
  auto endpoint = open_endpoint(options);
  REQUIRE(endpoint.has_value());
  auto communicator = (*endpoint)->connect({(*endpoint)->address()}, Deadline::never());
  REQUIRE(communicator.has_value());
  float value = 3;
  Handle handle = (*communicator)->all_reduce({&value, 1, DType::Float32}, ReduceOp::Sum, Deadline::never());
  CHECK(handle.done());
  CHECK(value == 3);
  CHECK(signal.count() == 1);
}

TEST_CASE("a rank outside the world is refused") {
  EndpointOptions options;
  options.rank = 2;
  options.size = 2;
  options.job_key = "key";
  const auto endpoint = open_endpoint(options);
  REQUIRE_FALSE(endpoint.has_value());
  CHECK(endpoint.error().code == ErrorCode::InvalidArgument);
}
