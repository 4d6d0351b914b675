#include "proto/channel.h"

#include <atomic>
#include <thread>

#include "common/hash.h"
#include "proto/error_json.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::proto;

namespace {

Deadline soon() { return Deadline::after(steady_clock(), Seconds(20)); }

/// Sends back what it gets, with "echo " before it.
void echo(Stream& stream) {
  while (auto body = stream.receive()) stream.send("echo " + *body);
}

std::string target_of(const Server& server) { return "127.0.0.1:" + std::to_string(server.port()); }

}  // namespace

TEST_CASE("a stream carries messages both ways, in order", "[channel]") {
  auto server = start_server({"127.0.0.1:0", Service::Coordinator, {"key", false}, "run"}, echo);
  REQUIRE(server);
  auto stream = connect(target_of(**server), Service::Coordinator, {"key", false}, soon());
  REQUIRE(stream);
  CHECK((*stream)->run_id() == "run");
  for (int i = 0; i < 100; ++i) CHECK((*stream)->send(std::to_string(i)));
  for (int i = 0; i < 100; ++i) CHECK((*stream)->receive() == "echo " + std::to_string(i));
  (*stream)->close();
  CHECK_FALSE((*stream)->receive());
  CHECK((*stream)->status());
}

TEST_CASE("a wrong key is refused before the handler sees anything", "[channel]") {
  std::atomic<int> handled{0};
  auto server = start_server({"127.0.0.1:0", Service::Coordinator, {"key", false}, "run"}, [&](Stream& stream) {
    ++handled;
    echo(stream);
  });
  REQUIRE(server);
  auto stream = connect(target_of(**server), Service::Coordinator, {"another", false}, soon());
  REQUIRE(stream);
  (*stream)->send("hello");
  CHECK_FALSE((*stream)->receive());
  REQUIRE_FALSE((*stream)->status());
  CHECK((*stream)->status().error().code == ErrorCode::Unauthenticated);
  CHECK(handled == 0);
}

TEST_CASE("between nodes the key is made of token and run id", "[channel]") {
  auto server = start_server({"127.0.0.1:0", Service::Coordinator, {"token", true}, "run 7"}, echo);
  REQUIRE(server);
  auto by_token = connect(target_of(**server), Service::Coordinator, {"token", true}, soon());
  REQUIRE(by_token);
  (*by_token)->send("a");
  CHECK((*by_token)->receive() == "echo a");
  auto by_key = connect(target_of(**server), Service::Coordinator, {hmac_sha256_hex("token", "run 7"), false}, soon());
  REQUIRE(by_key);
  (*by_key)->send("b");
  CHECK((*by_key)->receive() == "echo b");
}

TEST_CASE("a Unix socket serves workers, and a service does not answer for the other", "[channel]") {
  TempDir folder;
  const std::string target = "unix:" + (folder / "agent.sock").string();
  auto server = start_server({target, Service::Agent, {"key", false}, "run"}, echo);
  REQUIRE(server);
  auto stream = connect(target, Service::Agent, {"key", false}, soon());
  REQUIRE(stream);
  (*stream)->send("x");
  CHECK((*stream)->receive() == "echo x");
  CHECK_FALSE(connect(target, Service::Coordinator, {"key", false}, soon()));
}

TEST_CASE("a taken port is an error of this machine", "[channel]") {
  auto first = start_server({"127.0.0.1:0", Service::Coordinator, {"key", false}, "run"}, echo);
  REQUIRE(first);
  auto second = start_server({target_of(**first), Service::Coordinator, {"key", false}, "run"}, echo);
  REQUIRE_FALSE(second);
  CHECK(second.error().code == ErrorCode::FailedPrecondition);
}

TEST_CASE("a stopped server ends the streams of its peers", "[channel]") {
  auto server = start_server({"127.0.0.1:0", Service::Coordinator, {"key", false}, "run"}, echo);
  REQUIRE(server);
  auto stream = connect(target_of(**server), Service::Coordinator, {"key", false}, soon());
  REQUIRE(stream);
  (*stream)->send("x");
  CHECK((*stream)->receive() == "echo x");
  (*server)->stop();
  CHECK_FALSE((*stream)->receive());
}

TEST_CASE("nobody listening is told at the deadline", "[channel]") {
  TempDir folder;
  const auto stream = connect("unix:" + (folder / "none").string(), Service::Agent, {"key", false},
                              Deadline::after(steady_clock(), Seconds(0.2)));
  REQUIRE_FALSE(stream);
  CHECK(stream.error().code == ErrorCode::DeadlineExceeded);
}

TEST_CASE("an error crosses a process boundary whole", "[channel]") {
  const Error error{ErrorCode::InvalidArgument,
                    "a \"quoted\"\nmessage",
                    "path",
                    "e",
                    "g",
                    "h",
                    {{ErrorCode::DataLoss, "inner", "", "", "", ""}}};
  CHECK(error_from_text(error_to_text(error)) == error);
  CHECK(error_from_text("nonsense").code == ErrorCode::Internal);
}
