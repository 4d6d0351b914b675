#include "launcher/rest/routes.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace coxswain::launcher {
namespace {

constexpr std::size_t kJsonBytes = std::size_t{1} << 20, kModelBytes = std::size_t{64} << 20,
                      kNodeBytes = std::size_t{64} << 10;
constexpr std::string_view kJson = "application/json";

constexpr std::array kRoutes{
    Route{"POST", "/v1/plans", Call::MakePlan, Scope::Plan, kJsonBytes, kJson},
    Route{"GET", "/v1/plans/{id}", Call::LookPlan, Scope::Plan},
    Route{"DELETE", "/v1/plans/{id}", Call::CancelPlan, Scope::Plan},
    Route{"GET", "/v1/plans/{id}/timeline", Call::Timeline, Scope::Plan},
    Route{"GET", "/v1/plans/{id}/explain", Call::Explain, Scope::Plan},
    Route{"PUT", "/v1/models/{sha256}", Call::SendModel, Scope::Plan, kModelBytes, "application/octet-stream"},
    Route{"GET", "/v1/models/{sha256}", Call::LookModel, Scope::Plan},
    Route{"DELETE", "/v1/models/{sha256}", Call::RemoveModel, Scope::Run},
    Route{"GET", "/v1/catalogue", Call::Catalogue, Scope::Plan},
    Route{"POST", "/v1/jobs", Call::SendJob, Scope::Run, kJsonBytes, kJson},
    Route{"GET", "/v1/jobs", Call::ListJobs, Scope::Run},
    Route{"GET", "/v1/jobs/{id}", Call::LookJob, Scope::Run},
    Route{"DELETE", "/v1/jobs/{id}", Call::RemoveJob, Scope::Run},
    Route{"GET", "/v1/jobs/{id}/metrics", Call::JobMetrics, Scope::Run},
    Route{"GET", "/v1/jobs/{id}/logs", Call::JobLogs, Scope::Run, 0, "", "text/plain"},
    Route{"GET", "/v1/jobs/{id}/events", Call::JobEvents, Scope::Run, 0, "", "text/event-stream"},
    Route{"POST", "/v1/jobs/{id}/cancel", Call::CancelJob, Scope::Run},
    Route{"GET", "/v1/cluster", Call::Cluster, Scope::Plan},
    Route{"PUT", "/v1/cluster/nodes/{name}", Call::JoinNode, Scope::Run, kNodeBytes, kJson},
    Route{"DELETE", "/v1/cluster/nodes/{name}", Call::LeaveNode, Scope::Run},
    Route{"GET", "/", Call::Page, Scope::None, 0, "", "text/html"},
    Route{"GET", "/page.js", Call::Page, Scope::None, 0, "", "text/javascript"},
    Route{"GET", "/page.css", Call::Page, Scope::None, 0, "", "text/css"},
    Route{"GET", "/openapi.json", Call::OpenApi, Scope::None},
    Route{"GET", "/healthz", Call::Health, Scope::None},
    Route{"GET", "/readyz", Call::Ready, Scope::None},
    Route{"GET", "/metrics", Call::Metrics, Scope::Plan, 0, "", "text/plain"},
};

std::string_view next_segment(std::string_view& path) {
  path.remove_prefix(std::min<std::size_t>(path.size(), 1));  // its slash
  const std::string_view segment = path.substr(0, path.find('/'));
  path.remove_prefix(segment.size());
  return segment;
}

bool fits(std::string_view pattern, std::string_view path, std::map<std::string, std::string>& parameters) {
  parameters.clear();
  while (!pattern.empty() && !path.empty()) {
    const std::string_view wanted = next_segment(pattern), segment = next_segment(path);
    if (wanted.starts_with('{') && !segment.empty())
      parameters[std::string(wanted.substr(1, wanted.size() - 2))] = segment;
    else if (wanted != segment)
      return false;
  }
  return pattern.empty() && path.empty();
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

}  // namespace

std::span<const Route> routes() { return kRoutes; }

std::variant<Match, NoRoute> match_route(std::string_view method, std::string_view path) {
  const std::string_view wanted = method == "HEAD" ? "GET" : method;
  NoRoute none;
  std::map<std::string, std::string> parameters;
  for (const Route& route : kRoutes) {
    if (!fits(route.pattern, path, parameters)) continue;
    if (route.method == wanted) return Match{&route, std::move(parameters)};
    none.allow += (none.allow.empty() ? "" : ", ") + std::string(route.method);
    if (route.method == "GET") none.allow += ", HEAD";
  }
  return none;
}

bool accepts(std::string_view accept, std::string_view type) {
  if (trimmed(accept).empty()) return true;
  const std::string_view family = type.substr(0, type.find('/'));
  while (!accept.empty()) {
    const std::string_view entry = accept.substr(0, accept.find(','));
    accept.remove_prefix(std::min(accept.size(), entry.size() + 1));
    const std::string_view range = trimmed(entry.substr(0, entry.find(';')));
    if (range == "*/*" || equal_ignoring_case(range, type) ||
        (range.ends_with("/*") && equal_ignoring_case(range.substr(0, range.size() - 2), family)))
      return true;
  }
  return false;
}

bool is_of_type(std::string_view content_type, std::string_view type) {
  return equal_ignoring_case(trimmed(content_type.substr(0, content_type.find(';'))), type);
}

}  // namespace coxswain::launcher
