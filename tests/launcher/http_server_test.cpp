// A real server on loopback, and clients that speak to it by bytes.
#include "launcher/rest/http_server.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <optional>
#include <thread>

#include "launcher/rest/problem.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

/// Reads until the other side ends, or `enough` stands in what came.
class Client {
 public:
  explicit Client(int port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    REQUIRE(::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client() { ::close(socket_); }

  void send(const std::string& text) {
    REQUIRE(::send(socket_, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size()));
  }
  /// What came up to and with `enough`; all until the end where that is empty.
  std::string read(const std::string& enough = "") {
    const Deadline deadline = Deadline::after(steady_clock(), Seconds(30));
    while (enough.empty() || came_.find(enough) == std::string::npos) {
      pollfd entry{socket_, POLLIN, 0};
      const int left = static_cast<int>(deadline.remaining(steady_clock()).value * 1000);
      REQUIRE(::poll(&entry, 1, left) == 1);
      char bytes[65536];
      const ssize_t size = ::recv(socket_, bytes, sizeof bytes, 0);
      if (size <= 0) break;
      came_.append(bytes, static_cast<std::size_t>(size));
    }
    const std::size_t end = enough.empty() ? came_.size() : came_.find(enough) + enough.size();
    std::string text = came_.substr(0, std::min(end, came_.size()));
    came_.erase(0, std::min(end, came_.size()));
    return text;
  }

 private:
  int socket_;
  std::string came_;
};

HttpResponse text_response(const std::string& body) {
  HttpResponse response;
  response.content_type = "text/plain";
  response.body = body;
  return response;
}

/// Answers with what it was asked; what is above 100 bytes is too long, /no is refused.
HttpHandler echo() {
  return {[](const HttpRequest& head) -> std::variant<std::size_t, HttpResponse> {
            if (head.path == "/no") return problem(403, "no");
            return std::size_t{100};
          },
          [](const HttpRequest& request, const Reply& reply) {
            reply(text_response(request.method + " " + request.path + " " + request.header("x-a") + " " + request.body +
                                "."));
          }};
}

std::unique_ptr<HttpServer> serve(HttpHandler handler, HttpLimits limits = {}) {
  auto server = make_http_server({"127.0.0.1:0", "", "", limits}, std::move(handler));
  REQUIRE(server);
  (*server)->start();
  return std::move(*server);
}

const std::string kHost = "Host: here\r\n";

}  // namespace

TEST_CASE("requests of one connection are answered one after the other", "[http_server]") {
  const auto server = serve(echo());
  Client client(server->port());
  client.send("GET /one HTTP/1.1\r\n" + kHost + "X-A: b\r\n\r\nPOST /two HTTP/1.1\r\n" + kHost +
              "Content-Length: 5\r\n\r\nhello");
  const std::string first = client.read("GET /one b .");
  CHECK(first.starts_with("HTTP/1.1 200 OK\r\n"));
  CHECK(first.find("X-Content-Type-Options: nosniff\r\n") != std::string::npos);
  CHECK(client.read("POST /two  hello.").find("HTTP/1.1 200 OK\r\n") != std::string::npos);
  client.send("POST /three HTTP/1.1\r\n" + kHost +
              "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  CHECK(client.read("POST /three  abcde.").ends_with("POST /three  abcde."));
  client.send("GET /four HTTP/1.1\r\n" + kHost + "Connection: close\r\n\r\n");
  CHECK(client.read().ends_with("GET /four  ."));
}

TEST_CASE("HEAD has the length of what GET has, and no body", "[http_server]") {
  const auto server = serve(echo());
  Client client(server->port());
  client.send("HEAD /one HTTP/1.1\r\n" + kHost + "\r\nGET /one HTTP/1.1\r\n" + kHost + "Connection: close\r\n\r\n");
  const std::string all = client.read();
  const std::string body = "HEAD /one  .";
  CHECK(all.find("Content-Length: " + std::to_string(body.size())) != std::string::npos);
  CHECK(all.find(body) == std::string::npos);
  CHECK(all.ends_with("GET /one  ."));
}

TEST_CASE("what is too large, too long or no HTTP is refused with its status, and the connection ends",
          "[http_server]") {
  HttpLimits limits;
  limits.header_bytes = 1000;
  const auto server = serve(echo(), limits);
  const std::vector<std::pair<std::string, std::string>> refused{
      std::pair<std::string, std::string>{"GET /a HTTP/1.1\r\n" + kHost + "X-A: " + std::string(2000, 'x') + "\r\n\r\n",
                                          "431"},
      {"POST /a HTTP/1.1\r\n" + kHost + "Content-Length: 101\r\n\r\n", "413"},
      {"POST /a HTTP/1.1\r\n" + kHost + "Transfer-Encoding: chunked\r\n\r\nc8\r\n" + std::string(200, 'x') +
           "\r\n0\r\n\r\n",
       "413"},
      {"POST /a HTTP/1.1\r\n" + kHost + "Transfer-Encoding: gzip\r\n\r\nGET /b HTTP/1.1\r\n" + kHost + "\r\n", "400"},
      {"GET  HTTP/1.1\r\n\r\n", "400"},
      {"nonsense\r\n\r\n", "400"},
      {"GET /a/../b HTTP/1.1\r\n" + kHost + "\r\n", "400"},
      {"GET /a HTTP/1.1\r\n" + kHost + "Content-Length: 3\r\nContent-Length: 4\r\n\r\n", "400"},
      {"POST /no HTTP/1.1\r\n" + kHost + "Content-Length: 5\r\n\r\nhello", "403"},
  };
  for (const auto& [text, status] : refused) {
    Client client(server->port());
    client.send(text);
    const std::string answer = client.read();
    INFO(text.substr(0, 60));
    CHECK(answer.starts_with("HTTP/1.1 " + status + " "));
    CHECK(answer.find("application/problem+json") != std::string::npos);
  }
}

TEST_CASE("a stream is sent part by part until it ends; the connection ends with it", "[http_server]") {
  HttpHandler handler = echo();
  handler.handle = [](const HttpRequest&, const Reply& reply) {
    HttpResponse response = text_response("");
    response.content_type = "text/event-stream";
    response.more =
        [parts = std::make_shared<std::vector<std::optional<std::string>>>(
             std::vector<std::optional<std::string>>{std::nullopt, "two", "", "one\n"})](const TakePart& take) {
          take(std::move(parts->back()));
          parts->pop_back();
        };
    reply(std::move(response));
  };
  const auto server = serve(handler);
  Client client(server->port());
  client.send("GET /a HTTP/1.1\r\n" + kHost + "\r\n");
  const std::string all = client.read();
  CHECK(all.find("Transfer-Encoding: chunked\r\n") != std::string::npos);
  CHECK(all.find("Content-Type: text/event-stream\r\n") != std::string::npos);
  CHECK(all.find("Content-Length") == std::string::npos);
  CHECK(all.ends_with("\r\n\r\n4\r\none\n\r\n3\r\ntwo\r\n0\r\n\r\n"));
}

TEST_CASE("a stream that has no end ends with the server", "[http_server]") {
  HttpHandler handler = echo();
  handler.handle = [](const HttpRequest&, const Reply& reply) {
    HttpResponse response = text_response("");
    response.more = [](const TakePart& take) { take("more\n"); };
    reply(std::move(response));
  };
  const auto server = serve(handler);
  Client client(server->port());
  client.send("GET /a HTTP/1.1\r\n" + kHost + "\r\n");
  CHECK(client.read("more\n").find("200 OK") != std::string::npos);
  server->drain(Deadline::after(steady_clock(), Seconds(60)));
  static_cast<void>(client.read());  // to its end
  server->wait();
}

TEST_CASE("a client that stops in the middle is told so after its time", "[http_server]") {
  HttpLimits limits;
  limits.head = Seconds(0.05);
  limits.body = Seconds(0.05);
  const auto server = serve(echo(), limits);
  Client head(server->port()), body(server->port());
  head.send("GET /a HTTP/1.1\r\nX-");
  body.send("POST /a HTTP/1.1\r\n" + kHost + "Content-Length: 5\r\n\r\nhe");
  CHECK(head.read().starts_with("HTTP/1.1 408 "));
  CHECK(body.read().starts_with("HTTP/1.1 408 "));

  limits.idle = Seconds(0.05);
  const auto impatient = serve(echo(), limits);
  Client idle(impatient->port());
  CHECK(idle.read().empty());
}

TEST_CASE("a client that waits to be told that it may send its body is told", "[http_server]") {
  const auto server = serve(echo());
  Client client(server->port());
  client.send("POST /a HTTP/1.1\r\n" + kHost + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  CHECK(client.read("\r\n\r\n").starts_with("HTTP/1.1 100 "));
  client.send("hi");
  CHECK(client.read("POST /a  hi.").ends_with("POST /a  hi."));
  client.send("POST /no HTTP/1.1\r\n" + kHost + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  CHECK(client.read().starts_with("HTTP/1.1 403 "));
}

TEST_CASE("more connections than there may be are told to come again", "[http_server]") {
  HttpLimits all, of_one;
  all.connections = 1;
  of_one.of_one_client = 1;
  for (const HttpLimits& limits : {all, of_one}) {
    const auto server = serve(echo(), limits);
    Client first(server->port());
    first.send("GET /one HTTP/1.1\r\n" + kHost + "\r\n");
    CHECK(first.read("GET /one  .").ends_with("GET /one  ."));
    Client second(server->port());
    CHECK(second.read().starts_with("HTTP/1.1 429 "));
  }
}

TEST_CASE("what was asked is answered while it drains, what stands idle is cut off", "[http_server]") {
  std::atomic<bool> asked = false;
  Reply kept;
  const auto server =
      serve({[](const HttpRequest&) -> std::variant<std::size_t, HttpResponse> { return std::size_t{0}; },
             [&](const HttpRequest&, const Reply& reply) {
               kept = reply;
               asked = true;
               asked.notify_all();
             }});
  Client idle(server->port()), busy(server->port());
  busy.send("GET /one HTTP/1.1\r\n" + kHost + "\r\n");
  asked.wait(false);
  server->drain(Deadline::after(steady_clock(), Seconds(30)));
  CHECK(idle.read().empty());
  kept(text_response("done"));
  const std::string answer = busy.read();
  CHECK(answer.ends_with("done"));
  CHECK(answer.find("Connection: close") != std::string::npos);
  server->wait();
  CHECK(server->num_connections() == 0);
  kept = {};  // it may not outlive the server
}

TEST_CASE("a handler that answers never is given up, and draining ends at its deadline", "[http_server]") {
  HttpLimits limits;
  limits.answer = Seconds(0.05);
  const HttpHandler silent{[](const HttpRequest&) -> std::variant<std::size_t, HttpResponse> { return std::size_t{0}; },
                           [](const HttpRequest&, const Reply&) {}};
  const auto server = serve(silent, limits);
  Client client(server->port());
  client.send("GET /one HTTP/1.1\r\n" + kHost + "\r\n");
  CHECK(client.read("}\n").starts_with("HTTP/1.1 500 "));

  const auto patient = serve(silent);
  Client waiting(patient->port());
  waiting.send("GET /one HTTP/1.1\r\n" + kHost + "\r\n");
  patient->drain(Deadline::after(steady_clock(), Seconds(0.05)));
  patient->wait();
}

TEST_CASE("a port that is taken and an address that is none are refused", "[http_server]") {
  const auto server = serve(echo());
  const auto taken = make_http_server({"127.0.0.1:" + std::to_string(server->port()), "", "", {}}, echo());
  REQUIRE_FALSE(taken);
  CHECK(taken.error().code == ErrorCode::FailedPrecondition);
  for (const char* text : {"", "8080", "host.example:80", "::1:80", "127.0.0.1:", "10.1.2.3:99999", "127.0.0.1:8o"})
    CHECK(make_http_server({text, "", "", {}}, echo()).error().code == ErrorCode::InvalidArgument);
}

TEST_CASE("bodies that are held at once have one limit together", "[http_server]") {
  HttpLimits limits;
  limits.body_bytes = 60;
  const auto server = serve(echo(), limits);
  Client first(server->port());
  first.send("POST /a HTTP/1.1\r\n" + kHost + "Expect: 100-continue\r\nContent-Length: 50\r\n\r\n");
  CHECK(first.read("\r\n\r\n").starts_with("HTTP/1.1 100 "));  // its room is taken
  Client second(server->port());
  second.send("POST /b HTTP/1.1\r\n" + kHost + "Content-Length: 20\r\n\r\n");
  CHECK(second.read().starts_with("HTTP/1.1 429 "));
  first.send(std::string(50, 'x'));
  CHECK(first.read("x.").starts_with("HTTP/1.1 200 "));
  Client third(server->port());
  third.send("POST /c HTTP/1.1\r\n" + kHost + "Content-Length: 2\r\n\r\nhi");
  CHECK(third.read("hi.").starts_with("HTTP/1.1 200 "));
}
