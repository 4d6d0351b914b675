#pragma once
// An Error as JSON, to cross a process boundary. Threads: pure.
#include "common/error.h"
#include "common/json.h"

namespace coxswain::proto {

[[nodiscard]] Json to_json(const Error& error);
/// Takes what to_json wrote; anything else becomes Internal with the text inside.
[[nodiscard]] Error error_from_json(const Json& json);

[[nodiscard]] std::string error_to_text(const Error& error);  // one line of JSON
[[nodiscard]] Error error_from_text(std::string_view text);

}  // namespace coxswain::proto
