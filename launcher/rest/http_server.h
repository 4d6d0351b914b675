#pragma once
// HTTP/1.1 over TCP or TLS: who connects, how long they may take, how much they may send. What is asked is the
// handler's affair. Boost.Beast in the .cpp. Called by `launch serve` and by agents. Threads: one of its own for all
// connections; the handler is called by it and must not block. Source: INTERFACE section 5, docs/service.md.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "common/clock.h"
#include "common/result.h"
#include "launcher/rest/http.h"

namespace coxswain::launcher {

struct HttpLimits {
  std::size_t header_bytes = 8192;                      // more: 431
  Seconds idle{60};                                     // between requests of one connection
  Seconds head{10}, body{60};                           // from the first byte of each to its last; longer: 408
  Seconds answer{300};                                  // of the handler; longer: 500
  Seconds send{60};                                     // of an answer; longer: cut off
  int connections = 1024, of_one_client = 256;          // one more is answered 429 and cut off
  std::uint64_t body_bytes = std::uint64_t{256} << 20;  // of all bodies that are held at once; more: 429
};

struct HttpOptions {
  std::string listen;                                // "HOST:PORT"; port 0: any
  std::filesystem::path certificate_file, key_file;  // PEM; both or neither
  HttpLimits limits;
  std::filesystem::path client_ca_file = {};  // PEM: who has no valid certificate of these gets no connection
};

struct HttpHandler {
  /// Before the body is read: how many bytes it may have, or the answer.
  std::function<std::variant<std::size_t, HttpResponse>(const HttpRequest& head)> admit;
  std::function<void(HttpRequest request, Reply reply)> handle;
};

class HttpServer {
 public:
  virtual ~HttpServer() = default;
  [[nodiscard]] virtual int port() const = 0;
  [[nodiscard]] virtual int num_connections() const = 0;
  /// Until then who connects waits.
  virtual void start() = 0;
  /// Takes no more connections, lets what was asked be answered until `deadline`, and cuts off the rest. Once more,
  /// with an earlier deadline, is possible. Threads: any.
  virtual void drain(Deadline deadline) = 0;
  /// Until it has drained. No handler is called once it has returned.
  virtual void wait() = 0;
};

/// Listens when it returns. Replies may come until the server is destroyed, and not later.
/// Errors: InvalidArgument (no address), FailedPrecondition (port, certificate).
[[nodiscard]] Result<std::unique_ptr<HttpServer>> make_http_server(const HttpOptions& options, HttpHandler handler);

}  // namespace coxswain::launcher
