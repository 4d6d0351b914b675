#pragma once
// What a job file may hold, as JSON Schema out of proto/job.proto and its rules: what walk.cpp takes, for whoever
// writes one by a program. Called by the service's document. Threads: pure. Source:
// https://json-schema.org/draft/2020-12
#include "common/json.h"

namespace coxswain::launcher {

/// Keys that this version refuses are left out. A value with several forms says them in words.
[[nodiscard]] Json job_schema();

}  // namespace coxswain::launcher
