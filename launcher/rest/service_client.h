#pragma once
// A client of `launch serve`, for commands on another machine: one request on a connection of its own, an answer whole
// or as it comes. Called by launch status, logs, cancel and agent. Threads: each call its own. Source: INTERFACE
// section 5.
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>

#include "common/clock.h"
#include "common/json.h"
#include "common/result.h"

namespace coxswain::launcher {

struct ServicePlace {
  bool tls = false;
  std::string host, port;
  std::string token;    // of the scope that the calls need
  std::string ca_file;  // whose certificates are trusted; empty: those that this machine trusts
};
/// "http://HOST:PORT", "https://HOST[:PORT]". Errors: InvalidArgument.
[[nodiscard]] Result<ServicePlace> parse_service_url(const std::string& url);

/// "HOST:PORT" of another port of the service's machine.
[[nodiscard]] std::string beside(const ServicePlace& place, int port);

struct ServiceCall {
  std::string method, target;
  Json body = nullptr;        // null: none
  std::string prefer = {};    // header `Prefer`; empty: none
  std::stop_token stop = {};  // ends the wait: Cancelled
  Deadline deadline = Deadline::never();
};
/// Null where the answer is 204.
/// Errors: Unavailable (nobody answers within 10 s, or goes on within 60 s, or until the deadline; another
/// certificate), Cancelled, and what the service answers with: NotFound, PermissionDenied, FailedPrecondition (409),
/// InvalidArgument, Internal.
[[nodiscard]] Result<Json> ask_service(const ServicePlace& place, const ServiceCall& call);
/// The body as it comes, for as long as the service goes on. Errors: as ask_service.
[[nodiscard]] Result<void> follow_service(const ServicePlace& place, const std::string& target,
                                          const std::function<void(std::string_view)>& take);

}  // namespace coxswain::launcher
