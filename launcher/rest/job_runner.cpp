#include "launcher/rest/job_runner.h"

#include <csignal>
#include <utility>

#include "checkpoint/folder.h"
#include "common/bytes_io.h"
#include "common/exit_code.h"
#include "common/hash.h"
#include "common/log.h"
#include "launcher/control/node_environment.h"
#include "launcher/watching/file_tail.h"

namespace coxswain::launcher {
namespace {

constexpr double kLookSeconds = 1;
constexpr std::size_t kFailureBytes = 2048;
constexpr std::pair kAlone{1, 1};
constexpr int kTokenBytes = 32;

struct Kept {
  std::filesystem::path run;  // empty: no attempt has left one in its own folder
  std::int64_t step = 0;
};

/// The newest attempt before `attempt` that has left a checkpoint, by its name alone: `launch train` verifies it.
Kept newest_kept(const std::filesystem::path& job, int attempt) {
  if (const std::int64_t step = checkpoint::newest_step(checkpoint_folder(job)); step >= 0) return {{}, step};
  for (int before = attempt - 1; before > 0; --before) {
    const std::filesystem::path run = run_folder(job, before);
    if (const std::int64_t step = checkpoint::newest_step(run / "checkpoints"); step >= 0) return {run, step};
  }
  return {};
}

}  // namespace

JobRunner::JobRunner(Options options, const Clock& clock, std::vector<JobRecord> records, MakeSpawner make_spawner)
    : options_(std::move(options)), clock_(clock), nodes_(clock) {
  for (JobRecord& record : records) {
    if (record.state == JobState::Running) {  // it was killed with the service
      forget_token(record);
      record.state = record.cancels ? JobState::Cancelled : JobState::Queued;
      if (record.cancels) record.ended = clock_.utc_text();
      save(record);
    }
    records_.emplace(record.id, std::move(record));
  }
  thread_ = std::jthread([this, make_spawner = std::move(make_spawner)] {
    spawner_ = make_spawner([this](const ProcessExit& exit) { events_.push(exit); });
    loop();
    spawner_.reset();
  });
  events_.push(Look{});
}

JobRunner::~JobRunner() {
  if (!drained_) drain();
  wait();
}

void JobRunner::drain() {
  drained_ = true;
  nodes_.close();
  events_.push(Drain{});
}

void JobRunner::wait() {
  if (thread_.joinable()) thread_.join();
}

Result<void> JobRunner::add(const JobRecord& record) {
  {
    const std::lock_guard lock(mutex_);
    std::size_t waiting = 0;
    for (const auto& [id, one] : records_) waiting += one.state == JobState::Queued ? 1 : 0;
    if (waiting >= options_.most_waiting)
      return Error{ErrorCode::ResourceExhausted,         "too many jobs wait", "",
                   "at most " + std::to_string(waiting), "one more",           "cancel one, or send it later"};
    COX_TRY_VOID(save_job_record(options_.folder, record));
    records_.emplace(record.id, record);
  }
  events_.push(Look{});
  return {};
}

bool JobRunner::cancel(const std::string& id) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = records_.find(id);
    if (found == records_.end() || has_ended(found->second.state)) return false;
    found->second.cancels = true;
    if (found->second.state == JobState::Queued) {
      found->second.state = JobState::Cancelled;
      found->second.ended = clock_.utc_text();
    }
    save(found->second);
  }
  events_.push(Look{});
  return true;
}

Result<void> JobRunner::remove(const std::string& id) {
  const std::filesystem::path folder = options_.folder / id;
  {
    const std::lock_guard lock(mutex_);
    const auto found = records_.find(id);
    if (found == records_.end()) return Error{ErrorCode::NotFound, "no such job", id, "", "", ""};
    if (!has_ended(found->second.state))
      return Error{ErrorCode::FailedPrecondition, "the job has not ended", id, "", "", "cancel it first"};
    records_.erase(found);
    // What is left of a folder without a record goes at the next start.
    remove_job_record(options_.folder, id);
  }
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return {};
}

std::optional<JobRecord> JobRunner::find(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto found = records_.find(id);
  return found == records_.end() ? std::nullopt : std::optional(found->second);
}

std::vector<JobRecord> JobRunner::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<JobRecord> records;
  for (auto at = records_.rbegin(); at != records_.rend(); ++at) records.push_back(at->second);
  return records;
}

void JobRunner::loop() {
  while (!draining_ || pid_ != 0) {
    auto event = events_.pop(Deadline::after(clock_, Seconds(kLookSeconds)).at);
    nodes_.look();
    handle(event ? *event : Look{});
    if (kill_by_ && kill_by_->passed(clock_)) {
      kill_by_.reset();
      spawner_->send_signal(pid_, SIGKILL);
    }
  }
}

void JobRunner::handle(const Event& event) {
  const std::lock_guard lock(mutex_);
  if (std::holds_alternative<Drain>(event)) {
    if (draining_ && pid_ != 0)
      spawner_->send_signal(pid_, SIGKILL);
    else
      ask_to_end();
    draining_ = true;
  } else if (const auto* exit = std::get_if<ProcessExit>(&event)) {
    if (exit->pid == pid_) end(records_.at(running_), *exit);
  } else if (pid_ != 0 && records_.at(running_).cancels) {
    ask_to_end();
  }
  if (!draining_ && pid_ == 0) start_next();
}

/// The one that was sent first; it is waited for until as many nodes wait as it begins with.
void JobRunner::start_next() {
  for (auto& [id, record] : records_) {
    if (record.state != JobState::Queued) continue;
    if (!has_nodes(record)) return;
    start(record);
    if (pid_ != 0) return;
  }
}

bool JobRunner::has_nodes(const JobRecord& record) const {
  return parse_node_range(record.nodes).value_or(kAlone).first <= 1 + nodes_.num_waiting();
}

void JobRunner::start(JobRecord& record) {
  const std::string now = clock_.utc_text();
  ++record.attempts;
  if (record.started.empty()) record.started = now;
  const auto kept =
      guard("launcher", [&]() -> Result<Kept> { return newest_kept(options_.folder / record.id, record.attempts); });
  Result<void> begun = kept ? Result<void>() : Result<void>(kept.error());
  if (kept && record.attempts > 1 && kept->step >= record.steps) {
    record.state = JobState::Finished;  // the service ended between its last step and its record
    record.exit_code = 0;
    record.ended = now;
    return save(record);
  }
  // Before it is there: an attempt whose files may exist is not begun again.
  record.state = JobState::Running;
  save(record);
  if (begun) {
    const auto pid = spawn(record, kept->run);
    if (pid) {
      running_ = record.id;
      pid_ = *pid;
      return;
    }
    begun = pid.error();
  }
  record.state = JobState::Failed;
  record.ended = now;
  record.failure = to_text(begun.error());
  save(record);
}

Result<int> JobRunner::spawn(const JobRecord& record, const std::filesystem::path& resume_from) {
  SpawnRequest request = spawn_request(record, resume_from);
  const int most = parse_node_range(record.nodes).value_or(kAlone).second - 1;
  if (most == 0) return spawner_->spawn(request);
  const std::string token = random_hex(kTokenBytes);
  const std::filesystem::path file = token_file(options_.folder / record.id, record.attempts);
  if (!takes_nodes())
    return Error{ErrorCode::FailedPrecondition,
                 "no address of this machine is known that other nodes reach",
                 "--listen",
                 "one address, or --local-addr",
                 "all",
                 "start the service with --local-addr"};
  COX_TRY_VOID(write_file(file, token + "\n"));
  request.arguments.insert(request.arguments.end(),
                           {"--nnodes", record.nodes, "--node-rank", "0", "--rdzv-endpoint",
                            options_.host + ":" + std::to_string(options_.port), "--token-file", file.string()});
  const auto pid = spawner_->spawn(request);
  if (pid)
    nodes_.begin({record.id, options_.tells_host ? options_.host : "", options_.port, token}, most);
  else
    forget_token(record);
  return pid;
}

SpawnRequest JobRunner::spawn_request(const JobRecord& record, const std::filesystem::path& resume_from) const {
  const std::filesystem::path job = options_.folder / record.id;
  SpawnRequest request;
  request.program = options_.program;
  request.arguments = {"train", (job / "job.yaml").string(), "--run-dir", run_folder(job, record.attempts).string()};
  if (!record.devices.empty()) request.arguments.insert(request.arguments.end(), {"--devices", record.devices});
  if (!resume_from.empty()) request.arguments.insert(request.arguments.end(), {"--resume", resume_from.string()});
  request.stdout_file = console_file(job, record.attempts);
  request.stderr_file = errors_file(job, record.attempts);
  return request;
}

void JobRunner::end(JobRecord& record, const ProcessExit& exit) {
  pid_ = 0;
  running_.clear();
  kill_by_.reset();
  nodes_.end();
  forget_token(record);
  const int code = exit.signalled ? 128 + exit.number : exit.number;
  // Its checkpoint is saved: the service ends, or a node was taken away, and with it the run.
  const bool goes_on = draining_ ? code != 0 : code == static_cast<int>(ExitCode::Stopped);
  if (goes_on && !record.cancels) {
    record.state = JobState::Queued;
  } else {
    record.state = code == 0 ? JobState::Finished : record.cancels ? JobState::Cancelled : JobState::Failed;
    record.ended = clock_.utc_text();
    record.exit_code = code;
    if (record.state == JobState::Failed)
      record.failure = last_bytes(errors_file(options_.folder / record.id, record.attempts), kFailureBytes);
  }
  save(record);
}

void JobRunner::forget_token(const JobRecord& record) const {
  std::error_code ignored;
  std::filesystem::remove(token_file(options_.folder / record.id, record.attempts), ignored);
}

void JobRunner::ask_to_end() {
  if (pid_ == 0 || kill_by_) return;
  spawner_->send_signal(pid_, SIGTERM);
  kill_by_ = Deadline::after(clock_, options_.grace);
}

void JobRunner::save(const JobRecord& record) {
  if (auto saved = save_job_record(options_.folder, record); !saved)
    log(LogLevel::Error, "serve", to_text(saved.error()));
}

}  // namespace coxswain::launcher
