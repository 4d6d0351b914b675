#pragma once
// Errors as clients of the service see them: RFC 9457 problems with a JSON pointer for each thing that is wrong. The
// one table from our codes to those of HTTP. Called by the service. Threads: pure. Source: INTERFACE section 5.
#include <string>
#include <string_view>

#include "common/error.h"
#include "launcher/rest/http.h"

namespace coxswain::launcher {

[[nodiscard]] int http_status_for(ErrorCode code);
/// "Not Found".
[[nodiscard]] std::string_view reason_phrase(int status);

/// {"type": "about:blank", "title", "status", "detail"}; `detail` in one sentence.
[[nodiscard]] HttpResponse problem(int status, const std::string& detail);
/// The same with `errors: [{pointer, detail, expected, got, hint}]`, each path a pointer into the request's body:
/// "job.optimizer.betas[1]" is "/job/optimizer/betas/1".
[[nodiscard]] HttpResponse problem(const Error& error);

/// 429: too much at once; `detail` says what. Retry-After says when to come again.
[[nodiscard]] HttpResponse too_much(const std::string& detail, int retry_after_seconds = 1);

/// An error about a member of the body: its paths, which may begin with a file that the client does not know
/// ("job.json:1  plan.tensor"), begin with the member's name instead.
[[nodiscard]] Error within(const std::string& member, Error error);

}  // namespace coxswain::launcher
