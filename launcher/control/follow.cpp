#include "launcher/control/follow.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <deque>
#include <iostream>
#include <thread>
#include <variant>

#include "launcher/control/event_queue.h"
#include "launcher/control/exit_cause.h"
#include "launcher/control/liveness.h"
#include "launcher/control/signals.h"
#include "launcher/control/spawner.h"
#include "proto/error_json.h"

namespace coxswain::launcher {
namespace {

// An agent whose coordinator is gone for good stops its workers and ends within this; then it is killed, and they with
// it.
constexpr double kAgentEndsSeconds = 1.5;
// A coordinator that was killed is started again: but not one that does not come to its work so often in a row, nor one
// that died so often within a minute.
constexpr int kMostFalseStarts = 3;
constexpr std::size_t kMostRestarts = 60;
constexpr double kRestartWindowSeconds = 60;
// A coordinator that told how the run ended ends itself within this; a search that goes on does not hold it.
constexpr double kCoordinatorEndsSeconds = 2.5;
// A coordinator whose agent died tells how the run ended within this.
constexpr double kCoordinatorTellsSeconds = 2.5;

struct Line {
  int coordinator = 0;  // which one, from 1 on
  std::string text;
};
struct PipeClosed {
  int coordinator = 0;
};
struct SignalCame {
  int number = 0;
};
using FollowEvent = std::variant<Line, PipeClosed, ProcessExit, SignalCame>;

void read_lines(int descriptor, int coordinator, EventQueue<FollowEvent>& events) {
  std::string pending;
  char chunk[4096];
  for (;;) {
    const ssize_t n = ::read(descriptor, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    pending.append(chunk, static_cast<std::size_t>(n));
    for (std::size_t end = pending.find('\n'); end != std::string::npos; end = pending.find('\n')) {
      events.push(Line{coordinator, pending.substr(0, end)});
      pending.erase(0, end + 1);
    }
  }
  events.push(PipeClosed{coordinator});
}

class Follower {
 public:
  Follower(const CoordinatorStart& coordinator, AgentStart agent)
      : coordinator_(coordinator), agent_(std::move(agent)) {}

  Result<Followed> run() {
    const SignalWatcher signals([this](int number) { events_.push(SignalCame{number}); });
    const auto spawner = make_process_spawner([this](const ProcessExit& exit) { events_.push(exit); });
    spawner_ = spawner.get();
    COX_TRY_VOID(start_coordinator());
    while (!over()) {
      if (auto event = events_.pop(next_look())) handle(*event);
      look_at_coordinator();
      if (kill_agent_by_ && kill_agent_by_->passed(clock_)) kill(agent_pid_, kill_agent_by_);
      if (kill_coordinator_by_ && kill_coordinator_by_->passed(clock_)) kill(coordinator_pid_, kill_coordinator_by_);
    }
    events_.close();
    if (spawn_error_) return *spawn_error_;
    return std::move(followed_);
  }

 private:
  /// When there is something to do, if nothing happens before.
  [[nodiscard]] TimePoint next_look() const {
    TimePoint next = Deadline::after(clock_, Seconds(limits::kStoppedLook)).at;
    if (coordinator_pid_ > 0) next = std::min(next, look_at_);
    for (const auto& by : {kill_agent_by_, kill_coordinator_by_})
      if (by) next = std::min(next, by->at);
    return next;
  }

  [[nodiscard]] bool over() const { return coordinator_pid_ == 0 && agent_pid_ == 0 && pipe_closed_; }

  void kill(int pid, std::optional<Deadline>& by) {
    by.reset();
    if (pid > 0) spawner_->send_signal(pid, SIGKILL);
    if (pid == coordinator_pid_) may_restart_ = false;
  }

  Result<void> start_coordinator() {
    int pipe_ends[2];
    if (::pipe2(pipe_ends, O_CLOEXEC) != 0)
      return Error{ErrorCode::FailedPrecondition, "cannot make a pipe", "", "", std::strerror(errno), ""};
    SpawnRequest request;
    request.program = own_program();
    request.arguments = {"coordinator"};
    request.stdin_text = to_text(to_json(coordinator_));
    request.stdout_descriptor = pipe_ends[1];
    auto started = spawner_->spawn(request);
    ::close(pipe_ends[1]);
    if (!started) {
      ::close(pipe_ends[0]);
      return started.error();
    }
    coordinator_pid_ = *started;
    ++coordinator_number_;
    coordinator_exit_.reset();
    looks_ = StoppedLooks();
    pipe_closed_ = listening_ = false;
    reader_ = std::jthread([this, number = coordinator_number_, descriptor = pipe_ends[0]] {
      read_lines(descriptor, number, events_);
      ::close(descriptor);
    });
    return {};
  }

  /// One that is stopped is killed, and started again like one that died.
  void look_at_coordinator() {
    const TimePoint now = clock_.now();
    if (coordinator_pid_ == 0 || now < look_at_) return;
    look_at_ = Deadline::after(clock_, Seconds(limits::kStoppedLook)).at;
    if (looks_.add(spawner_->stopped_at(coordinator_pid_))) spawner_->send_signal(coordinator_pid_, SIGKILL);
  }

  void handle(const FollowEvent& event) {
    if (const auto* line = std::get_if<Line>(&event)) {
      on_line(line->text);
    } else if (const auto* closed = std::get_if<PipeClosed>(&event)) {
      if (closed->coordinator != coordinator_number_) return;
      pipe_closed_ = true;
      if (coordinator_exit_) on_coordinator_ended();
    } else if (const auto* exit = std::get_if<ProcessExit>(&event)) {
      if (exit->pid == coordinator_pid_) {
        coordinator_pid_ = 0;
        coordinator_exit_ = *exit;
        if (pipe_closed_) on_coordinator_ended();
      } else if (exit->pid == agent_pid_) {
        agent_pid_ = 0;
        agent_exit_ = *exit;
        // With other nodes the run may go on.
        if (!told_ && coordinator_pid_ > 0 && is_alone())
          kill_coordinator_by_ = Deadline::after(clock_, Seconds(kCoordinatorTellsSeconds));
      }
    } else if (const auto* signal = std::get_if<SignalCame>(&event)) {
      followed_.signal = signal->number;
      ++stop_requests_;
      if (listening_ && coordinator_pid_ > 0) spawner_->send_signal(coordinator_pid_, signal->number);
    }
  }

  /// No other node can carry the run.
  [[nodiscard]] bool is_alone() const { return std::max(coordinator_.num_nodes, coordinator_.max_nodes) == 1; }

  /// Killed, as opposed to ended with a word of its own: its journal makes it anew, and the ranks do not wait for it.
  bool start_again() {
    const bool alone = is_alone() && agent_exit_;
    if (told_ || alone || !may_restart_ || !coordinator_exit_->signalled || coordinator_.run_dir.empty()) return false;
    false_starts_ = listening_ ? 0 : false_starts_ + 1;
    const TimePoint now = clock_.now();
    restarts_.push_back(now);
    while (std::chrono::duration<double>(now - restarts_.front()).count() > kRestartWindowSeconds)
      restarts_.pop_front();
    if (false_starts_ >= kMostFalseStarts || restarts_.size() > kMostRestarts) return false;
    return start_coordinator().has_value();
  }

  /// Its pipe is read to the end and it is gone.
  void on_coordinator_ended() {
    if (start_again()) return;
    if (agent_pid_ > 0) {
      kill_agent_by_ = Deadline::after(clock_, Seconds(kAgentEndsSeconds));
      if (!told_) spawner_->send_signal(agent_pid_, SIGTERM);  // it would wait for another coordinator
    }
    if (told_) return;
    std::string cause = describe_exit(*coordinator_exit_, false);
    if (coordinator_exit_->signalled) cause += " (" + signal_name(coordinator_exit_->number) + ")";
    if (agent_exit_) {
      followed_.error = Error{ErrorCode::Unavailable,
                              "this node's agent ended before the run did: " + describe_exit(*agent_exit_, false),
                              "node 0",
                              "",
                              "",
                              "its own error stands above, if it could tell"};
    } else {
      followed_.error = Error{ErrorCode::Unavailable,
                              "the coordinator died: " + cause,
                              "node 0",
                              "a coordinator that lives as long as the run",
                              cause,
                              "go on with --resume where checkpoints are saved, else start the run again"};
    }
  }

  void on_line(const std::string& text) {
    const auto json = parse_json(text);
    if (!json || !json->is_object()) return;
    if (const Json& line = (*json)["console"]; line.is_string()) std::cout << line.string() << "\n" << std::flush;
    if (const Json& port = (*json)["listening"]; port.is_integer())
      on_listening(static_cast<int>(port.integer()), (*json)["stop_requests"].integer());
    if (const Json& outcome = (*json)["outcome"]; outcome.is_object()) {
      told_ = true;
      kill_coordinator_by_ = Deadline::after(clock_, Seconds(kCoordinatorEndsSeconds));
      followed_.outcome = outcome.object();
      if (outcome["error"].is_object()) followed_.error = proto::error_from_json(outcome["error"]);
      followed_.signal = outcome["signal"].is_integer() ? static_cast<int>(outcome["signal"].integer()) : 0;
    }
  }

  /// `knows`: how many requests to stop reached it or the one before it.
  void on_listening(int port, std::int64_t knows) {
    listening_ = true;
    // The host part is the one to reach it by; the port may have been chosen by the system, and stays.
    coordinator_.listen = coordinator_.listen.substr(0, coordinator_.listen.rfind(':') + 1) + std::to_string(port);
    if (stop_requests_ > knows) spawner_->send_signal(coordinator_pid_, followed_.signal);
    if (!agent_began_) start_agent();
  }

  void start_agent() {
    agent_began_ = true;
    agent_.coordinator = coordinator_.listen;
    SpawnRequest request;
    request.program = own_program();
    request.arguments = {"local-agent"};
    request.stdin_text = to_text(to_json(agent_));
    auto started = spawner_->spawn(request);
    if (started) {
      agent_pid_ = *started;
      return;
    }
    spawn_error_ = started.error();
    may_restart_ = false;
    spawner_->send_signal(coordinator_pid_, SIGKILL);
  }

  CoordinatorStart coordinator_;
  AgentStart agent_;
  const Clock& clock_ = steady_clock();
  EventQueue<FollowEvent> events_;
  Spawner* spawner_ = nullptr;
  int coordinator_pid_ = 0, agent_pid_ = 0;
  int coordinator_number_ = 0, false_starts_ = 0;
  std::deque<TimePoint> restarts_;  // within the window
  std::int64_t stop_requests_ = 0;
  StoppedLooks looks_;
  TimePoint look_at_{};  // at a coordinator that is stopped
  std::optional<ProcessExit> coordinator_exit_, agent_exit_;
  std::optional<Deadline> kill_agent_by_, kill_coordinator_by_;
  std::optional<Error> spawn_error_;
  bool told_ = false, pipe_closed_ = false, listening_ = false, agent_began_ = false, may_restart_ = true;
  Followed followed_;
  std::jthread reader_;  // last: it posts into the queue
};

}  // namespace

Result<Followed> start_and_follow(const CoordinatorStart& coordinator, AgentStart agent) {
  return Follower(coordinator, std::move(agent)).run();
}

}  // namespace coxswain::launcher
