// What is ours of a request before its body: target, route, Accept, Content-Type, trace, and who may ask.
#include <cstdint>
#include <string>

#include "launcher/rest/access.h"
#include "launcher/rest/http.h"
#include "launcher/rest/job_streams.h"
#include "launcher/rest/routes.h"
#include "launcher/rest/trace_context.h"

using namespace coxswain::launcher;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::string line = text.substr(0, text.find('\n')), rest = text.substr(std::min(text.size(), line.size() + 1));
  if (const auto target = parse_target(line)) {
    // No handler sees a path that leads anywhere else.
    if (target->path.find('\0') != std::string::npos || ("/" + target->path + "/").find("/../") != std::string::npos)
      __builtin_trap();
    static_cast<void>(match_route("GET", target->path));
  }
  static_cast<void>(accepts(rest, "application/json"));
  static_cast<void>(is_of_type(rest, "application/json"));
  static_cast<void>(to_text(continue_trace(rest)));
  static_cast<void>(parse_event_id(rest));
  HttpRequest request;
  request.headers = {{"host", line}, {"origin", rest}};
  static_cast<void>(foreign_host(request, {"127.0.0.1:8080"}, false));
  return 0;
}
