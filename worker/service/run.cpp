#include "worker/service/run.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <iostream>
#include <optional>

#include "common/bytes_io.h"
#include "common/ensure.h"
#include "common/env.h"
#include "common/log.h"
#include "proto/control.pb.h"
#include "proto/error_json.h"
#include "proto/time_limits.h"
#include "worker/service/agent_link.h"
#include "worker/service/assignment.h"
#include "worker/service/modes.h"
#include "worker/service/progress_message.h"

namespace coxswain::worker {
namespace {

constexpr double kConnectSeconds = 30;

std::optional<int> number_from(const char* variable) {
  const auto text = env(variable);
  int number = 0;
  if (!text || std::from_chars(text->data(), text->data() + text->size(), number).ec != std::errc())
    return std::nullopt;
  return number;
}

Result<std::string> read_key() {
  if (const auto file = env("COX_KEY_FILE")) return read_file(*file);
  const auto descriptor = number_from("COX_KEY_FD");
  if (!descriptor)
    return Error{ErrorCode::FailedPrecondition,
                 "a worker is started by its agent",
                 "COX_KEY_FD",
                 "the job's key",
                 "nothing",
                 "launch train JOB"};
  std::string key(4096, '\0');
  const ssize_t size = ::read(*descriptor, key.data(), key.size());
  ::close(*descriptor);
  key.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
  return key;
}

/// From here on output goes to files there.
void write_logs_to(const std::filesystem::path& logs) {
  std::error_code ignored;
  std::filesystem::create_directories(logs, ignored);
  for (const auto& [name, descriptor] : {std::pair{"stdout", 1}, std::pair{"stderr", 2}}) {
    const int file = ::open((logs / name).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0) continue;
    ::dup2(file, descriptor);
    ::close(file);
  }
}

/// Under mpirun: own log files, and the end of mpirun ends this rank too.
void settle_under_mpirun(int rank) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (const auto folder = env("COX_LOG_DIR")) write_logs_to(std::filesystem::path(*folder) / std::to_string(rank));
}

Result<void> carry_out(AgentLink& link, const Assignment& assignment, const std::string& key,
                       std::optional<KeptState>& kept) {
  // Before the first parallel region; libtorch reads it when it starts its pool.
  set_env("OMP_NUM_THREADS", std::to_string(assignment.settings.threads));
  switch (assignment.mode) {
    case Mode::Train: return run_training(link, assignment, key, kept);
    case Mode::Measure: return run_measuring(link, assignment, key);
    case Mode::Check: return run_check(link, assignment);
  }
  return {};
}

/// An error of this rank's own is one also where another rank's comes first: it may be why that one lost a peer.
bool follows_from_peer(const Error& error) {
  return error.code == ErrorCode::Unavailable || error.code == ErrorCode::Aborted;
}

Error told(AgentLink& link, Error error) {
  std::cerr << to_text(error) << std::flush;
  control::WorkerReport report;
  report.mutable_failure()->set_error_json(proto::error_to_text(error));
  report.mutable_failure()->set_peer_lost(follows_from_peer(error));
  link.report(report);
  return error;
}

/// Training ended because of another rank, and has let go of all it had. `host` alone: what NCCL and MPI keep in a
/// process after the loss of a peer is theirs to know.
bool may_stay(const Assignment& assignment, const Error& error) {
  return assignment.mode == Mode::Train && assignment.backend == "host" && follows_from_peer(error);
}

/// The last word of a generation.
control::WorkerReport parked_report(const std::optional<KeptState>& kept) {
  control::WorkerReport report;
  control::Parked& parked = *report.mutable_parked();
  if (!kept) return report;
  parked.mutable_held()->set_generation(kept->generation);
  parked.mutable_held()->set_num_elements(kept->num_elements);
  control::ShardSaved& told = *parked.mutable_held()->mutable_state();
  set_progress(kept->state.progress, told);
  checkpoint::Shard shard;
  shard.file = "memory";
  std::int64_t elements = 0;
  for (const checkpoint::PieceView& view : kept->state.pieces) {
    shard.pieces.push_back(view.piece);
    elements += view.piece.count;
  }
  parked.mutable_held()->set_held_elements(elements);
  told.set_shard_json(to_text(checkpoint::to_json(shard)));
  return report;
}

/// Assignment after assignment: whoever lost a peer and nothing else stays for the next generation.
Result<void> work(AgentLink& link, const std::string& key) {
  std::optional<KeptState> kept;
  for (Deadline deadline = Deadline::after(steady_clock(), Seconds(kConnectSeconds));; deadline = Deadline::never()) {
    const auto bytes = link.wait_assignment(deadline);
    if (!bytes) return told(link, bytes.error());
    const auto assignment = decode_assignment(*bytes);
    if (!assignment) return told(link, assignment.error());
    if (!assignment->log_folder.empty()) write_logs_to(assignment->log_folder);
    const auto done = guard("worker", [&] { return carry_out(link, *assignment, key, kept); });
    if (done) return {};
    const Error error = told(link, done.error());
    if (!may_stay(*assignment, error) || !link.wait_abort(Deadline::after(steady_clock(), Seconds(limits::kGivenUp))))
      return error;
    link.park();
    link.report(parked_report(kept));
  }
}

}  // namespace

ExitCode run_worker(const std::string& agent) {
  ::umask(0077);
  const bool under_mpirun = env("COX_KEY_FILE").has_value();
  const int rank = number_from(under_mpirun ? "OMPI_COMM_WORLD_RANK" : "RANK").value_or(0);
  if (under_mpirun) settle_under_mpirun(rank);
  set_log_name("rank " + std::to_string(rank));
  const auto key = read_key();
  if (!key) {
    std::cerr << to_text(key.error());
    return exit_code_for(key.error().code);
  }
  auto link = AgentLink::connect(agent, *key, rank, Deadline::after(steady_clock(), Seconds(kConnectSeconds)));
  if (!link) {
    std::cerr << to_text(link.error());
    return exit_code_for(link.error().code);
  }
  const auto worked = work(**link, *key);
  (*link)->finish();
  return worked ? ExitCode::Done : exit_code_for(worked.error().code);
}

}  // namespace coxswain::worker
