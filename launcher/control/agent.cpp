#include "launcher/control/agent.h"

#include <unistd.h>
#include <csignal>

#include <algorithm>
#include <cstdlib>

#include "common/bytes_io.h"
#include "common/ensure.h"
#include "common/log.h"
#include "launcher/control/exit_cause.h"
#include "launcher/control/liveness.h"
#include "launcher/control/node_environment.h"
#include "proto/control.pb.h"
#include "proto/error_json.h"
#include "proto/time_limits.h"

namespace coxswain::launcher {
namespace {

constexpr int kEvidenceLines = 8;

std::string abort_for_next() {
  control::WorkerCommand command;
  command.set_abort("another generation follows");
  return command.SerializeAsString();
}

}  // namespace

struct Agent::Rank {
  int rank = 0, local_device = 0;
  std::string device_class;
  std::filesystem::path out_file, error_file;
  int pid = 0;
  bool stream_open = false, finished = false, ended = false;
  bool kept = false;    // taken over from the generation before
  bool parked = false;  // it let go of this one
  std::string held;     // and keeps this of it in memory: a HeldState; empty: nothing
  bool killed = false;  // by us: whatever it still says, it ends
  std::optional<ProcessExit> exit;
  TimePoint last_words_until{};
  std::string error_json;
  bool peer_lost = false;
  RankFigures told;
  StoppedLooks stopped_looks;
};

struct Agent::Generation {
  control::StartGeneration start;
  std::vector<Rank> ranks;
  bool mpi = false;
  int mpirun_pid = 0;
  std::optional<ProcessExit> mpirun_exit;
  int first_gone = -1;                      // under mpirun: the rank whose stream ended first, unfinished
  std::optional<std::string> waiting_save;  // a WorkerCommand for the first rank, which has not said hello
  bool stopping = false;
  bool keeps = false;  // processes that let go of it, for the next one
  std::optional<TimePoint> kill_at;
  TimePoint look_at{};  // at ranks that are stopped
  std::int64_t oom_kills = 0;

  [[nodiscard]] int number() const { return start.work().generation(); }
};

Agent::Agent(AgentSetup setup, Spawner& spawner, ToCoordinator to_coordinator, ToWorker to_worker)
    : setup_(std::move(setup)),
      spawner_(spawner),
      to_coordinator_(std::move(to_coordinator)),
      to_worker_(std::move(to_worker)) {}

Agent::~Agent() = default;

std::string Agent::hello(int node_rank, const std::string& host, double cores, Bytes memory,
                         const std::string& cuda_note) const {
  control::AgentReport report;
  auto& hello = *report.mutable_hello();
  hello.set_node_rank(node_rank);
  hello.set_host(host);
  hello.set_local_addr(setup_.local_addr);
  hello.set_cores(cores);
  hello.set_memory_bytes(memory.value);
  hello.set_cuda_note(cuda_note);
  hello.set_pid(::getpid());
  hello.set_agent_id(setup_.node);
  hello.set_files_address(setup_.files_address);
  for (const LocalDevice& local : setup_.devices) {
    auto& device = *hello.add_devices();
    device.set_kind(std::string(cluster::to_text(local.request.kind)));
    device.set_ordinal(local.request.kind == cluster::DeviceKind::Cuda ? local.request.index : -1);
    device.set_cores(local.request.cores);
    device.set_name(local.name);
    device.set_memory_bytes(local.memory.value);
    device.set_enforced(local.enforced);
  }
  return report.SerializeAsString();
}

void Agent::tell(const Rank& rank, std::string body) { to_worker_(rank.rank, rank.pid, std::move(body)); }

void Agent::on_command(std::string_view body, TimePoint now) {
  control::AgentCommand command;
  if (!command.ParseFromArray(body.data(), static_cast<int>(body.size()))) return;
  switch (command.kind_case()) {
    case control::AgentCommand::kStart: start(command.start().SerializeAsString(), now); break;
    case control::AgentCommand::kAddresses:
      if (generation_ && generation_->number() == command.addresses().generation()) {
        control::WorkerCommand to_worker;
        *to_worker.mutable_addresses()->mutable_addresses() = command.addresses().addresses();
        for (const Rank& rank : generation_->ranks) tell(rank, to_worker.SerializeAsString());
      }
      break;
    case control::AgentCommand::kAbort:
      if (generation_) {
        control::WorkerCommand to_worker;
        to_worker.set_abort(command.abort());
        for (const Rank& rank : generation_->ranks) tell(rank, to_worker.SerializeAsString());
      }
      break;
    case control::AgentCommand::kSave:
      // One rank is enough: it tells the others at the step's commit point.
      if (generation_ && !generation_->ranks.empty()) {
        const Rank& first = generation_->ranks.front();
        control::WorkerCommand to_worker;
        *to_worker.mutable_save() = command.save();
        if (first.stream_open)
          tell(first, to_worker.SerializeAsString());
        else if (!generation_->waiting_save || command.save().stop())
          generation_->waiting_save = to_worker.SerializeAsString();
      }
      break;
    case control::AgentCommand::kStop: stop(command.stop().grace_seconds(), now, command.stop().keeps()); break;
    case control::AgentCommand::kOver:
      over_ = true;
      exit_code_ = command.over().exit_code();
      final_text_ = command.over().text();
      stop(0, now);
      break;
    case control::AgentCommand::kStore:  // of the CheckpointKeeper
    case control::AgentCommand::kList:
    case control::AgentCommand::kPrune:
    case control::AgentCommand::kMeasureLink:  // of the LinkProbe
    case control::AgentCommand::kHeartbeat:
    case control::AgentCommand::KIND_NOT_SET: break;
  }
}

void Agent::start(std::string_view start_bytes, TimePoint now) {
  auto generation = std::make_unique<Generation>();
  generation->start.ParseFromArray(start_bytes.data(), static_cast<int>(start_bytes.size()));
  generation->mpi = generation->start.work().backend() == "mpi";
  generation->oom_kills = count_oom_kills();
  log_files_.clear();
  const int number = generation->number();
  const std::filesystem::path logs =
      (number == 0 ? setup_.scratch_dir / "logs" : setup_.log_dir) / ("generation_" + std::to_string(number));
  for (const auto& placement : generation->start.ranks()) {
    Rank rank;
    rank.rank = placement.rank();
    rank.local_device = placement.local_device();
    rank.device_class = placement.device_class();
    rank.out_file = logs / std::to_string(rank.rank) / "stdout";
    rank.error_file = logs / std::to_string(rank.rank) / "stderr";
    if (number > 0) {
      log_files_.emplace_back(rank.rank, rank.out_file);
      log_files_.emplace_back(rank.rank, rank.error_file);
    }
    generation->ranks.push_back(std::move(rank));
  }
  generation_ = std::move(generation);
  for (Rank& rank : generation_->ranks) {
    rank.pid = take_kept(rank);
    rank.kept = rank.stream_open = rank.pid > 0;
    if (rank.kept) tell(rank, assignment_of(rank));
  }
  end_kept();
  if (generation_->ranks.empty()) return end_if_done();
  const auto spawned = generation_->mpi ? spawn_mpirun(*generation_) : spawn_ranks(*generation_);
  if (!spawned) {
    control::AgentReport report;
    report.set_error_json(proto::error_to_text(spawned.error()));
    to_coordinator_(report.SerializeAsString(), Haste::AtOnce);
    stop(0, now);
  }
}

namespace {

std::map<std::string, std::string> environment_of(const control::StartGeneration& start, int rank, int local_rank,
                                                  int threads) {
  WorkerPlace place;
  place.rank = rank;
  place.local_rank = local_rank;
  place.world_size = start.work().world_size();
  place.local_world_size = start.ranks_size();
  place.node_rank = start.node_rank();
  place.num_nodes = start.num_nodes();
  place.master_addr = start.master_addr();
  place.run_id = start.work().run_id();
  place.generation = start.work().generation();
  place.threads = threads;
  auto environment = worker_environment(place);
  for (const auto& [name, value] : start.environment()) environment[name] = value;
  return environment;
}

}  // namespace

Result<void> Agent::spawn_ranks(Generation& generation) {
  for (std::size_t i = 0; i < generation.ranks.size(); ++i) {
    Rank& rank = generation.ranks[i];
    if (rank.kept) continue;
    LocalDevice& device = setup_.devices.at(static_cast<std::size_t>(rank.local_device));
    SpawnRequest request;
    request.program = setup_.worker_program;
    request.arguments = {"--agent", setup_.worker_target};
    request.environment = environment_of(generation.start, rank.rank, static_cast<int>(i), device.threads);
    request.key = setup_.key;
    request.stdout_file = rank.out_file;
    request.stderr_file = rank.error_file;
    if (device.share) request.tasks_file = device.share->tasks_file();
    request.cpus = device.cpus;
    COX_TRY(rank.pid, spawner_.spawn(request));
  }
  return {};
}

Result<void> Agent::spawn_mpirun(Generation& generation) {
  // mpirun hands no descriptor on, so its workers read the key from a file that only this user may read.
  const std::filesystem::path key_file = setup_.scratch_dir / "key";
  COX_TRY_VOID(write_file(key_file, setup_.key));
  SpawnRequest request;
  request.program = "/usr/bin/env";
  request.arguments = {"mpirun", "-n", std::to_string(generation.ranks.size()), "--oversubscribe", "--bind-to",
                       "none",   "-q"};
  if (::geteuid() == 0) request.arguments.push_back("--allow-run-as-root");
  request.arguments.insert(request.arguments.end(), {setup_.worker_program.string(), "--agent", setup_.worker_target});
  request.environment = environment_of(generation.start, 0, 0, 1);
  for (const char* own : {"RANK", "LOCAL_RANK", "ROLE_RANK", "OMP_NUM_THREADS"}) {
    if (!generation.start.environment().contains(own)) request.environment.erase(own);
  }
  request.environment["COX_KEY_FILE"] = key_file.string();
  request.environment["COX_LOG_DIR"] = generation.ranks.front().error_file.parent_path().parent_path().string();
  request.stdout_file = generation.ranks.front().error_file.parent_path().parent_path() / "mpirun.stdout";
  request.stderr_file = generation.ranks.front().error_file.parent_path().parent_path() / "mpirun.stderr";
  COX_TRY(generation.mpirun_pid, spawner_.spawn(request));
  return {};
}

Agent::Rank* Agent::find_rank(int number) {
  if (!generation_) return nullptr;
  for (Rank& rank : generation_->ranks) {
    if (rank.rank == number) return &rank;
  }
  return nullptr;
}

void Agent::on_worker_report(int number, int pid, std::string_view body, Haste haste, TimePoint) {
  Rank* rank = find_rank(number);
  control::WorkerReport report;
  if (rank == nullptr || !report.ParseFromArray(body.data(), static_cast<int>(body.size()))) return;
  // What an earlier generation's worker of this number still had in its stream is none of this one's. Under mpirun a
  // pid is known by the hello.
  const bool known = rank->pid != 0 || !report.has_hello();
  if (known && rank->pid != pid) return;
  if (report.has_hello()) {
    rank->stream_open = true;
    LocalDevice& device = setup_.devices.at(static_cast<std::size_t>(rank->local_device));
    if (generation_->mpi) {
      rank->pid = static_cast<int>(report.hello().pid());
      if (device.share) {
        if (auto added = device.share->add_process(rank->pid); !added)
          log(LogLevel::Warn, "agent", added.error().message);
      }
    }
    tell(*rank, assignment_of(*rank));
    if (rank == &generation_->ranks.front() && generation_->waiting_save) tell(*rank, *generation_->waiting_save);
    if (generation_->keeps) tell(*rank, abort_for_next());
    return;
  }
  if (report.has_parked()) {
    if (rank->killed) return;
    rank->parked = true;
    if (report.parked().has_held()) rank->held = report.parked().held().SerializeAsString();
    if (!generation_->stopping) return;  // the coordinator says what becomes of it
    rank->ended = true;
    return end_if_done();
  }
  if (report.has_failure()) {
    rank->error_json = report.failure().error_json();
    rank->peer_lost = report.failure().peer_lost();
  }
  if (report.has_finished()) rank->finished = true;
  if (report.has_step()) {
    const control::StepReport& step = report.step();
    rank->told = {number, true, step.step(), step.step_seconds(), step.peak_memory_bytes(), step.resident_bytes()};
  }
  control::AgentReport up;
  up.mutable_worker()->set_rank(number);
  up.mutable_worker()->set_generation(generation_->number());
  *up.mutable_worker()->mutable_report() = std::move(report);
  to_coordinator_(up.SerializeAsString(), haste);
}

std::string Agent::assignment_of(const Rank& rank) const {
  const LocalDevice& device = setup_.devices.at(static_cast<std::size_t>(rank.local_device));
  control::WorkerCommand command;
  auto& assignment = *command.mutable_assignment();
  *assignment.mutable_work() = generation_->start.work();
  const auto place_here = [this](std::string* path) {
    if (const auto found = setup_.local_files.find(*path); found != setup_.local_files.end()) *path = found->second;
  };
  place_here(assignment.mutable_work()->mutable_model()->mutable_pt2());
  if (assignment.work().has_train()) {
    place_here(assignment.mutable_work()->mutable_train()->mutable_text());
    place_here(assignment.mutable_work()->mutable_train()->mutable_tensors());
  }
  assignment.set_rank(rank.rank);
  assignment.set_node(setup_.node);
  assignment.set_local_addr(setup_.local_addr);
  assignment.set_scratch_dir(setup_.scratch_dir.string());
  assignment.set_device_class(rank.device_class);
  assignment.set_files_address(setup_.files_address);
  assignment.set_copy_to(generation_->start.copy_to());
  assignment.set_num_nodes(generation_->start.num_nodes());
  if (rank.kept) assignment.set_log_folder(rank.error_file.parent_path().string());
  assignment.set_threads(device.threads);
  const auto& given = generation_->start.environment();
  if (const auto threads = given.find("OMP_NUM_THREADS"); threads != given.end()) {
    if (const int wanted = std::atoi(threads->second.c_str()); wanted > 0) assignment.set_threads(wanted);
  }
  assignment.set_cuda_ordinal(device.request.kind == cluster::DeviceKind::Cuda ? device.request.index : -1);
  for (const int node : generation_->start.rank_nodes()) assignment.add_nodes(std::to_string(node));
  return command.SerializeAsString();
}

/// The process that was kept of the same rank on the same device; 0: none. Under another number its stream, and its
/// environment, would be another rank's.
int Agent::take_kept(const Rank& rank) {
  const auto found = std::find_if(kept_.begin(), kept_.end(), [&](const Kept& kept) {
    return kept.rank == rank.rank && kept.local_device == rank.local_device;
  });
  if (found == kept_.end() || generation_->mpi) return 0;
  const int pid = found->pid;
  kept_.erase(found);
  return pid;
}

void Agent::end_kept() {
  for (const Kept& kept : std::exchange(kept_, {})) spawner_.send_signal(kept.pid, SIGKILL);
}

void Agent::on_worker_gone(int number, int pid, TimePoint now) {
  Rank* rank = find_rank(number);
  if (rank == nullptr || rank->pid != pid) return;  // of an earlier generation
  rank->stream_open = false;
  if (generation_->mpi) {
    if (!rank->finished && generation_->first_gone < 0) {
      generation_->first_gone = number;
      if (!generation_->kill_at) generation_->kill_at = after(now, limits::kMpiAbort);
    }
    return settle_mpi(now);
  }
  settle(*rank, now);
}

void Agent::on_process_exit(const ProcessExit& exit, TimePoint now) {
  std::erase_if(kept_, [&exit](const Kept& kept) { return kept.pid == exit.pid; });
  if (!generation_) return;
  if (generation_->mpi && exit.pid == generation_->mpirun_pid) {
    generation_->mpirun_exit = exit;
    return settle_mpi(now);
  }
  for (Rank& rank : generation_->ranks) {
    if (rank.pid != exit.pid || generation_->mpi) continue;
    rank.exit = exit;
    rank.last_words_until = after(now, limits::kLastWords);
    return settle(rank, now);
  }
}

bool Agent::killed_for_memory() const { return count_oom_kills() > generation_->oom_kills; }

void Agent::settle(Rank& rank, TimePoint now) {
  if (rank.ended || !rank.exit) return;
  // A signal leaves no last words; an exit may have some still in the stream.
  if (!rank.exit->signalled && rank.stream_open && now < rank.last_words_until) return;
  rank.ended = true;
  const bool clean = rank.finished && !rank.exit->signalled && rank.exit->number == 0;
  report_exit(rank, cause_of(rank, *rank.exit), clean);
  end_if_done();
}

void Agent::settle_mpi(TimePoint) {
  if (!generation_->mpirun_exit) return;
  const ProcessExit& exit = *generation_->mpirun_exit;
  // mpirun ends with the first failed rank's exit code, or 128 + its signal.
  const bool clean = !exit.signalled && exit.number == 0;
  ProcessExit of_rank = exit;
  if (!exit.signalled && exit.number > 128) of_rank = ProcessExit{exit.pid, true, exit.number - 128};
  for (Rank& rank : generation_->ranks) {
    if (rank.ended) continue;
    rank.ended = true;
    const bool first = generation_->first_gone < 0 || rank.rank == generation_->first_gone;
    if (!clean && !first) rank.peer_lost = true;
    report_exit(rank, cause_of(rank, of_rank), clean && rank.finished);
  }
  end_if_done();
}

std::string Agent::cause_of(const Rank& rank, const ProcessExit& exit) const {
  if (rank.stopped_looks.enough()) return "stopped (SIGSTOP) for 3 s";
  return describe_exit(exit, killed_for_memory());
}

void Agent::report_exit(Rank& rank, const std::string& cause, bool clean) {
  if (generation_->stopping && !clean) return;  // ended by us
  if (!clean && !rank.peer_lost) ++failures_;
  control::AgentReport report;
  auto& exit = *report.mutable_exit();
  exit.set_generation(generation_->number());
  exit.set_rank(rank.rank);
  exit.set_cause(cause);
  exit.set_clean(clean);
  exit.set_peer_lost(rank.peer_lost);
  exit.set_error_json(rank.error_json);
  if (!clean) exit.set_evidence(last_lines(rank.error_file, kEvidenceLines));
  if (generation_->number() > 0) exit.set_log(rank.error_file.string());
  to_coordinator_(report.SerializeAsString(), Haste::AtOnce);
}

AgentFigures Agent::figures() const {
  AgentFigures figures;
  figures.failures = failures_;
  if (!generation_) return figures;
  figures.generation = generation_->number();
  for (const Rank& rank : generation_->ranks) {
    figures.ranks.push_back(rank.told);
    figures.ranks.back().rank = rank.rank;
    figures.ranks.back().running = rank.stream_open && !rank.exit && !rank.parked;
  }
  return figures;
}

void Agent::end_if_done() {
  for (const Rank& rank : generation_->ranks) {
    if (!rank.ended) return;
  }
  control::AgentReport report;
  report.mutable_ended()->set_generation(generation_->number());
  for (const Rank& rank : generation_->ranks) {
    if (!rank.parked || rank.exit || !generation_->keeps) continue;
    kept_.push_back({rank.rank, rank.local_device, rank.pid});
    if (rank.held.empty()) continue;
    control::RankHeld& held = *report.mutable_ended()->add_held();
    held.set_rank(rank.rank);
    held.mutable_held()->ParseFromString(rank.held);
  }
  report.mutable_ended()->set_kept(static_cast<int>(kept_.size()));
  generation_.reset();
  to_coordinator_(report.SerializeAsString(), Haste::AtOnce);
}

void Agent::kill_all(int signal) {
  if (generation_->mpirun_pid > 0) spawner_.send_signal(generation_->mpirun_pid, signal);
  for (Rank& rank : generation_->ranks)
    if (!generation_->keeps || !rank.parked) kill_rank(rank, signal);
}

void Agent::kill_rank(Rank& rank, int signal) {
  rank.killed = rank.killed || signal == SIGKILL;
  if (!generation_->mpi && rank.pid > 0) spawner_.send_signal(rank.pid, signal);
  // Under mpirun a rank is nobody's child here: killed by the pid that it gave over its authenticated stream while
  // the stream is open, so that the number cannot have been given to another process.
  if (generation_->mpi && rank.stream_open && rank.pid > 0) ::kill(rank.pid, signal);
}

void Agent::end_stopped_ranks() {
  for (Rank& rank : generation_->ranks) {
    if (rank.pid == 0 || rank.exit || rank.ended || rank.parked || rank.stopped_looks.enough()) continue;
    if (rank.stopped_looks.add(spawner_.stopped_at(rank.pid))) kill_rank(rank, SIGKILL);
  }
}

void Agent::stop(double grace_seconds, TimePoint now, bool keeps) {
  if (!keeps) end_kept();
  if (!generation_) return;
  generation_->stopping = true;
  generation_->keeps = keeps && !generation_->mpi;
  for (Rank& rank : generation_->ranks) {
    if (rank.pid == 0 && !generation_->mpi) rank.ended = true;  // was never started
    if (rank.parked) rank.ended = generation_->keeps;
  }
  if (generation_->keeps) {
    for (const Rank& rank : generation_->ranks)
      if (rank.stream_open && !rank.exit && !rank.parked) tell(rank, abort_for_next());
    generation_->kill_at = after(now, limits::kPark);
  } else if (grace_seconds > 0) {
    kill_all(SIGTERM);
    generation_->kill_at = after(now, grace_seconds);
  } else {
    kill_all(SIGKILL);
    generation_->kill_at.reset();
  }
  if (generation_->mpi && generation_->mpirun_pid == 0) {
    for (Rank& rank : generation_->ranks) rank.ended = true;
  }
  end_if_done();
}

void Agent::on_coordinator_lost(TimePoint now) {
  if (!over_) {
    exit_code_ = 1;
    final_text_ = to_text(Error{ErrorCode::Unavailable, "the coordinator is gone", setup_.node,
                                "a coordinator that answers", "nobody answers any more", "see the output of node 0"});
  }
  over_ = true;
  stop(0, now);
}

void Agent::on_signal(int number, TimePoint now) {
  if (!setup_.local && !over_ && !std::exchange(asked_to_stop_, true)) {
    control::AgentReport report;
    report.set_stop_signal(number);
    to_coordinator_(report.SerializeAsString(), Haste::AtOnce);
    return;
  }
  exit_code_ = 128 + number;
  final_text_ = to_text(
      Error{ErrorCode::Cancelled, "this agent was stopped", setup_.node, "", "signal " + std::to_string(number), ""});
  over_ = true;
  stop(0, now);
}

void Agent::on_tick(TimePoint now) {
  if (!generation_) return;
  if (generation_->kill_at && now >= *generation_->kill_at) {
    generation_->kill_at.reset();
    kill_all(SIGKILL);
  }
  if (!generation_->stopping && now >= generation_->look_at) {
    generation_->look_at = after(now, limits::kStoppedLook);
    end_stopped_ranks();
  }
  for (std::size_t i = 0; generation_ && i < generation_->ranks.size(); ++i) settle(generation_->ranks[i], now);
}

TimePoint Agent::next_tick() const {
  if (!generation_) return TimePoint::max();
  TimePoint next = generation_->kill_at.value_or(TimePoint::max());
  if (!generation_->stopping) next = std::min(next, generation_->look_at);
  for (const Rank& rank : generation_->ranks) {
    if (rank.exit && !rank.ended) next = std::min(next, rank.last_words_until);
  }
  return next;
}

}  // namespace coxswain::launcher
