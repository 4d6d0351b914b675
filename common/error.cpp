#include "common/error.h"

#include "common/ensure.h"

namespace coxswain {
namespace {

std::string join_path(std::string_view prefix, const std::string& path) {
  if (prefix.empty()) return path;
  std::string joined(prefix);
  // "[1]" indexes what stands before it; after a blank ("job.yaml:14  ") a new path begins.
  if (!path.empty() && path.front() != '[' && joined.back() != ' ') joined += '.';
  return joined + path;
}

void append_line(std::string& text, std::string_view label, const std::string& value) {
  if (value.empty()) return;
  constexpr std::size_t kColumn = 12;
  std::string line = "  " + std::string(label) + ":";
  line.resize(kColumn, ' ');
  for (char c : value) {
    line += c;
    if (c == '\n') line.append(kColumn, ' ');
  }
  text += line + "\n";
}

}  // namespace

Error with_path_prefix(Error error, std::string_view prefix) {
  error.path = join_path(prefix, error.path);
  for (Error& detail : error.details) detail = with_path_prefix(std::move(detail), prefix);
  return error;
}

Error combine_errors(ErrorCode code, std::string message, std::vector<Error> problems) {
  COX_ENSURE(!problems.empty(), message);
  if (problems.size() == 1) return std::move(problems.front());
  return Error{code, std::move(message), "", "", "", "", std::move(problems)};
}

std::string to_text(const Error& error) {
  std::string text = "error: " + error.message + "\n";
  append_line(text, "at", error.path);
  append_line(text, "expected", error.expected);
  append_line(text, "got", error.got);
  append_line(text, "fix", error.hint);
  for (const Error& detail : error.details) text += to_text(detail);
  return text;
}

std::string_view to_text(ErrorCode code) {
  switch (code) {
    case ErrorCode::Cancelled: return "Cancelled";
    case ErrorCode::Unknown: return "Unknown";
    case ErrorCode::InvalidArgument: return "InvalidArgument";
    case ErrorCode::DeadlineExceeded: return "DeadlineExceeded";
    case ErrorCode::NotFound: return "NotFound";
    case ErrorCode::AlreadyExists: return "AlreadyExists";
    case ErrorCode::PermissionDenied: return "PermissionDenied";
    case ErrorCode::ResourceExhausted: return "ResourceExhausted";
    case ErrorCode::FailedPrecondition: return "FailedPrecondition";
    case ErrorCode::Aborted: return "Aborted";
    case ErrorCode::OutOfRange: return "OutOfRange";
    case ErrorCode::Unimplemented: return "Unimplemented";
    case ErrorCode::Internal: return "Internal";
    case ErrorCode::Unavailable: return "Unavailable";
    case ErrorCode::DataLoss: return "DataLoss";
    case ErrorCode::Unauthenticated: return "Unauthenticated";
  }
  return "Unknown";
}

}  // namespace coxswain
