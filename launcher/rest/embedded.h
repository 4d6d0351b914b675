#pragma once
// Files that are built into the binary (embed.cmake). Threads: pure.
#include <string_view>

namespace coxswain::launcher {

/// launcher/rest/openapi.json, at /openapi.json.
[[nodiscard]] std::string_view openapi_document();

/// The plan explorer, as `make web` built it; where it was not built, a page that says so.
[[nodiscard]] std::string_view page_html();
[[nodiscard]] std::string_view page_js();
[[nodiscard]] std::string_view page_css();

}  // namespace coxswain::launcher
