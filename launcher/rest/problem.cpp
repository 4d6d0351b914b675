#include "launcher/rest/problem.h"

#include <utility>

#include "common/json.h"

namespace coxswain::launcher {
namespace {

HttpResponse as_response(int status, JsonObject members) {
  HttpResponse response;
  response.status = status;
  response.content_type = "application/problem+json";
  members["type"] = "about:blank";
  members["title"] = reason_phrase(status);
  members["status"] = status;
  response.body = to_text(Json(std::move(members))) + "\n";
  return response;
}

/// "a.b[1]" is "/a/b/1".
std::string pointer_of(const std::string& path) {
  std::string pointer, key;
  const auto end_key = [&] {
    if (!key.empty()) pointer += "/" + std::exchange(key, {});
  };
  for (const char c : path) {
    switch (c) {
      case '.':
      case '[':
      case ']': end_key(); break;
      case '~': key += "~0"; break;
      case '/': key += "~1"; break;
      default: key += c;
    }
  }
  end_key();
  return pointer;
}

void add(JsonArray& errors, const Error& error) {
  JsonObject one{{"pointer", pointer_of(error.path)}, {"detail", error.message}};
  for (const auto& [name, text] :
       {std::pair{"expected", &error.expected}, std::pair{"got", &error.got}, std::pair{"hint", &error.hint}}) {
    if (!text->empty()) one[name] = *text;
  }
  errors.push_back(std::move(one));
}

}  // namespace

int http_status_for(ErrorCode code) {
  switch (code) {
    case ErrorCode::InvalidArgument:
    case ErrorCode::OutOfRange:
    case ErrorCode::Unimplemented:
    case ErrorCode::DataLoss:
    case ErrorCode::ResourceExhausted:  // no feasible plan
    case ErrorCode::FailedPrecondition: return 422;
    case ErrorCode::NotFound: return 404;
    case ErrorCode::AlreadyExists:
    case ErrorCode::Aborted:
    case ErrorCode::Cancelled: return 409;
    case ErrorCode::PermissionDenied: return 403;
    case ErrorCode::Unauthenticated: return 401;
    case ErrorCode::DeadlineExceeded: return 408;
    case ErrorCode::Unavailable: return 503;
    case ErrorCode::Internal:
    case ErrorCode::Unknown: return 500;
  }
  return 500;
}

std::string_view reason_phrase(int status) {
  switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 304: return "Not Modified";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 406: return "Not Acceptable";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 413: return "Content Too Large";
    case 415: return "Unsupported Media Type";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 503: return "Service Unavailable";
    default: return "Status";
  }
}

HttpResponse problem(int status, const std::string& detail) { return as_response(status, {{"detail", detail}}); }

HttpResponse problem(const Error& error) {
  JsonArray errors;
  for (const Error& one : error.details) add(errors, one);
  if (error.details.empty()) add(errors, error);
  return as_response(http_status_for(error.code), {{"detail", error.message}, {"errors", std::move(errors)}});
}

HttpResponse too_much(const std::string& detail, int retry_after_seconds) {
  HttpResponse response = problem(429, detail);
  response.headers["Retry-After"] = std::to_string(retry_after_seconds);
  return response;
}

Error within(const std::string& member, Error error) {
  const std::size_t gap = error.path.find("  ");
  const std::string keys = gap == std::string::npos ? "" : error.path.substr(gap + 2);
  error.path = member + (keys.empty() || keys.front() == '[' ? "" : ".") + keys;
  for (Error& detail : error.details) detail = within(member, std::move(detail));
  return error;
}

}  // namespace coxswain::launcher
