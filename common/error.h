#pragma once
// The one error type: what, where, expected, got, how to fix, with nested details.
// Parsers and validators collect all problems into `details` and return them at once.
// Threads: pure values. Source: STYLE section 4.
#include <string>
#include <string_view>
#include <vector>

namespace coxswain {

/// gRPC canonical codes (same numbers); `common/exit_code.h` maps them to exit codes.
enum class ErrorCode {
  Cancelled = 1,
  Unknown = 2,
  InvalidArgument = 3,  // bad job, plan, model or cluster file: exit 65
  DeadlineExceeded = 4,
  NotFound = 5,
  AlreadyExists = 6,
  PermissionDenied = 7,
  ResourceExhausted = 8,   // no feasible plan: exit 69
  FailedPrecondition = 9,  // this machine lacks something: exit 71
  Aborted = 10,
  OutOfRange = 11,
  Unimplemented = 12,  // a value that this version cannot do: exit 65
  Internal = 13,       // our bug
  Unavailable = 14,    // a peer, agent or coordinator is gone: exit 1
  DataLoss = 15,
  Unauthenticated = 16,
};

struct Error {
  ErrorCode code = ErrorCode::Unknown;
  std::string message;  // what is wrong, lower case, no full stop
  std::string path;  // where: into the user's document or our graph ("job.yaml:14  plan.tensor", "stages[1].samples")
  std::string expected;  // may be empty
  std::string got;       // may be empty
  std::string hint;      // how to fix; may be empty
  std::vector<Error> details = {};

  friend bool operator==(const Error&, const Error&) = default;
};

/// `error` with `prefix` put before its path and its details' paths ("a" + "b" = "a.b", "a" + "[1]" = "a[1]").
[[nodiscard]] Error with_path_prefix(Error error, std::string_view prefix);

/// One error that lists all of `problems`. Requires: problems not empty. One problem is returned as it is.
[[nodiscard]] Error combine_errors(ErrorCode code, std::string message, std::vector<Error> problems);

/// The rendered form of STYLE section 4, ending in a newline; details follow, each rendered in turn.
[[nodiscard]] std::string to_text(const Error& error);

[[nodiscard]] std::string_view to_text(ErrorCode code);

}  // namespace coxswain
