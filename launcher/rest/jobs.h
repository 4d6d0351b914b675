#pragma once
// Jobs over REST: what is sent becomes a job of job_runner, what its run leaves is shown. Called by the service.
// Threads: submit from one at a time; the others from any. Source: INTERFACE sections 3 and 5, docs/service.md.
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "common/clock.h"
#include "launcher/rest/http.h"
#include "launcher/rest/job_runner.h"
#include "launcher/rest/job_streams.h"
#include "launcher/rest/served_job.h"

namespace coxswain::launcher {

/// An answer, or what the answer is a stream of.
struct Streamed {
  HttpResponse head;
  ReadMore next = {};  // reads files
};

class Jobs {
 public:
  /// `runner` is of this machine.
  Jobs(ServedFiles files, const Clock& clock, std::unique_ptr<JobRunner> runner)
      : files_(std::move(files)), clock_(clock), runner_(std::move(runner)) {}

  /// {"job", "devices"?, "nodes"?}. 201 with Location; the same again for a key that came before with the same body,
  /// 409 for one that came with another.
  [[nodiscard]] HttpResponse submit(const Json& body, const std::string& idempotency_key);
  /// ?limit (1 to 100, 20), ?after=ID: newest first, from the one after that.
  [[nodiscard]] HttpResponse list(const std::map<std::string, std::string>& query) const;
  [[nodiscard]] HttpResponse look(const std::string& id) const;
  /// 202; 409 of one that has ended.
  [[nodiscard]] HttpResponse cancel(const std::string& id);
  /// 204: it is forgotten, with all that its runs left, checkpoints too; 409 of one that has not ended.
  [[nodiscard]] HttpResponse remove(const std::string& id);
  /// A job that has not ended names the model that was sent.
  [[nodiscard]] bool needs_model(const std::string& sha256) const;
  /// ?after=STEP, ?limit (1 to 1000, 1000): rows of metrics.jsonl, oldest first.
  [[nodiscard]] HttpResponse metrics(const std::string& id, const std::map<std::string, std::string>& query) const;
  /// ?rank, ?stream=stdout|stderr, ?follow=true. Without a rank: what `launch train` printed. A stream of text.
  [[nodiscard]] Streamed logs(const std::string& id, const std::map<std::string, std::string>& query) const;
  /// Server-sent events: those of events.jsonl by their type, each with an id; `state` when the job's changes, until it
  /// has ended. With Last-Event-ID those that follow.
  [[nodiscard]] Streamed events(const std::string& id, const std::string& last_event_id) const;
  /// {"nodes": [{"name", "cores", "cpu_model", "memory_bytes", "cuda_devices", "running"}]}: this machine, then nodes
  /// that agents lend.
  [[nodiscard]] HttpResponse cluster() const;
  /// An agent says that its node is there, and what it works for: {"cores", "cpu_model", "memory_bytes",
  /// "cuda_devices", "job"?}. {"run": {"job", "host", "port", "token"}} when a run wants it, {"run": null} when it
  /// is to ask again: answered then, not before; "over" says that what it works for is. `prefer`: that header,
  /// `wait=SECONDS`; without it that is at once.
  void join_node(const std::string& name, const Json& body, const std::string& prefer, Reply reply);
  /// 204; 404.
  [[nodiscard]] HttpResponse leave_node(const std::string& name);

  /// How many there are, of every state.
  [[nodiscard]] std::map<JobState, int> count() const;

  /// As those of JobRunner.
  void drain() { runner_->drain(); }
  void wait() { runner_->wait(); }

 private:
  [[nodiscard]] std::filesystem::path folder_of(const JobRecord& record) const { return runner_->folder() / record.id; }
  [[nodiscard]] Json shown(const JobRecord& record) const;
  [[nodiscard]] Result<Job> read(const Json& json) const;

  /// Where the rows after a step begin, of the client that looked last: it asks for those that follow.
  struct MetricsPlace {
    std::int64_t after = 0, offset = 0;
    int attempt = 1;
  };

  const ServedFiles files_;
  const Clock& clock_;
  const std::unique_ptr<JobRunner> runner_;
  int num_submitted_ = 0;
  mutable std::mutex mutex_;                            // of places_
  mutable std::map<std::string, MetricsPlace> places_;  // by job
};

}  // namespace coxswain::launcher
