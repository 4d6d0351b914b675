#pragma once
// What a client asks and what it is answered, as values: no Boost here. Made and sent by http_server, read and written
// by the handlers. Threads: pure values.
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace coxswain::launcher {

struct HttpRequest {
  std::string method;                          // "GET"
  std::string path;                            // decoded: "/v1/plans"
  std::map<std::string, std::string> query;    // decoded
  std::map<std::string, std::string> headers;  // names in lower case; one that came twice is joined by ", "
  std::string body;
  std::string client;  // its address, without port

  /// Empty where there is none.
  [[nodiscard]] const std::string& header(const std::string& name) const;
};

/// What comes next of a stream: empty: nothing now; nothing: it has ended. Called once, from any thread.
using TakePart = std::function<void(std::optional<std::string> part)>;

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body = {};
  std::map<std::string, std::string> headers = {};  // beside type and length
  /// A stream instead of a body: asked for its next part whenever the one before was sent. Never blocks.
  std::function<void(TakePart)> more = {};
};

/// Called once, from any thread.
using Reply = std::function<void(HttpResponse)>;

struct Target {
  std::string path;
  std::map<std::string, std::string> query;
};
/// The target of a request line. Nothing where it is no absolute path, has an escape that is none or stands for NUL or
/// `/`, or a segment `.` or `..`: no handler sees such a path.
[[nodiscard]] std::optional<Target> parse_target(std::string_view target);

}  // namespace coxswain::launcher
