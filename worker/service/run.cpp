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
#include "worker/service/agent_link.h"
#include "worker/service/assignment.h"
#include "worker/service/modes.h"

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

/// Under mpirun: own log files, and the end of mpirun ends this rank too.
void settle_under_mpirun(int rank) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const auto folder = env("COX_LOG_DIR");
  if (!folder) return;
  const std::filesystem::path logs = std::filesystem::path(*folder) / std::to_string(rank);
  std::error_code ignored;
  std::filesystem::create_directories(logs, ignored);
  for (const auto& [name, descriptor] : {std::pair{"stdout", 1}, std::pair{"stderr", 2}}) {
    const int file = ::open((logs / name).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0) continue;
    ::dup2(file, descriptor);
    ::close(file);
  }
}

Result<void> work(AgentLink& link, const std::string& key) {
  COX_TRY(const std::string bytes, link.wait_assignment(Deadline::after(steady_clock(), Seconds(kConnectSeconds))));
  COX_TRY(const Assignment assignment, decode_assignment(bytes));
  // Before the first parallel region; libtorch reads it when it starts its pool.
  set_env("OMP_NUM_THREADS", std::to_string(assignment.settings.threads));
  switch (assignment.mode) {
    case Mode::Train: return run_training(link, assignment, key);
    case Mode::Measure: return run_measuring(link, assignment, key);
    case Mode::Check: return run_check(link, assignment);
  }
  return {};
}

bool follows_from_peer(const Error& error, const AgentLink& link) {
  return link.aborted() || error.code == ErrorCode::Unavailable || error.code == ErrorCode::Aborted;
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
  const auto worked = guard("worker", [&] { return work(**link, *key); });
  ExitCode code = ExitCode::Done;
  if (!worked) {
    code = exit_code_for(worked.error().code);
    std::cerr << to_text(worked.error()) << std::flush;
    control::WorkerReport report;
    report.mutable_failure()->set_error_json(proto::error_to_text(worked.error()));
    report.mutable_failure()->set_peer_lost(follows_from_peer(worked.error(), **link));
    (*link)->report(report);
  }
  (*link)->finish();
  return code;
}

}  // namespace coxswain::worker
