// Streams between a rank and its agent: nothing lost or out of order where the socket is full, nobody let in without
// the key.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "proto/channel.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::proto;

namespace {

Deadline soon() { return Deadline::after(steady_clock(), Seconds(20)); }

/// A server on a Unix socket in a folder of its own.
struct Scene {
  TempDir folder;
  const std::string target = "unix:" + (folder / "agent.sock").string();
  std::unique_ptr<Server> server;

  explicit Scene(std::function<void(Stream&)> handler, const Secret& secret = {"key", false}) {
    auto started = start_server({target, Service::Agent, secret, "run"}, std::move(handler));
    REQUIRE(started);
    server = std::move(*started);
  }
  std::unique_ptr<Stream> connect(const Secret& secret = {"key", false}) const {
    auto stream = proto::connect(target, Service::Agent, secret, soon());
    REQUIRE(stream);
    return std::move(*stream);
  }
};

/// Closed until it is opened.
class Gate {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

std::string message(int number) { return std::to_string(number) + std::string(1000, '.'); }

}  // namespace

TEST_CASE("what a socket does not hold waits, and arrives in order when the stream is closed", "[unix_stream]") {
  constexpr int kMessages = 5000;
  Gate gate;
  int right = 0;
  std::string large, over = "none";
  Scene scene([&](Stream& stream) {
    gate.wait();
    for (int i = 0; i < kMessages; ++i) right += stream.receive() == message(i) ? 1 : 0;
    large = stream.receive().value_or("");
    over = stream.receive().value_or("over");
  });
  const auto stream = scene.connect();
  for (int i = 0; i < kMessages; ++i) REQUIRE(stream->send(message(i)));
  CHECK(stream->send(std::string(20 << 20, 'x')));
  stream->close();
  CHECK_FALSE(stream->send("after the end"));
  gate.open();
  CHECK_FALSE(stream->receive());  // the server's side ends when its handler does
  CHECK(right == kMessages);
  CHECK(large == std::string(20 << 20, 'x'));
  CHECK(over == "over");
  CHECK(stream->status());
}

TEST_CASE("a peer that does not read ends the stream when too much waits", "[unix_stream]") {
  Gate gate;
  Scene scene([&](Stream&) { gate.wait(); });
  const auto stream = scene.connect();
  int sent = 0;
  while (sent < 20000 && stream->send(message(sent))) ++sent;
  gate.open();
  CHECK(sent > 10000);
  CHECK(sent < 20000);
  CHECK_FALSE(stream->receive());
}

TEST_CASE("both sides may speak at once", "[unix_stream]") {
  Scene scene([](Stream& stream) {
    for (int i = 0; i < 1000; ++i) stream.send(message(i));
    while (auto body = stream.receive()) stream.send("echo " + *body);
  });
  const auto stream = scene.connect();
  for (int i = 0; i < 1000; ++i) CHECK(stream->send(std::to_string(i)));
  stream->close();
  for (int i = 0; i < 1000; ++i) CHECK(stream->receive() == message(i));
  for (int i = 0; i < 1000; ++i) CHECK(stream->receive() == "echo " + std::to_string(i));
  CHECK_FALSE(stream->receive());
}

TEST_CASE("a rank without the key is refused before the handler sees anything", "[unix_stream]") {
  std::atomic<int> handled{0};
  Scene scene([&](Stream&) { ++handled; });
  const auto stream = scene.connect({"another", false});
  stream->send("hello");
  CHECK_FALSE(stream->receive());
  REQUIRE_FALSE(stream->status());
  CHECK(stream->status().error().code == ErrorCode::Unauthenticated);
  CHECK(handled == 0);
}

TEST_CASE("bytes that are no greeting end the connection", "[unix_stream]") {
  const std::string bytes = GENERATE(std::string(64, '\xff'), std::string("\x05\x00\x00\x00hello", 9),
                                     std::string("\xff\xff\xff\x0f", 4), std::string(""));
  std::atomic<int> handled{0};
  Scene scene([&](Stream&) { ++handled; });
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, scene.target.substr(5).c_str());
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size()));
  ::shutdown(socket, SHUT_WR);
  char answer[64];
  CHECK(::recv(socket, answer, sizeof answer, 0) <= 0);
  ::close(socket);
  CHECK(handled == 0);
}

TEST_CASE("a server that stops ends the streams of its peers and leaves no socket", "[unix_stream]") {
  Scene scene([](Stream& stream) {
    while (auto body = stream.receive()) stream.send("echo " + *body);
  });
  const auto one = scene.connect();
  const auto two = scene.connect();
  one->send("x");
  CHECK(one->receive() == "echo x");
  scene.server->stop();
  CHECK_FALSE(one->receive());
  CHECK_FALSE(two->receive());
  CHECK_FALSE(std::filesystem::exists(scene.folder / "agent.sock"));
}

TEST_CASE("a taken path is an error", "[unix_stream]") {
  Scene scene([](Stream&) {});
  const auto second = start_server({scene.target, Service::Agent, {"key", false}, "run"}, [](Stream&) {});
  REQUIRE_FALSE(second);
  CHECK(second.error().code == ErrorCode::FailedPrecondition);
}

TEST_CASE("a stream that is cancelled wakes who receives", "[unix_stream]") {
  Scene scene([](Stream& stream) { stream.receive(); });
  const auto stream = scene.connect();
  std::jthread receiver([&] { CHECK_FALSE(stream->receive()); });
  stream->cancel();
  receiver.join();
  CHECK_FALSE(stream->send("x"));
}
