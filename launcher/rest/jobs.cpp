#include "launcher/rest/jobs.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>
#include <utility>

#include "cluster/device_spec.h"
#include "cluster/inventory.h"
#include "common/bytes_io.h"
#include "common/hash.h"
#include "launcher/control/node_environment.h"
#include "launcher/rest/node_report.h"
#include "launcher/rest/problem.h"
#include "launcher/watching/file_tail.h"

namespace coxswain::launcher {
namespace {

constexpr std::size_t kMostKey = 200, kMostMetrics = 1000, kMostListed = 100;
constexpr std::size_t kMetricsBytes = std::size_t{4} << 20;

HttpResponse unknown_job() { return problem(404, "no job of this id was sent; GET /v1/jobs lists them"); }

HttpResponse as_json(const Json& json, int status = 200) {
  HttpResponse response;
  response.status = status;
  response.body = to_text(json) + "\n";
  return response;
}

/// A whole number among `query`; nothing where it is none or out of range.
std::optional<std::int64_t> number_in(const std::map<std::string, std::string>& query, const std::string& name,
                                      std::int64_t otherwise, std::int64_t least, std::int64_t most) {
  const auto found = query.find(name);
  if (found == query.end()) return otherwise;
  const std::string& text = found->second;
  if (text.empty() || text.size() > 15 || text.find_first_not_of("0123456789") != std::string::npos)
    return std::nullopt;
  const std::int64_t value = std::stoll(text);
  return value < least || value > most ? std::nullopt : std::optional(value);
}

/// Of `wait=SECONDS` among preferences (RFC 7240); what cannot be read is none.
double preferred_wait(std::string prefer) {
  std::transform(prefer.begin(), prefer.end(), prefer.begin(), [](unsigned char c) { return std::tolower(c); });
  constexpr std::string_view kWait = "wait=";
  const auto found = prefer.find(kWait);
  if (found == std::string::npos) return 0;
  int seconds = 0;
  std::from_chars(prefer.data() + found + kWait.size(), prefer.data() + prefer.size(), seconds);
  return std::max(seconds, 0);
}

Error unreachable(const std::string& nodes) {
  return {ErrorCode::InvalidArgument,
          "this service does not know by which address other nodes reach it",
          "nodes",
          "1",
          nodes,
          "start it with --local-addr, or let it --listen at one address"};
}

HttpResponse wrong_query(const std::string& name, const std::string& expected) {
  return problem(400, "?" + name + " is " + expected);
}

}  // namespace

Result<Job> Jobs::read(const Json& json) const {
  COX_TRY(Job job, read_served_job(json, files_, {}));
  std::vector<Error> problems;
  const auto beneath = [&](const char* member, const std::filesystem::path& path) {
    if (!path.empty() && !lies_beneath(files_.root, path)) problems.push_back(not_served(member, files_.root));
  };
  beneath("job.data.text", job.data.text);
  beneath("job.data.tensors", job.data.tensors);
  beneath("job.cluster", job.cluster_file);
  beneath("job.plan", job.plan_file);
  if (!job.checkpoint.directory.empty())
    problems.push_back({ErrorCode::InvalidArgument, "a job of this service keeps checkpoints in its own folder",
                        "job.checkpoint.directory", "nothing", "a folder", "leave it out"});
  if (!job.environment.empty())
    problems.push_back({ErrorCode::PermissionDenied, "a job of this service has the service's environment",
                        "job.environment", "nothing", "variables", "leave it out"});
  if (problems.empty()) return job;
  const ErrorCode code = problems.front().code;
  return combine_errors(code, "what a job of this service may not have", std::move(problems));
}

HttpResponse Jobs::submit(const Json& body, const std::string& idempotency_key) {
  if (idempotency_key.size() > kMostKey)
    return problem(400, "an Idempotency-Key has at most " + std::to_string(kMostKey) + " characters");
  const std::string sha256 = sha256_hex(to_text(body));
  if (!idempotency_key.empty()) {
    for (const JobRecord& known : runner_->all()) {
      if (known.idempotency_key != idempotency_key) continue;
      if (known.request_sha256 != sha256)
        return problem(409, "this Idempotency-Key came with another body, and made job " + known.id);
      HttpResponse again = as_json(shown(known), 201);
      again.headers["Location"] = "/v1/jobs/" + known.id;
      return again;
    }
  }
  JsonReader reader(body, "");
  const Json& wanted = reader.object("job");
  JobRecord record;
  if (reader.has("devices"))
    record.devices = reader.string("devices");
  else
    static_cast<void>(reader.any("devices"));
  if (reader.has("nodes")) {
    record.nodes = reader.string("nodes");
    const auto range = parse_node_range(record.nodes);
    if (!range)
      reader.problem({ErrorCode::InvalidArgument, "no number of nodes", "nodes", "N, or MIN:MAX, from 1", record.nodes,
                      "this machine is one of them"});
    else if (range->second > 1 && !runner_->takes_nodes())
      reader.problem(unreachable(record.nodes));
  } else {
    static_cast<void>(reader.any("nodes"));
  }
  if (auto whole = reader.finish(); !whole) return problem(whole.error());
  const cluster::Inventory here = cluster::take_inventory();
  if (auto devices = cluster::parse_device_spec(record.devices.empty() ? "auto" : record.devices, here.cores,
                                                static_cast<int>(here.cuda.size()), here.numa_nodes);
      !devices) {
    Error error = devices.error();
    error.path = "devices";
    for (Error& detail : error.details) detail.path = "devices";
    return problem(error);
  }
  auto job = read(wanted);
  if (!job) return problem(job.error());

  record.submitted = clock_.utc_text();
  record.id = make_job_id(record.submitted, ++num_submitted_);
  record.name = job->name;
  record.steps = job->steps;
  record.idempotency_key = idempotency_key;
  record.request_sha256 = sha256;
  std::error_code code;
  const std::filesystem::path folder = folder_of(record);
  if (!std::filesystem::create_directory(folder, code))
    return problem(503, "the job cannot be kept: " + (code ? code.message() : "its folder is there already"));
  // Of several nodes each keeps its own parts, which all attempts find in one place.
  if (!record.nodes.empty()) job->checkpoint.directory = checkpoint_folder(folder);
  auto kept = write_file(folder / "job.yaml", to_yaml(*job));
  if (kept) kept = runner_->add(record);
  if (!kept) {
    std::filesystem::remove_all(folder, code);
    if (kept.error().code != ErrorCode::ResourceExhausted)
      return problem(503, "the job cannot be kept: " + kept.error().message);
    return too_much(kept.error().message + "; " + kept.error().hint, 10);
  }
  HttpResponse response = as_json(shown(record), 201);
  response.headers["Location"] = "/v1/jobs/" + record.id;
  return response;
}

Json Jobs::shown(const JobRecord& record) const {
  const auto time = [](const std::string& utc) { return utc.empty() ? Json() : Json(utc); };
  JsonObject json{{"id", record.id},
                  {"name", record.name},
                  {"state", to_text(record.state)},
                  {"nodes", record.nodes.empty() ? "1" : record.nodes},
                  {"steps", record.steps},
                  {"attempts", record.attempts},
                  {"submitted", time(record.submitted)},
                  {"started", time(record.started)},
                  {"ended", time(record.ended)},
                  {"exit_code", record.exit_code ? Json(*record.exit_code) : Json()},
                  {"failure", record.failure},
                  {"last", Json()},
                  {"remaining_seconds", Json()}};
  for (int attempt = record.attempts; attempt > 0; --attempt) {
    const auto row = parse_json(last_line(run_folder(folder_of(record), attempt) / "metrics.jsonl"));
    if (!row || !row->is_object()) continue;  // it trained no step
    const Json &step = (*row)["step"], &seconds = (*row)["step_seconds"];
    if (record.state == JobState::Running && step.is_integer() && seconds.is_number())
      json["remaining_seconds"] =
          static_cast<double>(std::max<std::int64_t>(0, record.steps - step.integer())) * seconds.number();
    json["last"] = *row;
    break;
  }
  return json;
}

HttpResponse Jobs::list(const std::map<std::string, std::string>& query) const {
  const auto limit = number_in(query, "limit", 20, 1, kMostListed);
  if (!limit) return wrong_query("limit", "a number of 1 to " + std::to_string(kMostListed));
  std::vector<JobRecord> records = runner_->all();
  if (const auto after = query.find("after"); after != query.end())
    std::erase_if(records, [&after](const JobRecord& record) { return record.id >= after->second; });
  const bool more = records.size() > static_cast<std::size_t>(*limit);
  if (more) records.resize(static_cast<std::size_t>(*limit));
  JsonArray jobs;
  for (const JobRecord& record : records) jobs.push_back(shown(record));
  Json next;
  if (more) next = "/v1/jobs?after=" + records.back().id + "&limit=" + std::to_string(*limit);
  return as_json(JsonObject{{"jobs", std::move(jobs)}, {"next", std::move(next)}});
}

HttpResponse Jobs::look(const std::string& id) const {
  const auto record = runner_->find(id);
  return record ? as_json(shown(*record)) : unknown_job();
}

HttpResponse Jobs::cancel(const std::string& id) {
  if (!runner_->find(id)) return unknown_job();
  if (!runner_->cancel(id)) return problem(409, "the job has ended");
  return as_json(shown(*runner_->find(id)), 202);
}

HttpResponse Jobs::remove(const std::string& id) {
  if (const auto removed = runner_->remove(id); !removed) {
    if (removed.error().code == ErrorCode::NotFound) return unknown_job();
    return problem(409, "the job has not ended; POST /v1/jobs/" + id + "/cancel ends it");
  }
  const std::lock_guard lock(mutex_);
  places_.erase(id);
  HttpResponse response;
  response.status = 204;
  return response;
}

bool Jobs::needs_model(const std::string& sha256) const {
  const auto names_it = [&](const JobRecord& record) {
    const auto job = read_file(folder_of(record) / "job.yaml");
    return job && job->find(sha256) != std::string::npos;
  };
  const std::vector<JobRecord> records = runner_->all();
  return std::any_of(records.begin(), records.end(),
                     [&](const JobRecord& record) { return !has_ended(record.state) && names_it(record); });
}

HttpResponse Jobs::metrics(const std::string& id, const std::map<std::string, std::string>& query) const {
  const auto after = number_in(query, "after", 0, 0, std::int64_t{1} << 48);
  if (!after) return wrong_query("after", "a step");
  const auto limit = number_in(query, "limit", kMostMetrics, 1, kMostMetrics);
  if (!limit) return wrong_query("limit", "a number of 1 to " + std::to_string(kMostMetrics));
  const auto record = runner_->find(id);
  if (!record) return unknown_job();
  MetricsPlace place;
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = places_.find(id); known != places_.end() && known->second.after == *after)
      place = known->second;
  }
  // A run that went on from a checkpoint took some steps again: the newer row holds.
  std::map<std::int64_t, Json> rows;
  bool whole = true;  // all there are
  std::int64_t end = place.offset;
  for (int attempt = place.attempt; attempt <= record->attempts; ++attempt) {
    FileTail file(run_folder(folder_of(*record), attempt) / "metrics.jsonl",
                  attempt == place.attempt ? place.offset : 0);
    for (std::string text = file.next(kMetricsBytes); !text.empty(); text = file.next(kMetricsBytes)) {
      for_each_line(text, [&](std::string_view line) {
        auto row = parse_json(line);
        if (!row || !row->is_object() || !std::as_const(*row)["step"].is_integer()) return;
        const std::int64_t step = std::as_const(*row)["step"].integer();
        if (step > *after) rows.insert_or_assign(step, std::move(*row));
        if (rows.size() <= static_cast<std::size_t>(*limit)) return;
        rows.erase(std::prev(rows.end()));
        whole = false;
      });
    }
    end = file.offset();
  }
  if (whole && record->attempts > 0) {
    const std::lock_guard lock(mutex_);
    places_[id] = {rows.empty() ? *after : rows.rbegin()->first, end, record->attempts};
  }
  JsonArray metrics;
  for (auto& [step, row] : rows) metrics.push_back(std::move(row));
  return as_json(JsonObject{{"metrics", std::move(metrics)}});
}

Streamed Jobs::logs(const std::string& id, const std::map<std::string, std::string>& query) const {
  const auto record = runner_->find(id);
  if (!record) return {unknown_job()};
  LogSource source;
  if (query.contains("rank")) {
    const auto rank = number_in(query, "rank", 0, 0, 1 << 24);
    if (!rank) return {wrong_query("rank", "the number of a rank")};
    source.rank = static_cast<int>(*rank);
  }
  if (const auto stream = query.find("stream"); stream != query.end()) {
    if (stream->second != "stdout" && stream->second != "stderr") return {wrong_query("stream", "stdout or stderr")};
    source.errors = stream->second == "stderr";
  }
  bool follow = false;
  if (const auto wanted = query.find("follow"); wanted != query.end()) {
    if (wanted->second != "true" && wanted->second != "false") return {wrong_query("follow", "true or false")};
    follow = wanted->second == "true";
  }
  Streamed streamed{{}, stream_logs(*runner_, id, source, follow)};
  streamed.head.content_type = "text/plain; charset=utf-8";
  return streamed;
}

Streamed Jobs::events(const std::string& id, const std::string& last_event_id) const {
  if (!runner_->find(id)) return {unknown_job()};
  const auto from = parse_event_id(last_event_id);
  if (!from) return {problem(400, "Last-Event-ID is none of an event of this stream")};
  Streamed streamed{{}, stream_events(*runner_, id, *from)};
  streamed.head.content_type = "text/event-stream";
  return streamed;
}

std::map<JobState, int> Jobs::count() const {
  std::map<JobState, int> counts{{JobState::Queued, 0},
                                 {JobState::Running, 0},
                                 {JobState::Finished, 0},
                                 {JobState::Failed, 0},
                                 {JobState::Cancelled, 0}};
  for (const JobRecord& record : runner_->all()) ++counts[record.state];
  return counts;
}

HttpResponse Jobs::cluster() const {
  NodeReport here = own_node();
  here.name = "this machine";
  for (const JobRecord& record : runner_->all())
    if (record.state == JobState::Running) here.job = record.id;
  JsonArray nodes{to_json(here)};
  for (const NodeReport& node : runner_->nodes().all()) nodes.push_back(to_json(node));
  return as_json(JsonObject{{"nodes", std::move(nodes)}});
}

void Jobs::join_node(const std::string& name, const Json& body, const std::string& prefer, Reply reply) {
  auto report = node_report_from_json(name, body);
  if (!report) return reply(problem(report.error()));
  const bool kept = runner_->nodes().ask(std::move(*report), preferred_wait(prefer), [reply](const NodeAnswer& answer) {
    Json run;
    if (answer.run)
      run = JsonObject{{"job", answer.run->job},
                       {"host", answer.run->host.empty() ? Json() : Json(answer.run->host)},
                       {"port", answer.run->port},
                       {"token", answer.run->token}};
    reply(as_json(JsonObject{{"run", std::move(run)}, {"over", answer.over}}));
  });
  if (!kept) reply(too_much("too many nodes joined", 10));
}

HttpResponse Jobs::leave_node(const std::string& name) {
  if (!runner_->nodes().leave(name)) return problem(404, "no node of this name joined; GET /v1/cluster lists them");
  HttpResponse response;
  response.status = 204;
  return response;
}

}  // namespace coxswain::launcher
