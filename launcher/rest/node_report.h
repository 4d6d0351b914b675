#pragma once
// What an agent says of the node that it lends to a service, in the body of its request and as GET /v1/cluster shows
// it. Called by both ends. Threads: pure values.
#include <cstdint>
#include <string>

#include "common/json.h"
#include "common/result.h"

namespace coxswain::launcher {

struct NodeReport {
  std::string name;  // of this agent alone
  double cores = 0;
  std::string cpu_model;
  std::int64_t memory_bytes = 0;
  Json cuda_devices = JsonArray();  // [{"name", "memory_bytes"}]
  std::string job;                  // that it works for; empty: it waits
};

/// Of this machine, without a name.
[[nodiscard]] NodeReport own_node();
/// {"name", "cores", "cpu_model", "memory_bytes", "cuda_devices", "running"}.
[[nodiscard]] Json to_json(const NodeReport& report);
/// As an agent sends it: {"cores", "cpu_model", "memory_bytes", "cuda_devices", "job"?}.
[[nodiscard]] Json node_request_json(const NodeReport& report);
/// Errors: InvalidArgument, with paths in the body; so is a name that is not made of letters, digits, `.`, `_` and `-`.
[[nodiscard]] Result<NodeReport> node_report_from_json(const std::string& name, const Json& body);

}  // namespace coxswain::launcher
