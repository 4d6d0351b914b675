#include "launcher/rest/service.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "cluster/catalogue.h"
#include "common/bytes_io.h"
#include "common/hash.h"
#include "common/log.h"
#include "launcher/job/job_model.h"
#include "launcher/rest/embedded.h"
#include "launcher/rest/openapi.h"
#include "launcher/rest/problem.h"
#include "launcher/rest/timeline.h"
#include "launcher/rest/trace_context.h"
#include "model/show.h"
#include "planner/explain.h"

namespace coxswain::launcher {
namespace {

constexpr std::size_t kMostReading = 64, kMostStreaming = 2048;

HttpResponse as_json(const Json& json) {
  HttpResponse response;
  response.body = to_text(json) + "\n";
  return response;
}

HttpResponse as_text(std::string body, std::string type) {
  HttpResponse response;
  response.content_type = std::move(type);
  response.body = std::move(body);
  return response;
}

/// What the page may do: its own script and style, calls of this service, pictures that it drew.
constexpr const char* kPagePolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// `type`: that of its route.
HttpResponse page_file(std::string_view type) {
  const bool is_script = type == "text/javascript", is_style = type == "text/css";
  const std::string_view content = is_script ? page_js() : is_style ? page_css() : page_html();
  HttpResponse response = as_text(std::string(content), std::string(type) + "; charset=utf-8");
  response.headers["Content-Security-Policy"] = kPagePolicy;
  response.headers["Referrer-Policy"] = "no-referrer";
  response.headers["Cross-Origin-Opener-Policy"] = "same-origin";
  return response;
}

HttpResponse not_json(const Error& error) {
  return problem(400, "the body is no JSON: " + error.message + " " + error.got);
}

HttpResponse unknown_model() { return problem(404, "no such model was sent; send it with PUT /v1/models/{sha256}"); }

HttpResponse unknown_plan() {
  return problem(404, "no plan of this id was found: ask for it with POST /v1/plans, and wait until it is there");
}

/// What `launch plan` prints of the same.
Result<FoundPlan> find(const Json& body, const ServedFiles& files, const std::stop_token& stop) {
  COX_TRY(PlanRequest request, read_plan_request(body, files));
  request.query.stop = stop;
  COX_TRY(const planner::PlanResult result, answer_query(*request.inputs, request.query));
  const Json json = planner::to_json(result);
  return FoundPlan{to_text(json, 2) + "\n", plan::plan_hash(result.plan)};
}

}  // namespace

Service::Service(ServiceOptions options, Tokens tokens, const Clock& clock, std::unique_ptr<Jobs> jobs)
    : options_(std::move(options)),
      tokens_(std::move(tokens)),
      clock_(clock),
      searches_(
          clock, options_.searches,
          [files = options_.files](const Json& body, const std::stop_token& stop) { return find(body, files, stop); }),
      jobs_(std::move(jobs)),
      reading_(1, kMostReading),
      streaming_(1, kMostStreaming) {}

void Service::drain() {
  draining_ = true;
  jobs_->drain();
}

std::variant<Match, HttpResponse> Service::check(const HttpRequest& head) const {
  if (const auto why = foreign_host(head, options_.hosts, options_.tls)) return problem(403, *why);
  auto found = match_route(head.method, head.path);
  const auto* match = std::get_if<Match>(&found);
  // What there is is told to those alone who may ask.
  const Scope needed = match != nullptr ? match->route->scope : Scope::Plan;
  const Scope scope = needed == Scope::None ? Scope::None : tokens_.scope_of(head.header("authorization"));
  if (needed != Scope::None && scope == Scope::None) {
    HttpResponse response = problem(401, "a bearer token of this service is needed: `Authorization: Bearer TOKEN`");
    response.headers["WWW-Authenticate"] = "Bearer";
    return response;
  }
  if (match == nullptr) {
    const std::string& allow = std::get<NoRoute>(found).allow;
    if (allow.empty()) return problem(404, "there is no such path; /openapi.json lists those that there are");
    HttpResponse response = problem(405, head.method + " is none of its methods: " + allow);
    response.headers["Allow"] = allow;
    return response;
  }
  if (scope < needed)
    return problem(403, "this token may " + std::string(to_text(scope)) + ", and not " + std::string(to_text(needed)));
  const Route& route = *match->route;
  if (!accepts(head.header("accept"), route.produces))
    return problem(406, "this call answers in " + std::string(route.produces));
  if (!route.consumes.empty() && !is_of_type(head.header("content-type"), route.consumes))
    return problem(415, "this call takes " + std::string(route.consumes));
  return std::move(*std::get_if<Match>(&found));
}

std::variant<std::size_t, HttpResponse> Service::admit(const HttpRequest& head) {
  auto checked = check(head);
  if (const auto* match = std::get_if<Match>(&checked)) return match->route->most_bytes;
  auto& refused = std::get<HttpResponse>(checked);
  metrics_.count("refused", refused.status, Seconds(0));
  log(LogLevel::Info, "serve", head.client + " refused " + std::to_string(refused.status));
  return std::move(refused);
}

void Service::handle(HttpRequest request, Reply reply) {
  auto checked = check(request);
  if (auto* refused = std::get_if<HttpResponse>(&checked)) return reply(std::move(*refused));
  const auto& match = std::get<Match>(checked);
  const TimePoint began = clock_.now();
  const TraceContext trace = continue_trace(request.header("traceparent"));
  // Not the path: it may hold anything.
  const std::string line = request.client + " " + request.method + " " + std::string(match.route->pattern);
  call(match, std::move(request),
       [this, began, trace, line, name = std::string(match.route->pattern),
        reply = std::move(reply)](HttpResponse response) {
         const double seconds = std::chrono::duration<double>(clock_.now() - began).count();
         metrics_.count(name, response.status, Seconds(seconds));
         char took[32];
         std::snprintf(took, sizeof took, " %d %.1f ms", response.status, seconds * 1e3);
         log(LogLevel::Info, "serve", line + took + " trace " + trace.trace_id);
         response.headers["traceresponse"] = to_text(trace);
         reply(std::move(response));
       });
}

void Service::call(const Match& match, HttpRequest request, Reply reply) {
  const auto parameter = [&match](const char* name) { return match.parameters.at(name); };
  switch (match.route->call) {
    case Call::MakePlan: return make_plan(request, std::move(reply));
    case Call::LookPlan: return reply(searches_.look(parameter("id"), request.header("if-none-match")));
    case Call::CancelPlan: return reply(searches_.cancel(parameter("id")));
    case Call::Timeline: return read(std::move(reply), [this, id = parameter("id")] { return timeline(id); });
    case Call::Explain:
      return read(std::move(reply),
                  [this, id = parameter("id"), against = request.query["against"]] { return explain(id, against); });
    case Call::SendModel:
      return read(std::move(reply), [this, sha256 = parameter("sha256"), body = std::move(request.body)] {
        return send_model(sha256, body);
      });
    case Call::LookModel:
      return read(std::move(reply), [this, sha256 = parameter("sha256")] { return look_model(sha256); });
    case Call::RemoveModel:
      return read(std::move(reply), [this, sha256 = parameter("sha256")] { return remove_model(sha256); });
    case Call::Catalogue: {
      const auto wanted = request.query.find("cluster");
      if (wanted == request.query.end()) return reply(as_json(cluster::catalogue_json()));
      const auto graph = cluster::cluster_from_catalogue(wanted->second);
      return reply(graph ? as_json(cluster::to_json(*graph)) : problem(within("", graph.error())));
    }
    case Call::SendJob: return send_job(request, std::move(reply));
    case Call::ListJobs:
    case Call::LookJob:
    case Call::JobMetrics:
    case Call::JobLogs:
    case Call::JobEvents:
    case Call::CancelJob:
    case Call::RemoveJob:
    case Call::Cluster:
    case Call::LeaveNode: return call_job(match, request, std::move(reply));
    case Call::JoinNode: {
      const auto body = parse_json(request.body);
      if (!body) return reply(not_json(body.error()));
      return jobs_->join_node(parameter("name"), *body, request.header("prefer"), std::move(reply));
    }
    case Call::Page: return reply(page_file(match.route->produces));
    case Call::OpenApi: return reply(as_text(openapi_text(), "application/json"));
    case Call::Health: return reply(as_json(JsonObject{{"status", "alive"}}));
    case Call::Ready:
      return reply(draining_ ? problem(503, "the service ends") : as_json(JsonObject{{"status", "ready"}}));
    case Call::Metrics: return reply(metrics());
  }
}

void Service::make_plan(const HttpRequest& request, Reply reply) {
  const auto body = parse_json(request.body);
  if (!body) return reply(not_json(body.error()));
  searches_.ask(*body, std::move(reply));
}

void Service::send_job(const HttpRequest& request, Reply reply) {
  auto body = parse_json(request.body);
  if (!body) return reply(not_json(body.error()));
  read(std::move(reply),
       [this, body = std::move(*body), key = request.header("idempotency-key")] { return jobs_->submit(body, key); });
}

void Service::call_job(const Match& match, const HttpRequest& request, Reply reply) {
  // Of a job, or of a node.
  const std::string id = match.parameters.empty() ? "" : match.parameters.begin()->second;
  read(std::move(reply),
       [this, which = match.route->call, id, query = request.query,
        last_event = request.header("last-event-id")]() -> HttpResponse {
         switch (which) {
           case Call::ListJobs: return jobs_->list(query);
           case Call::LookJob: return jobs_->look(id);
           case Call::JobMetrics: return jobs_->metrics(id, query);
           case Call::JobLogs: return as_stream(jobs_->logs(id, query));
           case Call::JobEvents: return as_stream(jobs_->events(id, last_event));
           case Call::CancelJob: return jobs_->cancel(id);
           case Call::RemoveJob: return jobs_->remove(id);
           case Call::LeaveNode: return jobs_->leave_node(id);
           default: return jobs_->cluster();
         }
       });
}

HttpResponse Service::as_stream(Streamed streamed) {
  HttpResponse response = std::move(streamed.head);
  if (!streamed.next) return response;
  response.more = [this, next = std::move(streamed.next)](const TakePart& take) {
    const bool added = streaming_.add([next, take] {
      auto part = guard("launcher", [&]() -> Result<std::optional<std::string>> { return next(); });
      if (!part) log(LogLevel::Error, "serve", to_text(part.error()));
      take(part ? std::move(*part) : std::nullopt);
    });
    if (!added) take("");  // it is asked again soon
  };
  return response;
}

void Service::read(Reply reply, std::function<HttpResponse()> body) {
  auto answer = [body = std::move(body), reply]() {
    HttpResponse response;
    const auto done = guard("launcher", [&]() -> Result<void> {
      response = body();
      return {};
    });
    if (!done) {
      log(LogLevel::Error, "serve", to_text(done.error()));
      response = problem(500, "this is our bug; the log tells what happened");
    }
    reply(std::move(response));
  };
  if (reading_.add(std::move(answer))) return;
  reply(too_much("too much waits; ask again"));
}

HttpResponse Service::timeline(const std::string& id) const {
  const auto kept = searches_.find(id);
  if (!kept) return unknown_plan();
  auto text = plan_timeline(kept->request, kept->plan, options_.files);
  return text ? as_text(std::move(*text) + "\n", "application/json") : problem(text.error());
}

HttpResponse Service::explain(const std::string& id, const std::string& against) const {
  const auto kept = searches_.find(id);
  if (!kept) return unknown_plan();
  std::optional<Json> other;
  if (!against.empty()) {
    const auto beside = searches_.find(against);
    if (!beside) return unknown_plan();
    other = beside->plan;
  }
  const auto json = plan_explanation(kept->request, kept->plan, other, options_.files, stop_.get_token());
  return json ? as_json(*json) : problem(json.error());
}

HttpResponse Service::send_model(const std::string& sha256, const std::string& bytes) const {
  if (const std::string got = sha256_hex(bytes); got != sha256)
    return problem(Error{ErrorCode::InvalidArgument, "the body is another one than its path says", "", sha256, got,
                         "PUT /v1/models/$(sha256sum MODEL.pt2)"});
  const std::filesystem::path file = options_.files.models / (sha256 + ".pt2");
  std::error_code code;
  const bool known = std::filesystem::exists(file, code);
  // Looked at before it has its name: what has one is a model.
  const std::filesystem::path unread = options_.files.models / (sha256 + ".unread.pt2");
  if (!known) {
    if (auto written = write_file(unread, bytes); !written)
      return problem(503, "the model cannot be kept: " + written.error().message);
    auto graph = load_model_file(unread, 0);
    if (!graph) {
      std::filesystem::remove(unread, code);
      return problem(within("", graph.error()));
    }
    std::filesystem::rename(unread, file, code);
    if (code) return problem(503, "the model cannot be kept: " + code.message());
  }
  HttpResponse response = look_model(sha256);
  if (response.status == 200 && !known) response.status = 201;
  response.headers["Location"] = "/v1/models/" + sha256;
  return response;
}

std::optional<std::filesystem::path> Service::model_file(const std::string& sha256) const {
  const bool is_name = sha256.size() == 64 && sha256.find_first_not_of("0123456789abcdef") == std::string::npos;
  const std::filesystem::path file = options_.files.models / (sha256 + ".pt2");
  std::error_code code;
  if (!is_name || !std::filesystem::exists(file, code)) return std::nullopt;
  return file;
}

HttpResponse Service::remove_model(const std::string& sha256) const {
  const auto file = model_file(sha256);
  if (!file) return unknown_model();
  if (jobs_->needs_model(sha256)) return problem(409, "a job that has not ended needs the model");
  std::error_code code;
  std::filesystem::remove(*file, code);
  if (code) return problem(503, "the model cannot be removed: " + code.message());
  HttpResponse response;
  response.status = 204;
  return response;
}

HttpResponse Service::look_model(const std::string& sha256) const {
  const auto file = model_file(sha256);
  if (!file) return unknown_model();
  const auto graph = load_model_file(*file, 0);
  return graph ? as_json(model::show_json(*graph, 1)) : problem(within("", graph.error()));
}

HttpResponse Service::metrics() const {
  return as_text(metrics_.text(searches_.counts(), jobs_->count()), "text/plain; version=0.0.4");
}

}  // namespace coxswain::launcher
