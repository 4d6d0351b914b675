// The agent as a process: its server for workers, its stream to the coordinator, and the loop that feeds Agent.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <thread>
#include <variant>

#include "common/env.h"
#include "common/hash.h"
#include "common/log.h"
#include "launcher/control/agent.h"
#include "launcher/control/agent_figures.h"
#include "launcher/control/checkpoint_keeper.h"
#include "launcher/control/coordinator_line.h"
#include "launcher/control/event_queue.h"
#include "launcher/control/input_files.h"
#include "launcher/control/link_probe.h"
#include "launcher/control/liveness.h"
#include "launcher/control/local_start.h"
#include "launcher/control/run_directory.h"
#include "launcher/control/signals.h"
#include "launcher/control/train.h"
#include "launcher/rest/http_server.h"
#include "proto/control.pb.h"
#include "proto/file_exchange.h"

namespace coxswain::launcher {
namespace {

// Between two looks at clocks.
constexpr int kMostEvents = 256;
// Of /metrics.
constexpr int kMostWatchers = 16;
constexpr double kDrainSeconds = 0.2;
constexpr int kMostTries = 5;

struct FromWorker {
  int rank = 0, pid = 0;
  std::string body;
  Haste haste = Haste::AtOnce;
};
struct WorkerGone {
  int rank = 0, pid = 0;
};
struct SignalCame {
  int number = 0;
};
/// By what works beside the loop.
struct Told {
  std::string report;
};
/// Whoever watches nodes asks how the ranks are.
struct FiguresAsked {
  Reply reply;
};
using AgentEvent = std::variant<LineEvent, FromWorker, WorkerGone, ProcessExit, SignalCame, Told, FiguresAsked>;

/// `/metrics` and `/healthz` at `listen`; null where that is empty. Answered by the loop.
Result<std::unique_ptr<HttpServer>> serve_figures(const std::string& listen, EventQueue<AgentEvent>& events) {
  if (listen.empty()) return std::unique_ptr<HttpServer>();
  HttpHandler handler;
  handler.admit = [](const HttpRequest&) { return std::size_t{0}; };
  handler.handle = [&events](const HttpRequest& request, Reply reply) {
    if (request.path != "/metrics" && request.path != "/healthz")
      return reply({404, "text/plain", "there are /metrics and /healthz\n"});
    if (request.method != "GET") return reply({405, "text/plain", "", {{"Allow", "GET"}}});
    if (request.path == "/healthz") return reply({200, "text/plain", "ok\n"});
    events.push(FiguresAsked{std::move(reply)});
  };
  HttpOptions options;
  options.listen = listen;
  options.limits.connections = kMostWatchers;
  auto server = make_http_server(options, std::move(handler));
  if (!server) {
    Error error = std::move(server).error();
    error.path = "--metrics " + listen;
    error.hint = "name another --metrics ADDRESS:PORT, or leave it out";
    return error;
  }
  (*server)->start();
  return std::move(*server);
}

/// Open streams of workers by process: one of an earlier generation may say hello late, with a rank that another has.
class WorkerStreams {
 public:
  void add(int pid, proto::Stream* stream) {
    const std::lock_guard lock(mutex_);
    streams_[pid] = stream;
  }
  void remove(int pid, proto::Stream* stream) {
    const std::lock_guard lock(mutex_);
    if (const auto found = streams_.find(pid); found != streams_.end() && found->second == stream)
      streams_.erase(found);
  }
  void send(int pid, std::string body) {
    const std::lock_guard lock(mutex_);
    if (const auto found = streams_.find(pid); found != streams_.end()) found->second->send(std::move(body));
  }

 private:
  std::mutex mutex_;
  std::map<int, proto::Stream*> streams_;
};

void serve_worker(proto::Stream& stream, WorkerStreams& streams, EventQueue<AgentEvent>& events) {
  auto first = stream.receive();
  control::WorkerReport report;
  if (!first || !report.ParseFromString(*first) || !report.has_hello()) return;
  const int rank = report.hello().rank();
  const int pid = static_cast<int>(report.hello().pid());
  streams.add(pid, &stream);
  events.push(FromWorker{rank, pid, std::move(*first)});
  ReportHaste report_haste;
  while (auto body = stream.receive()) {
    const Haste haste = report_haste.of(*body, steady_clock().now());
    FromWorker event{rank, pid, std::move(*body), haste};
    // One that waits for the heartbeat need not wake the loop before.
    if (haste == Haste::AtOnce)
      events.push(std::move(event));
    else
      events.push_later(std::move(event));
  }
  streams.remove(pid, &stream);
  events.push(WorkerGone{rank, pid});
}

/// --tee: copies what is new in the ranks' logs, whole lines, each with its rank.
class LogCopier {
 public:
  void copy(const std::vector<std::pair<int, std::filesystem::path>>& files) {
    for (const auto& [rank, file] : files) {
      std::ifstream in(file, std::ios::binary);
      std::streamoff& position = positions_[file];
      in.seekg(position);
      std::string line;
      while (std::getline(in, line) && !in.eof()) {
        position += static_cast<std::streamoff>(line.size()) + 1;
        std::cout << "[rank " << rank << "] " << line << "\n" << std::flush;
      }
    }
  }

 private:
  std::map<std::filesystem::path, std::streamoff> positions_;
};

std::string host_name() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  return name;
}

/// A coordinator that dies while it answers is started again: another one will.
Result<std::unique_ptr<proto::Stream>> connect_first(const AgentStart& start, Deadline deadline,
                                                     const std::stop_token& stop) {
  for (int tries = 1;; ++tries) {
    auto stream = proto::connect(start.coordinator, proto::Service::Coordinator, start.secret, deadline, stop);
    if (stream || stop.stop_requested() || stream.error().code != ErrorCode::Unavailable || tries == kMostTries)
      return stream;
  }
}

/// The same, from a coordinator that may die meanwhile.
Result<std::map<std::string, std::string>> fetch_all(const AgentStart& start, const std::stop_token& stop) {
  for (int tries = 1;; ++tries) {
    auto fetched = fetch_inputs(start.coordinator, start.secret, start.scratch_dir, stop);
    const bool may_pass = !fetched && fetched.error().code == ErrorCode::Unavailable && !stop.stop_requested();
    if (!may_pass || tries == kMostTries) return fetched;
  }
}

Result<ExitCode> run_agent_process(const AgentStart& start) {
  ::umask(0077);
  const Clock& clock = steady_clock();
  EventQueue<AgentEvent> events;
  std::stop_source leaving;
  const SignalWatcher signals([&](int number) {  // before any thread starts
    leaving.request_stop();
    events.push(SignalCame{number});
  });
  const cluster::Inventory inventory = cluster::take_inventory();
  const std::string socket = "unix:" + (start.scratch_dir / "agent.sock").string();

  const Deadline join_by = Deadline::after(clock, Seconds(start.join_timeout_seconds));
  // One beside the coordinator tells it of the signal.
  const std::stop_token stop = start.local ? std::stop_token() : leaving.get_token();
  auto coordinator = connect_first(start, join_by, stop);
  AgentSetup setup;
  // On the coordinator's own node they are where it says. Nothing is said on this connection yet, and it ends
  // meanwhile.
  if (coordinator && !start.local) {
    COX_TRY(setup.local_files, fetch_all(start, stop));
    if (stop.stop_requested()) return ExitCode::Stopped;
    coordinator = connect_first(start, join_by, stop);
  }
  if (!coordinator && stop.stop_requested()) return ExitCode::Stopped;
  if (!coordinator) return coordinator.error();
  const std::string run_id = (*coordinator)->run_id();
  const std::string key = start.secret.is_token ? hmac_sha256_hex(start.secret.text, run_id) : start.secret.text;

  setup.key = key;
  setup.log_dir = start.log_dir;
  setup.scratch_dir = start.scratch_dir;
  setup.worker_program = start.worker_program;
  setup.local = start.local;
  setup.worker_target = socket;
  setup.local_addr = start.local_addr;
  if (setup.local_addr.empty()) {
    COX_TRY(setup.local_addr, address_towards(start.coordinator));
  }
  // Where a port cannot be had, other nodes get no copies; that shows as checkpoints that are not copied.
  const auto files = proto::start_server({setup.local_addr + ":0", proto::Service::Agent, {key, false}, run_id},
                                         [](proto::Stream& peer) { proto::serve_files(peer); });
  if (files) setup.files_address = setup.local_addr + ":" + std::to_string((*files)->port());
  setup.node = host_name() + "/" + random_hex(4);
  auto devices =
      prepare_devices(start.devices, start.processes_per_node, inventory, "coxswain-" + run_id + "-" + random_hex(3));

  WorkerStreams workers;
  proto::ServerOptions options{socket, proto::Service::Agent, {key, false}, run_id};
  COX_TRY(const auto server,
          proto::start_server(options, [&](proto::Stream& worker) { serve_worker(worker, workers, events); }));
  const auto figures = serve_figures(start.metrics, events);
  Result<ExitCode> result = ExitCode::Failed;
  {
    if (devices) setup.devices = std::move(*devices);
    const auto spawner = make_process_spawner([&](const ProcessExit& exit) { events.push(exit); });
    std::optional<CoordinatorLine> line;
    Agent agent(
        std::move(setup), *spawner, [&](std::string body, Haste haste) { line->send(std::move(body), haste); },
        [&](int, int pid, std::string body) { workers.send(pid, std::move(body)); });
    line.emplace(
        CoordinatorLine::Target{start.coordinator, start.secret,
                                start.local ? limits::kAloneSilence : limits::kSilence},
        std::move(*coordinator),
        agent.hello(start.node_rank, host_name(), inventory.cores, inventory.memory, inventory.cuda_note),
        [&](LineEvent event) { events.push(std::move(event)); }, clock);
    if (!devices) line->send(agent_error_report(devices.error()));
    if (!figures) line->send(agent_error_report(figures.error()));
    const auto tell = [&](std::string report) { events.push(Told{std::move(report)}); };
    CheckpointKeeper keeper(tell);
    LinkProbe links({key, false}, tell);

    LogCopier copier;
    bool lost = false;
    while (!agent.over()) {
      TimePoint wake = std::min(line->next_tick(), agent.next_tick());
      if (start.tee) wake = std::min(wake, Deadline::after(clock, Seconds(limits::kTick)).at);
      // All that wait, before what they bring leaves together.
      for (int count = 0; count < kMostEvents; ++count) {
        auto event = events.pop(wake);
        if (!event) break;
        const TimePoint now = clock.now();
        wake = now;
        if (auto* from = std::get_if<LineEvent>(&*event)) {
          for (const std::string& command : line->handle(*from)) {
            if (!keeper.take(command) && !links.take(command)) agent.on_command(command, now);
          }
        } else if (auto* report = std::get_if<FromWorker>(&*event)) {
          agent.on_worker_report(report->rank, report->pid, report->body, report->haste, now);
        } else if (auto* gone = std::get_if<WorkerGone>(&*event)) {
          agent.on_worker_gone(gone->rank, gone->pid, now);
        } else if (auto* exit = std::get_if<ProcessExit>(&*event)) {
          agent.on_process_exit(*exit, now);
        } else if (auto* signal = std::get_if<SignalCame>(&*event)) {
          agent.on_signal(signal->number, now);
        } else if (auto* told = std::get_if<Told>(&*event)) {
          line->send(std::move(told->report));
        } else if (auto* asked = std::get_if<FiguresAsked>(&*event)) {
          asked->reply({200, "text/plain; version=0.0.4", prometheus_text(agent.figures(), line->connected())});
        }
      }
      const TimePoint now = clock.now();
      agent.on_tick(now);
      line->tick();
      if (!lost && line->lost()) {
        lost = true;
        agent.on_coordinator_lost(now);
      }
      if (start.tee) copier.copy(agent.log_files());
    }
    result = static_cast<ExitCode>(agent.exit_code());
    if (const auto status = line->status(); lost && !status && status.error().code == ErrorCode::Unauthenticated) {
      result = status.error();
    } else if (!start.local && !agent.final_text().empty()) {
      std::cerr << agent.final_text() << std::flush;
    }
    events.close();  // nobody who posts waits for room any more
    // A reply may not outlive the server.
    while (auto left = events.pop(clock.now()))
      if (auto* asked = std::get_if<FiguresAsked>(&*left)) asked->reply({503, "text/plain", "this agent ends\n"});
    if (figures && *figures) {
      (*figures)->drain(Deadline::after(clock, Seconds(kDrainSeconds)));
      (*figures)->wait();
    }
  }
  // First what would be left if the rest lasts: gRPC waits by the time of the day, which may have gone back.
  std::error_code ignored;
  if (!start.local) std::filesystem::remove_all(start.scratch_dir, ignored);
  server->stop();
  if (files) (*files)->stop();
  return result;
}

}  // namespace

Result<ExitCode> run_agent(const AgentRequest& request) {
  ::umask(0077);
  COX_TRY(auto scratch, ScratchFolder::make());
  AgentStart start;
  COX_TRY(start.worker_program, find_worker_program(request.worker_program));
  COX_TRY(start.secret.text, read_token(request.token_file));
  start.secret.is_token = true;
  start.coordinator = request.coordinator;
  start.devices = request.devices;
  start.processes_per_node = request.processes_per_node;
  start.node_rank = request.node_rank;
  start.local_addr = request.local_addr;
  start.metrics = request.metrics;
  start.scratch_dir = scratch.path();
  start.log_dir = (request.run_dir.empty() ? default_run_directory("agent", steady_clock()) : request.run_dir) / "logs";
  start.tee = request.tee;
  start.join_timeout_seconds = request.join_timeout_seconds;
  return run_agent_process(start);
}

ExitCode run_local_agent_process() {
  const auto run = []() -> Result<ExitCode> {
    COX_TRY(const Json json, read_request_from_stdin());
    COX_TRY(const AgentStart start, agent_start_from_json(json));
    return run_agent_process(start);
  };
  const auto result = guard("launcher", run);
  if (result) return *result;
  std::cerr << to_text(result.error()) << std::flush;
  return exit_code_for(result.error().code);
}

}  // namespace coxswain::launcher
