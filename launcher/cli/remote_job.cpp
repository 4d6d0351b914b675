#include "launcher/cli/remote_job.h"

#include <CLI/CLI.hpp>

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>

#include "common/bytes_io.h"
#include "common/clock.h"
#include "launcher/cli/command.h"
#include "launcher/control/event_queue.h"
#include "launcher/control/liveness.h"
#include "launcher/control/signals.h"

namespace coxswain::launcher {
namespace {

constexpr double kLookSeconds = 1;

Result<ServicePlace> place_of(const RemoteOptions& options, const std::string& id) {
  const bool is_id = !id.empty() && std::all_of(id.begin(), id.end(),
                                                [](unsigned char c) { return std::isalnum(c) != 0 || c == '-'; });
  if (!is_id)
    return usage_error("a job of a service is named by its id", "JOB-ID", id.empty() ? "nothing" : id,
                       "POST /v1/jobs answers with it; `launch status --service URL` lists them");
  return service_place(options);
}

std::string text_of(const Json& json) { return json.is_string() ? json.string() : to_text(json); }

std::string line_of(const Json& job) {
  std::string line = text_of(job["id"]) + "  " + text_of(job["name"]) + "  " + text_of(job["state"]);
  if (const Json& last = job["last"]; last.is_object()) {
    line += ", step " + text_of(last["step"]) + " of " + text_of(job["steps"]);
    char numbers[64];
    if (last["loss"].is_number()) {
      std::snprintf(numbers, sizeof numbers, ", loss %.4f", last["loss"].number());
      line += numbers;
    }
    if (job["remaining_seconds"].is_number()) {
      std::snprintf(numbers, sizeof numbers, ", %.0f s to go", job["remaining_seconds"].number());
      line += numbers;
    }
  }
  if (job["exit_code"].is_integer()) line += ", exit " + text_of(job["exit_code"]);
  return line + "\n";
}

bool has_ended(const Json& job) { return job["ended"].is_string(); }

void print(const Json& job, const std::string& format, bool follow) {
  const std::string text = format == "json" ? to_text(job, follow ? 0 : 2) + "\n" : line_of(job);
  std::fputs(text.c_str(), stdout);
  if (format != "json" && has_ended(job) && job["failure"].is_string())
    std::fputs(job["failure"].string().c_str(), stdout);
  std::fflush(stdout);
}

}  // namespace

Result<ServicePlace> service_place(const RemoteOptions& options) {
  auto place = parse_service_url(options.service);
  if (!place) return usage_error(place.error().message, place.error().expected, place.error().got, place.error().hint);
  if (options.token_file.empty())
    return usage_error("a service wants its token", "--token-file FILE", "nothing",
                       "`launch serve` tells its tokens at its first start; jobs need the one to run");
  COX_TRY(const std::string token, read_file(options.token_file));
  place->token = token.substr(0, token.find_first_of("\r\n"));
  place->ca_file = options.ca_file;
  return place;
}

void add_remote_options(CLI::App& command, RemoteOptions& options) {
  command
      .add_option("--service", options.service, "a `launch serve` on any machine, whose job it is: https://HOST:PORT")
      ->envname("COX_SERVICE");
  command.add_option("--token-file", options.token_file, "the service's token for jobs")->envname("COX_TOKEN_FILE");
  command.add_option("--tls-ca", options.ca_file, "certificates that are trusted; default: those of this machine");
}

Result<ExitCode> show_remote_job(const RemoteOptions& options, const std::string& id, const std::string& format,
                                 bool follow) {
  if (id.empty()) {
    COX_TRY(const ServicePlace place, place_of(options, "all"));
    for (std::string target = "/v1/jobs?limit=100"; !target.empty();) {
      COX_TRY(const Json page, ask_service(place, {"GET", target}));
      const std::string next = page["next"].is_string() ? page["next"].string() : "";
      const bool is_ours =
          next.empty() || (next.starts_with("/v1/jobs?") && next.find_first_of(" \r\n") == std::string::npos);
      if (!page["jobs"].is_array() || !is_ours)
        return Error{ErrorCode::Unavailable, "this is no `launch serve`", options.service, "a list of jobs", "", ""};
      for (const Json& job : page["jobs"].array()) print(job, format, true);
      target = next;
    }
    return ExitCode::Done;
  }
  COX_TRY(const ServicePlace place, place_of(options, id));
  EventQueue<int> signals;
  const SignalWatcher watcher([&signals](int number) { signals.push(number); });
  Json shown;
  for (;;) {
    COX_TRY(Json job, ask_service(place, {"GET", "/v1/jobs/" + id}));
    if (!(job == shown)) print(job, format, follow);
    if (!follow || has_ended(job)) return ExitCode::Done;
    shown = std::move(job);
    if (signals.pop(after(steady_clock().now(), kLookSeconds))) return ExitCode::Done;
  }
}

Result<ExitCode> show_remote_logs(const RemoteOptions& options, const std::string& id, int rank,
                                  const std::string& stream, bool follow) {
  COX_TRY(const ServicePlace place, place_of(options, id));
  std::string target = "/v1/jobs/" + id + "/logs?stream=" + stream;
  if (rank >= 0) target += "&rank=" + std::to_string(rank);
  if (follow) target += "&follow=true";
  COX_TRY_VOID(follow_service(place, target, [](std::string_view part) {
    std::fwrite(part.data(), 1, part.size(), stdout);
    std::fflush(stdout);
  }));
  return ExitCode::Done;
}

Result<ExitCode> cancel_remote_job(const RemoteOptions& options, const std::string& id) {
  COX_TRY(const ServicePlace place, place_of(options, id));
  COX_TRY(const Json job, ask_service(place, {"POST", "/v1/jobs/" + id + "/cancel"}));
  print(job, "table", false);
  std::puts("a job that runs saves a checkpoint and ends, within a minute");
  return ExitCode::Done;
}

}  // namespace coxswain::launcher
