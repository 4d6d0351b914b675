#pragma once
// Which calls there are, who may make them, and how large their bodies may be: the one table, that the OpenAPI document
// is held against. Called by the service. Threads: pure. Source: INTERFACE section 5.
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "launcher/rest/access.h"

namespace coxswain::launcher {

enum class Call {
  MakePlan,
  LookPlan,
  CancelPlan,
  Timeline,
  Explain,
  SendModel,
  LookModel,
  Catalogue,
  SendJob,
  ListJobs,
  LookJob,
  JobMetrics,
  JobLogs,
  JobEvents,
  CancelJob,
  RemoveJob,
  RemoveModel,
  Cluster,
  JoinNode,
  LeaveNode,
  Page,
  OpenApi,
  Health,
  Ready,
  Metrics,
};

struct Route {
  std::string_view method, pattern;  // "/v1/plans/{id}"
  Call call;
  Scope scope;                     // that it needs
  std::size_t most_bytes = 0;      // of its body
  std::string_view consumes = "";  // type of its body; empty: none
  std::string_view produces = "application/json";
};
[[nodiscard]] std::span<const Route> routes();

struct Match {
  const Route* route = nullptr;
  std::map<std::string, std::string> parameters;  // by the name in the pattern
};
struct NoRoute {
  std::string allow;  // methods that the path has: "GET, HEAD"; empty: no such path
};
/// HEAD is answered where GET is.
[[nodiscard]] std::variant<Match, NoRoute> match_route(std::string_view method, std::string_view path);

/// An Accept header that takes `type`; an empty one takes all.
[[nodiscard]] bool accepts(std::string_view accept, std::string_view type);
/// A Content-Type header that says `type`, whatever its parameters.
[[nodiscard]] bool is_of_type(std::string_view content_type, std::string_view type);

}  // namespace coxswain::launcher
