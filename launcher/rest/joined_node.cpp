#include "launcher/rest/joined_node.h"

#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <variant>

#include "common/bytes_io.h"
#include "common/hash.h"
#include "launcher/control/event_queue.h"
#include "launcher/control/liveness.h"
#include "launcher/control/local_start.h"
#include "launcher/control/signals.h"
#include "launcher/control/spawner.h"
#include "launcher/rest/node_pool.h"

namespace coxswain::launcher {
namespace {

// Between two questions: of a node that works; where nothing came, or too soon.
constexpr double kWorkingSeconds = 10, kPauseSeconds = 1;
constexpr double kLeaveSeconds = 5;

std::string node_name() {
  char host[80] = {};
  ::gethostname(host, sizeof host - 1);
  return std::string(host) + "-" + random_hex(4);
}

/// Says that the node is there, over and over, and posts what is answered.
class Asker {
 public:
  using Post = std::function<void(Result<Json>)>;

  Asker(const ServicePlace& service, NodeReport report, Post post)
      : service_(service), report_(std::move(report)), post_(std::move(post)) {
    thread_ = std::jthread([this](const std::stop_token& stop) { loop(stop); });
  }

  /// The run that was answered is over.
  void waits_again() {
    {
      const std::lock_guard lock(mutex_);
      report_.job.clear();
    }
    changed_.notify_all();
  }

  void stop() {
    thread_.request_stop();
    thread_.join();
  }

 private:
  void loop(const std::stop_token& stop) {
    bool is_known = false, works = false;  // was said
    while (!stop.stop_requested()) {
      const TimePoint began = steady_clock().now();
      ServiceCall call{"PUT", "/v1/cluster/nodes/" + report_.name};
      if (is_known) call.prefer = "wait=" + std::to_string(static_cast<int>(NodePool::kMostWaitSeconds));
      call.stop = stop;
      {
        const std::lock_guard lock(mutex_);
        call.body = node_request_json(report_);
      }
      auto answer = ask_service(service_, call);
      if (stop.stop_requested()) return;
      std::unique_lock lock(mutex_);
      if (answer) {
        is_known = true;
        const Json& run = std::as_const(*answer)["run"];
        // Before the next question: it works from now on.
        if (run.is_object() && run["job"].is_string() && report_.job.empty()) report_.job = run["job"].string();
      }
      post_(std::move(answer));
      const std::string job = report_.job;
      const bool is_new = !job.empty() && !std::exchange(works, true);  // it says so at once
      if (job.empty()) works = false;
      const TimePoint next = is_new        ? began
                             : job.empty() ? after(began, kPauseSeconds)
                                           : after(steady_clock().now(), kWorkingSeconds);
      changed_.wait_until(lock, stop, next, [&] { return report_.job != job; });
    }
  }

  const ServicePlace& service_;
  std::mutex mutex_;  // of report_.job
  std::condition_variable_any changed_;
  NodeReport report_;
  const Post post_;
  std::jthread thread_;
};

class JoinedNode {
 public:
  JoinedNode(const JoinedNodeOptions& options, std::filesystem::path scratch)
      : options_(options), scratch_(std::move(scratch)) {}

  Result<ExitCode> run() {
    const SignalWatcher signals([this](int number) { events_.push(SignalCame{number}); });
    NodeReport report = own_node();
    report.name = node_name();
    name_ = report.name;
    spawner_ = make_process_spawner([this](const ProcessExit& exit) { events_.push(exit); });
    Asker asker(options_.service, std::move(report),
                [this](Result<Json> answer) { events_.push(Answered{std::move(answer)}); });
    const Deadline join_by = Deadline::after(steady_clock(), Seconds(options_.join_timeout_seconds));
    std::optional<Result<ExitCode>> result;
    while (!result) {
      auto event = events_.pop(joined_ ? Deadline::never().at : join_by.at);
      if (!event) {
        result = last_error_;
      } else if (auto* answered = std::get_if<Answered>(&*event)) {
        result = take(answered->answer, asker);
      } else if (auto* exit = std::get_if<ProcessExit>(&*event)) {
        result = run_ended(*exit, asker);
      } else {
        result = asked_to_end(std::get<SignalCame>(*event).number);
      }
    }
    events_.close();
    asker.stop();
    leave();
    spawner_.reset();
    return *result;
  }

 private:
  struct Answered {
    Result<Json> answer;
  };
  struct SignalCame {
    int number = 0;
  };
  using Event = std::variant<Answered, ProcessExit, SignalCame>;

  std::optional<Result<ExitCode>> take(const Result<Json>& answer, Asker& asker) {
    if (!answer) {
      const ErrorCode code = answer.error().code;
      // A run goes on without the service; what passes is asked again.
      if (pid_ == 0 && code != ErrorCode::Unavailable && code != ErrorCode::Internal)
        return Result<ExitCode>(answer.error());
      if (answers_) std::fprintf(stderr, "asking again: %s", to_text(answer.error()).c_str());
      answers_ = false;
      last_error_ = answer.error();
      return std::nullopt;
    }
    if (!std::exchange(answers_, true) || !joined_)
      std::fprintf(stderr, "joined %s as %s\n", options_.service.host.c_str(), name_.c_str());
    joined_ = true;
    const Json& over = (*answer)["over"];
    if (over.is_bool() && over.boolean()) end_run();
    const Json& run = (*answer)["run"];
    if (!run.is_object() || pid_ != 0) return std::nullopt;
    if (auto started = start(run); !started) {
      std::fprintf(stderr, "%s", to_text(started.error()).c_str());
      asker.waits_again();
    }
    return std::nullopt;
  }

  Result<void> start(const Json& run) {
    if (!run["job"].is_string() || !run["port"].is_integer() || !run["token"].is_string())
      return Error{ErrorCode::Unavailable, "this is no `launch serve`", options_.service.host, "a run", "", ""};
    const std::string& job = run["job"].string();
    const std::string number = std::to_string(++num_runs_);
    COX_TRY_VOID(write_file(token_file(), run["token"].string() + "\n"));
    SpawnRequest request;
    request.program = options_.program;
    ServicePlace place = options_.service;
    if (run["host"].is_string()) place.host = run["host"].string();
    request.arguments = {"agent", "--coordinator", beside(place, static_cast<int>(run["port"].integer())),
                         "--token-file", token_file().string()};
    request.environment["TMPDIR"] = scratch_.string();  // what it leaves behind goes with this process
    // Of this agent's own name: what the service sends is no part of a path.
    if (!options_.run_dir.empty())
      request.arguments.insert(request.arguments.end(),
                               {"--run-dir", (options_.run_dir / (name_ + "-" + number)).string()});
    request.arguments.insert(request.arguments.end(), options_.arguments.begin(), options_.arguments.end());
    COX_TRY(pid_, spawner_->spawn(request));
    told_over_ = false;
    std::fprintf(stderr, "works for job %s\n", job.c_str());
    return {};
  }

  std::optional<Result<ExitCode>> run_ended(const ProcessExit& exit, Asker& asker) {
    if (exit.pid != pid_) return std::nullopt;
    pid_ = 0;
    std::error_code ignored;
    std::filesystem::remove(token_file(), ignored);
    const int code = exit.signalled ? 128 + exit.number : exit.number;
    std::fprintf(stderr, "its run is over (%d)\n", code);
    if (num_signals_ > 0) return Result<ExitCode>(static_cast<ExitCode>(code));
    asker.waits_again();
    return std::nullopt;
  }

  std::optional<Result<ExitCode>> asked_to_end(int number) {
    if (pid_ == 0) return Result<ExitCode>(ExitCode::Done);
    // The run's own process knows what a second one means.
    spawner_->send_signal(pid_, ++num_signals_ > 2 ? SIGKILL : number);
    return std::nullopt;
  }

  /// Which the service does not know any more: its own process may wait for a coordinator that never comes.
  void end_run() {
    if (pid_ != 0) spawner_->send_signal(pid_, std::exchange(told_over_, true) ? SIGKILL : SIGTERM);
  }

  /// Of the run that it works for.
  [[nodiscard]] std::filesystem::path token_file() const { return scratch_ / "token"; }

  /// What the service cannot hear now it finds out by itself. It may know this node before the node has its answer.
  void leave() {
    if (!joined_ && !answers_) return;
    ServiceCall call{"DELETE", "/v1/cluster/nodes/" + name_};
    call.deadline = Deadline::after(steady_clock(), Seconds(kLeaveSeconds));
    static_cast<void>(ask_service(options_.service, call));
  }

  const JoinedNodeOptions& options_;
  const std::filesystem::path scratch_;
  std::string name_;
  EventQueue<Event> events_;
  std::unique_ptr<Spawner> spawner_;
  int pid_ = 0, num_runs_ = 0, num_signals_ = 0;
  bool joined_ = false, told_over_ = false;
  bool answers_ = true;  // the service, last, as far as is known
  Error last_error_{ErrorCode::Unavailable, "the service does not answer", "--coordinator", "", "", ""};
};

}  // namespace

Result<ExitCode> run_joined_node(const JoinedNodeOptions& options) {
  COX_TRY(auto scratch, ScratchFolder::make());
  JoinedNode node(options, scratch.path());
  return node.run();
}

}  // namespace coxswain::launcher
