#pragma once
// `launch serve`: what each call does. Nothing here knows a socket. Called by the command, through http_server.
// Threads: admit and handle from one; answers come from several. Source: INTERFACE section 5, docs/service.md.
#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <variant>
#include <vector>

#include "launcher/rest/access.h"
#include "launcher/rest/http.h"
#include "launcher/rest/jobs.h"
#include "launcher/rest/plan_request.h"
#include "launcher/rest/plan_searches.h"
#include "launcher/rest/routes.h"
#include "launcher/rest/service_metrics.h"
#include "launcher/rest/work_pool.h"

namespace coxswain::launcher {

struct ServiceOptions {
  ServedFiles files;
  std::vector<std::string> hosts;  // that a Host header may name, in lower case: "127.0.0.1:8080"
  bool tls = false;
  PlanSearches::Limits searches;
};

class Service {
 public:
  /// `files.models` exists.
  Service(ServiceOptions options, Tokens tokens, const Clock& clock, std::unique_ptr<Jobs> jobs);
  /// What is under way is told to stop.
  ~Service() { stop_.request_stop(); }
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  /// From the head alone: who asks, and whether there is such a call. How many bytes its body may have, or the answer.
  [[nodiscard]] std::variant<std::size_t, HttpResponse> admit(const HttpRequest& head);
  /// Of what was admitted. Never blocks.
  void handle(HttpRequest request, Reply reply);
  /// /readyz says so from now on; a job that runs saves a checkpoint and ends.
  /// Once more: it is killed.
  void drain();
  /// Until no job runs any more. Requires: drained.
  void wait() { jobs_->wait(); }

 private:
  [[nodiscard]] std::variant<Match, HttpResponse> check(const HttpRequest& head) const;
  void call(const Match& match, HttpRequest request, Reply reply);
  void make_plan(const HttpRequest& request, Reply reply);
  void send_job(const HttpRequest& request, Reply reply);
  void call_job(const Match& match, const HttpRequest& request, Reply reply);
  /// On the reading pool: 429 where too much waits.
  void read(Reply reply, std::function<HttpResponse()> body);
  /// The answer, and parts of a stream that are read on a pool of their own.
  [[nodiscard]] HttpResponse as_stream(Streamed streamed);
  [[nodiscard]] HttpResponse timeline(const std::string& id) const;
  [[nodiscard]] HttpResponse explain(const std::string& id, const std::string& against) const;
  [[nodiscard]] HttpResponse send_model(const std::string& sha256, const std::string& bytes) const;
  [[nodiscard]] HttpResponse look_model(const std::string& sha256) const;
  [[nodiscard]] HttpResponse remove_model(const std::string& sha256) const;
  /// Nothing where none was sent.
  [[nodiscard]] std::optional<std::filesystem::path> model_file(const std::string& sha256) const;
  [[nodiscard]] HttpResponse metrics() const;

  const ServiceOptions options_;
  const Tokens tokens_;
  const Clock& clock_;
  std::atomic<bool> draining_ = false;
  std::stop_source stop_;
  ServiceMetrics metrics_;
  PlanSearches searches_;
  std::unique_ptr<Jobs> jobs_;
  WorkPool reading_, streaming_;  // last: they use the others
};

}  // namespace coxswain::launcher
