#pragma once
// The document at /openapi.json: openapi.json of this folder, with the job file's schema as proto/job.proto has it.
// Called by service. Threads: pure. Source: https://spec.openapis.org/oas/v3.1.0
#include <string>

namespace coxswain::launcher {

[[nodiscard]] const std::string& openapi_text();

}  // namespace coxswain::launcher
