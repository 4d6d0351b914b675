#include "proto/error_json.h"

namespace coxswain::proto {

Json to_json(const Error& error) {
  JsonObject object{{"code", static_cast<int>(error.code)}, {"message", error.message}, {"path", error.path},
                    {"expected", error.expected},           {"got", error.got},         {"hint", error.hint}};
  JsonArray details;
  for (const Error& detail : error.details) details.push_back(to_json(detail));
  object["details"] = std::move(details);
  return object;
}

Error error_from_json(const Json& json) {
  JsonReader reader(json, "error");
  Error error;
  error.code = static_cast<ErrorCode>(reader.integer("code", 1, 16));
  error.message = reader.string("message");
  error.path = reader.string("path");
  error.expected = reader.string("expected");
  error.got = reader.string("got");
  error.hint = reader.string("hint");
  for (const Json& detail : reader.array("details")) error.details.push_back(error_from_json(detail));
  if (auto read = reader.finish(); !read)
    return Error{ErrorCode::Internal, "unreadable error from a peer", "", "", to_text(json), ""};
  return error;
}

std::string error_to_text(const Error& error) { return to_text(to_json(error)); }

Error error_from_text(std::string_view text) {
  auto json = parse_json(text);
  if (!json) return Error{ErrorCode::Internal, "unreadable error from a peer", "", "", std::string(text), ""};
  return error_from_json(*json);
}

}  // namespace coxswain::proto
